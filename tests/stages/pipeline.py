"""Params of a small pipeline, folders of pairs, a project as far as `embed`, and stages in a child process.

That process may be killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from flame_core.digest import write_json
from flame_core.layout import Layout
from flame_core.params import LLMParams, Params
from flame_core.stages import caption, download, ingest
from flame_core.text.llm import SOURCE
from flame_core.verification import write_digests
from tests.conftest import text_params, tiny_llm
from tests.data.drawings import png

ROOT = Path(__file__).parents[2]


def pipeline_params(sources: Mapping[str, Any], **ingest: Any) -> Params:
    """Params with these sources and ingest values; the sections behind are the smallest valid ones."""
    return Params.model_validate(
        {
            "sources": sources,
            "ingest": {"val_fraction": 0.25, "shard_samples": 8, "max_side": 64, **ingest},
            "llm": {"name": "none", "source": "path:none"},
            "text": {"layer": 1, "train_kinds": ["raw"], "template": {"raw": {"prefix": "{caption}", "facets": ["x"]}}},
            "recipes": ["small"],
            "train": {"small": {"kinds": ["raw"]}},
        }
    )


def folder_source(folder: Path, **params: Any) -> dict[str, Any]:
    return {"kind": "folder", "path": str(folder), **params}


def write_pairs(folder: Path, numbers: range, captions: str = "drawing number {}") -> None:
    """Different pictures with different captions, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:04d}.png").write_bytes(png(number))
        (folder / f"{number:04d}.txt").write_text(captions.format(number))


def captioned_project(
    root: Path, tokenizer: PreTrainedTokenizerBase, pictures: int, **of_ingest: Any
) -> tuple[Params, Layout]:
    """Shards and captions of so many drawings, and a tiny LLM: all that `embed` reads."""
    write_pairs(root / "pairs", range(pictures))
    params = pipeline_params({"pairs": folder_source(root / "pairs")}, **of_ingest).model_copy(
        update={
            "text": text_params(layer=2, train_kinds=["raw", "short"]),
            "llm": LLMParams(name="tiny", source="path:x"),
        }
    )
    layout = Layout.find(root)
    folder = layout.llm / "tiny"
    tiny_llm("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / SOURCE, {"name": "tiny", "source": "path:x", "files": {"model.safetensors": "0"}})
    write_digests(layout.llm)
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    return params, layout


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start_stage(stage: str, params: Params, layout: Layout, **settings: str) -> subprocess.Popen[bytes]:
    """Run a stage in a child process, as the command line does."""
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from importlib import import_module\n"
        "from flame_core.layout import Layout\n"
        "from flame_core.params import Params\n"
        "if __name__ == '__main__':\n"
        "    stage, root = sys.argv[1:3]\n"
        "    params = Params.model_validate(json.loads(sys.argv[3]))\n"
        "    import_module('flame_core.stages.' + stage).run(params, Layout.find(Path(root)))\n"
    )
    script = layout.root / "run_stage.py"
    script.write_text(code)
    environment = (
        os.environ | {"PYTHONPATH": str(ROOT)} | {f"FLAME_{name.upper()}": value for name, value in settings.items()}
    )
    command = [sys.executable, str(script), stage, str(layout.root), json.dumps(params.model_dump(mode="json"))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
