"""What of this machine a stage reads, and whether a change of it counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flame_core.dvc_project.project import DvcProject
from flame_core.layout import Layout
from flame_core.outside.inputs import outside_stages
from flame_core.outside.noted import note_first, noting
from flame_core.params import merge, read_yaml
from flame_core.stages import fetch_llm
from flame_core.workspace import resolve_params
from tests.conftest import tiny_llm
from tests.outside.projects import (
    DEFINITION,
    add,
    changed,
    note_seen,
    of_a_baseline,
    of_a_benchmark,
    of_a_captioner,
    of_a_definition,
    of_a_scorer,
    of_a_table,
    of_a_tagger,
    of_a_teacher,
    set_up_dvc,
)


def noticed(layout: Layout, stage: str, change: Callable[[], object]) -> bool:
    """Whether a change makes a stage run anew that has seen all before."""
    note_seen(resolve_params(layout, [], None).params, layout, stage)
    before = changed(layout)
    change()
    return changed(layout).get(stage) is not None and stage not in before


def set_source(layout: Layout, source: dict[str, Any]) -> None:
    content = read_yaml(layout.params)
    content["sources"] = {"mine": source}
    layout.params.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("absolute", [False, True])
def test_a_table_outside_of_the_folder_counts(layout: Layout, tmp_path: Path, absolute: bool):
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\n0.png,a bird\n")
    named = str(table) if absolute else "../captions.csv"
    set_source(layout, {"kind": "folder", "path": "../pictures", "table": named})
    assert noticed(layout, "download", lambda: table.write_text("image,caption\n0.png,a large bird\n"))


@pytest.mark.parametrize("links", ["inside", "anywhere"])
def test_files_behind_links_count_if_the_source_reads_them(layout: Layout, tmp_path: Path, links: str):
    add(tmp_path / "elsewhere", 20)
    (tmp_path / "pictures/linked").symlink_to(tmp_path / "elsewhere")
    set_source(layout, {"kind": "folder", "path": "../pictures", "links": links})
    assert noticed(layout, "download", lambda: add(tmp_path / "elsewhere", 21)) == (links == "anywhere")


def test_shards_behind_links_count(layout: Layout, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/linked").symlink_to(tmp_path / "elsewhere")
    set_source(layout, {"kind": "webdataset", "path": "../shards", "shards": "linked/*.tar"})
    assert noticed(layout, "download", lambda: (tmp_path / "elsewhere/0.tar").write_bytes(b"x"))


@pytest.mark.parametrize(("kind", "name"), [("folder", "1.jpg"), ("webdataset", "1.tar")])
def test_what_a_project_in_the_folder_makes_does_not_count(layout: Layout, tmp_path: Path, kind: str, name: str):
    made = tmp_path / "set/project/data"
    made.mkdir(parents=True)
    for path in (made.parent / "dvc.yaml", made.parent / "params.yaml", tmp_path / "set/0.tar"):
        path.write_bytes(b"")
    source = {"path": "../set", **({"shards": "**/*.tar"} if kind == "webdataset" else {})}
    set_source(layout, {"kind": kind, **source})
    assert not noticed(layout, "download", lambda: (made / name).write_bytes(b"x"))
    assert noticed(layout, "download", lambda: (tmp_path / "set" / name).write_bytes(b"x"))


def test_lists_of_what_is_opted_out_count(layout: Layout, tmp_path: Path):
    (tmp_path / "list.csv").write_text("url,caption\nhttp://a.org/1.jpg,a bird\n")
    (tmp_path / "out.txt").write_text("b.org\n")
    set_source(layout, {"kind": "urls", "path": "../list.csv", "opt_out": {"lists": ["../out.txt"]}})
    assert noticed(layout, "download", lambda: (tmp_path / "out.txt").write_text("a.org\nb.org\n"))


def test_an_llm_of_this_machine_counts(layout: Layout, tmp_path: Path, byte_tokenizer: Any):
    folder = tmp_path / "llm"
    tiny_llm("llama").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    content = merge(read_yaml(layout.params), {"llm": {"name": "tiny", "source": "path:../llm", "sha256": None}})
    layout.params.write_text(yaml.safe_dump(content))
    params = resolve_params(layout, [], None).params
    layout.raw.mkdir(parents=True)

    def weights() -> bytes:
        with noting(params, layout, "fetch_llm"):
            fetch_llm.run(params, layout)
        return (layout.llm / "tiny/model.safetensors").read_bytes()

    assert changed(layout) == {"fetch_llm": ["tiny"]}  # nothing was fetched yet
    before = weights()
    assert changed(layout) == {} and before == (folder / "model.safetensors").read_bytes()
    other = tiny_llm("llama")
    other.get_input_embeddings().weight.data += 1
    other.save_pretrained(folder)
    assert changed(layout) == {"fetch_llm": ["tiny"]}
    after = weights()
    assert changed(layout) == {} and after == (folder / "model.safetensors").read_bytes() != before
    shutil.rmtree(folder)  # the LLM is in data/llm
    assert changed(layout) == {}


@pytest.mark.parametrize(
    ("stage", "file_of"),
    [
        ("caption", of_a_captioner),
        ("caption", of_a_table),
        ("embed", of_a_benchmark),
        ("embed", of_a_definition),
        ("baselines", of_a_baseline),
        ("scores", of_a_scorer),
        ("concepts", of_a_tagger),
        ("train@student", of_a_teacher),
    ],
)
def test_models_and_benchmarks_of_this_machine_count(layout: Layout, stage: str, file_of: Callable[[Layout], Path]):
    (layout.root / "sets").mkdir()
    (layout.root / "sets/many.yaml").write_text(yaml.safe_dump(DEFINITION))
    path = file_of(layout)
    path.write_bytes(path.read_bytes() if path.exists() else b"weights")
    assert stage not in changed(layout)  # it follows others, and DVC runs it if its out is not there
    assert noticed(layout, stage, lambda: path.write_bytes(path.read_bytes() + b"\n"))
    note_seen(resolve_params(layout, [], None).params, layout, stage)
    assert stage not in changed(layout)
    path.unlink()
    shutil.rmtree(layout.root / "datasets", ignore_errors=True)  # such as a disk that is not mounted
    assert stage not in changed(layout)


@pytest.mark.parametrize(
    ("stage", "file_of"), [("embed", of_a_benchmark), ("baselines", of_a_baseline), ("caption", of_a_captioner)]
)
def test_what_comes_after_the_first_look_counts_of_stages_that_do_without_it(
    layout: Layout, stage: str, file_of: Callable[[Layout], Path]
):
    """As in a clone that has pulled all outs: whoever wrote its captions had the captioner."""
    (layout.root / "sets").mkdir()
    (layout.root / "sets/many.yaml").write_text(yaml.safe_dump(DEFINITION))
    path = file_of(layout)
    path.unlink(missing_ok=True)
    for folder in (layout.root / "datasets", layout.root / "models"):
        if folder.is_dir():
            folder.rename(folder.with_name(f"{folder.name}-later"))
    note_first(resolve_params(layout, [], None).params, layout, ())
    for folder in list(layout.root.glob("*-later")):
        folder.rename(folder.with_name(folder.name.removesuffix("-later")))
    path.write_bytes(b"it is here now")
    assert (stage in changed(layout)) == (stage != "caption")


def test_commands_are_those_that_dvc_writes_out(layout: Layout):
    """Else its run cache would keep what they made of other files."""
    set_up_dvc(layout)
    of_a_teacher(layout)
    known = {name: stage.command for name, stage in DvcProject(layout.root).stages().items()}
    found = outside_stages(resolve_params(layout, [], None).params, layout)
    own = {name: stage.command for name, stage in found.items() if name in known}
    assert own == {name: known[name] for name in own}
    assert own.keys() >= {"download", "fetch_llm", "caption", "embed", "train@student", "baselines"}
