"""The `trained` captioner in the stage `caption`, `flame describe`, and how models and LLMs are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flame_core.captioning.address import find_captioner, find_llm
from flame_core.captioning.writer import PictureWriter
from flame_core.captions.table import MANIFEST, read_captions
from flame_core.cli import app
from flame_core.data.shards import PictureReader, read_index
from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import CaptionWriting, Params
from flame_core.params.captions import CaptionParams
from flame_core.stages import caption, embed, train
from tests.bits import flip
from tests.captioning.world import described_project

WRITING = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """A project, and in `kept` a copy of the model of its recipe with the term prompts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = described_project(tmp_path_factory.mktemp("trained"), byte_tokenizer, 24)
        train.run(params, layout, "aligned")
        shutil.copytree(layout.model("aligned"), layout.root / "kept")
        yield params, layout


def writing_with(params: Params, **values) -> Params:
    captioner = {"captioner": "trained", "model": "kept", "writing": WRITING, **values}
    section = CaptionParams.model_validate({"short": captioner, "long": None})
    return params.model_copy(update={"caption": section})


def written(layout: Layout) -> dict[str, tuple[str, str]]:
    """{key: the short caption and its provenance}."""
    files = sorted(layout.captions.rglob("*.parquet"))
    rows = [row for file in files for row in read_captions(file) if row.kind == "short"]
    return {row.key: (row.text, row.provenance) for row in rows}


def test_its_captions_are_those_of_the_model_and_can_be_embedded(world):
    params, layout = world
    own = writing_with(params)
    caption.run(own, layout)
    found = written(layout)
    index, reader = list(read_index(layout.shards)), PictureReader(layout.shards)
    shard = [row for row in index if row.shard == index[0].shard]
    writer = PictureWriter.load(layout.root / "kept", layout.llm / "tiny", "cpu")
    texts = writer.captions([reader.jpeg(row) for row in shard], CaptionWriting(**WRITING))
    assert {row.key: text for row, text in zip(shard, texts, strict=True) if text} == {
        row.key: found[row.key][0] for row in shard if row.key in found
    }
    sha = file_sha256(layout.root / "kept/model.safetensors")[:12]
    assert {provenance for _, provenance in found.values()} == {f"trained:{sha}+tiny"}
    manifest = json.loads((layout.captions / MANIFEST).read_text())["kinds"]["short"]
    assert manifest["captioner"] == "trained" and manifest["llm"] == "tiny" and len(manifest["llm_sha256"]) == 64
    text = own.text.model_copy(update={"train_kinds": ["raw", "short"]})
    embed.run(own.model_copy(update={"text": text}), layout)
    names = json.loads((layout.train_embeddings / "manifest.json").read_text())["facets"]
    assert "short/1" in names


def test_the_same_model_elsewhere_writes_nothing_anew_and_other_writing_does(world):
    params, layout = world
    caption.run(writing_with(params), layout)
    units = {path.name for path in (layout.work / "caption").iterdir()}
    shutil.copytree(layout.root / "kept", layout.root / "other/kept")
    caption.run(writing_with(params, model="other/kept"), layout)
    assert {path.name for path in (layout.work / "caption").iterdir()} == units
    drawn = {"do_sample": True, "temperature": 2.0, "seed": 3, **WRITING}
    caption.run(writing_with(params, writing=drawn), layout)
    first = written(layout)
    shutil.rmtree(layout.work / "caption")
    caption.run(writing_with(params, writing=drawn), layout)
    assert written(layout) == first and len({text for text, _ in first.values()}) > 5


def test_a_captioner_of_another_llm_or_of_this_run_is_refused(world):
    params, layout = world
    other = layout.root / "elsewhere"
    shutil.copytree(layout.llm / "tiny", other, dirs_exist_ok=True)
    write_json(other / "source.json", {"name": "other", "source": "path:x", "files": {"model.safetensors": "1"}})
    with pytest.raises(InputError, match=r"kept was trained for tiny \(.*\), and .*elsewhere holds elsewhere"):
        caption.run(writing_with(params, llm="elsewhere"), layout)
    with pytest.raises(ParamsError, match="aligned is made by this run, from captions that it would write"):
        caption.run(writing_with(params, model="aligned"), layout)
    with pytest.raises(InputError, match="is no captioner: name models:/"):
        caption.run(writing_with(params, model="nowhere"), layout)


def test_models_and_llms_are_found_by_folder_recipe_or_name(world, tmp_path):
    _, layout = world
    assert find_captioner("aligned", layout) == layout.model("aligned")
    assert find_captioner("data/models/aligned", layout) == layout.model("aligned")
    assert find_llm(layout.root / "kept", None, layout) == layout.llm / "tiny"
    with pytest.raises(InputError, match=r"writes with the LLM tiny, which is not in .*empty"):
        find_llm(layout.root / "kept", "empty", layout)
    plain = tmp_path / "plain"
    shutil.copytree(layout.root / "kept", plain)
    content = json.loads((plain / "config.json").read_text())
    del content["writes"]
    (plain / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="plain cannot write captions: its tower has no connector"):
        find_captioner(str(plain), layout)


def test_describe_writes_captions_of_picture_files(world, monkeypatch):
    params, layout = world
    pictures = sorted((layout.root / "pairs").glob("*.png"))[:3]
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr("flame_core.params.load_params", lambda layout: params)
    command = ["describe", *map(str, pictures), "--model", "kept", "--max-tokens", "8"]
    found = CliRunner().invoke(app, [*command, "--beams", "2"], catch_exceptions=False)
    assert found.exit_code == 0 and all(Path(picture).name in found.output for picture in pictures)
    drawn = [CliRunner().invoke(app, [*command, "--sample", "--seed", seed]).output for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_model_with_a_flipped_bit_writes_nothing(world, tmp_path):
    _, layout = world
    damaged = tmp_path / "damaged"
    shutil.copytree(layout.root / "kept", damaged)
    weights = damaged / "model.safetensors"
    flip(weights, weights.stat().st_size - 4, 3)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged: its bytes are not those of digests\.json"):
        PictureWriter.load(damaged, layout.llm / "tiny", "cpu")
