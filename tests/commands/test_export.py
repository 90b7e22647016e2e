"""`flame export`, as it is typed: by recipe, folder and version, with and without classes, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from safetensors.numpy import load_file
from typer.testing import CliRunner

import flame_core
from flame_core import cli
from flame_core.digest import file_sha256, write_json
from flame_core.layout import Layout
from flame_core.measuring.classification import class_embeddings, classify
from flame_core.measuring.text_side import texts_of
from flame_core.params import Params
from flame_core.text.store import TextStore
from flame_core.verification import write_digests
from flame_core.vision.views import evaluation_picture, normalised
from tests.commands.test_search import refused, said
from tests.measuring import world
from tests.model.champions import champion_here
from tests.search.runs import run_here


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    params, layout = run_here(tmp_path, monkeypatch)
    for folder in map(layout.model, params.recipes):
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", {**config, "samples": 3})
        (folder / "digests.json").unlink()
        write_digests(folder)
    return params, layout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def metadata(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_a_model_is_the_same_bytes_every_time_and_by_every_name(run, tmp_path: Path, form: str):
    said("export", "plain", "--format", form, "--out", "first", "--classes", "held-out")
    said(
        "export", str(tmp_path / "data/models/plain"), "--format", form, "--out", "a/b/second", "--classes", "held-out"
    )
    first, second = contents(Path("first")), contents(Path("a/b/second"))
    assert first == second
    recorded = json.loads(first.pop("digests.json"))
    assert recorded == {name: file_sha256(Path("first") / name) for name in first}
    whole = b"".join(first.values())
    assert str(tmp_path).encode() not in whole and str(Path(__file__).parents[2]).encode() not in whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")) == []


def test_classes_are_what_this_project_answers(run: tuple[Params, Layout]):
    """From a file and from the held-out split; ONNX Runtime on the pictures of the split."""
    params, layout = run
    Path("classes.txt").write_text("\ntoys\r\nboats\n\n  houses \n")
    said("export", "other", "--format", "onnx", "--out", "by-file", "--classes", "classes.txt")
    said("export", "other", "--format", "onnx", "--out", "by-split", "--classes", "held-out")
    jpegs = [world.jpeg(index) for index in range(len(world.KEYS))]
    z = flame_core.load("data/models/other").encode_image(jpegs)
    names = sorted(world.CLASSES)
    side = texts_of(layout.model("other"), params, layout, TextStore.open(layout.embeddings))
    own = classify(z, world.KEYS, world.classes(), class_embeddings(params.evaluate, names, side.lookup))
    pixels = np.stack([normalised(evaluation_picture(jpeg, 32)).numpy() for jpeg in jpegs])
    for folder, order in (("by-file", world.CLASSES), ("by-split", names)):
        assert json.loads((Path(folder) / "classes.json").read_text()) == order
        session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
        vectors, logits = session.run(["vectors", "logits"], {"pixel_values": pixels})
        np.testing.assert_allclose(vectors, z, atol=1e-4)
        answers = [order[number] for number in logits.argmax(axis=1)]
        assert [answers[row] for row in own.pictures] == [names[number] for number in own.predicted]
    assert len(set(own.predicted)) > 1


def test_prompts_are_those_of_the_params_or_the_given_ones(run: tuple[Params, Layout]):
    params, _ = run
    said("export", "plain", "--format", "safetensors", "--out", "own", "--classes", "held-out")
    said(
        *("export", "plain", "--format", "safetensors", "--out", "given", "--classes", "held-out"),
        *("--template", "a drawing of {class}"),
    )
    for folder, prompts in (("own", ["{class}", "a drawing of {class}"]), ("given", ["a drawing of {class}"])):
        options = params.evaluate.model_copy(update={"class_prompts": prompts})
        t = load_file(f"{folder}/classes.safetensors")["classes"]
        np.testing.assert_allclose(t, class_embeddings(options, sorted(world.CLASSES), world.lookup), atol=1e-6)
        assert prompts[-1].replace("{class}", "boats") in (Path(folder) / "README.md").read_text("utf-8")


def test_the_card_names_data_scores_and_lineage(run: tuple[Params, Layout]):
    _, layout = run
    metrics = {"retrieval/en/image_to_text/recall@10": 0.391, "classification/top1": 0.25}
    layout.report("plain").mkdir(parents=True)
    write_json(layout.report("plain") / "metrics.json", metrics)
    headline = [[name, [name]] for name in metrics]
    write_json(layout.report("plain") / "results.json", {"headline": headline, "languages": {"en": 12}})
    said("export", "plain", "--format", "timm", "--out", "out", "--license", "cc-by-4.0")
    found = metadata(Path("out"))
    assert found["license"] == "cc-by-4.0" and found["library_name"] == "timm" and found["datasets"] == ["made"]
    assert found["pipeline_tag"] == "image-feature-extraction" and found["metrics"] == ["accuracy", "recall_at_10"]
    rows = found["model-index"][0]["results"][0]["metrics"]
    assert [(row["type"], row["value"]) for row in rows] == [("recall_at_10", 0.391), ("accuracy", 0.25)]
    card = (Path("out") / "README.md").read_text("utf-8")
    assert file_sha256(layout.model("plain") / "model.safetensors") in card
    assert "| English, picture → text, recall@10 | 39.1 % |" in card and "## Limits" in card
    said("export", "other", "--format", "timm", "--out", "not-measured")
    assert "model-index" not in metadata(Path("not-measured"))
    assert metadata(Path("not-measured"))["license"] == "other"


def test_a_model_whose_data_are_gone_has_a_card_without_data(run: tuple[Params, Layout]):
    _, layout = run
    for folder in (layout.shards, layout.embeddings):
        folder.rename(folder.with_suffix(".gone"))
    said("export", "plain", "--format", "safetensors", "--out", "out")
    card = (Path("out") / "README.md").read_text("utf-8")
    assert "datasets" not in metadata(Path("out")) and "## Lineage" in card and "## Data" not in card


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (3, "full' is there already: name a new folder", ["plain", "--out", "full"]),
        (3, "params.yaml' is there already", ["plain", "--out", "params.yaml"]),
        (3, "params.yaml is a file, where a folder is needed", ["plain", "--out", "params.yaml/new"]),
        (3, "--out /proc/new cannot be written: No such file or directory", ["plain", "--out", "/proc/new"]),
        (3, "cannot be written: File name too long", ["plain", "--out", "x" * 300]),
        (3, "'nowhere' is not a model: write models:/<name>@<alias>", ["nowhere"]),
        (2, "--template goes with --classes", ["plain", "--template", "a {class}"]),
        (2, "--template: every template must contain {class}", ["plain", "--classes", "two.txt", "--template", "a"]),
        (3, "twice.txt: line 3 has 'a b' again, which line 1 has already", ["plain", "--classes", "twice.txt"]),
        (3, "one.txt: 1 class names; write at least two, one per line", ["plain", "--classes", "one.txt"]),
        (3, "latin.txt cannot be read as text in UTF-8", ["plain", "--classes", "latin.txt"]),
        (2, "nope: neither a file, nor held-out, nor a benchmark", ["plain", "--classes", "nope"]),
        (3, "cifar10: ", ["plain", "--classes", "cifar10"]),
        (3, "flame fetch-llm", ["plain", "--classes", "two.txt"]),
    ],
)
def test_what_cannot_be_exported_is_named(run, capsys, monkeypatch, code: int, message: str, arguments: list[str]):
    for name, content in {
        "full/x": b"",
        "twice.txt": b"a b\n\na  b\n",
        "one.txt": b"a\n",
        "latin.txt": b"\xe4\n\xf6\n",
        "two.txt": b"unheard\nof\n",
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    out = [] if "--out" in arguments else ["--out", "out"]
    found = refused(capsys, monkeypatch, "export", *arguments, *out, "--format", "safetensors")
    assert found[0] == code and message in found[1]
    assert not Path("out").exists() and not list(Path().glob(".tmp*"))


def test_a_missing_package_is_named_and_leaves_nothing(run, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, message = refused(capsys, monkeypatch, "export", "plain", "--format", "onnx", "--out", "out")
    assert code == 5 and "'onnxscript': pip install 'flame-mlops[onnx]'" in message
    assert not Path("out").exists()


def test_what_a_format_cannot_do_is_said(run: tuple[Params, Layout]):
    output = said("export", "plain", "--format", "timm", "--out", "out")
    sentence = "A timm model has one linear layer behind its backbone"
    assert sentence in output and sentence in (Path("out") / "README.md").read_text("utf-8")


def test_an_empty_folder_is_filled(run):
    Path("out").mkdir()
    said("export", "plain", "--format", "safetensors", "--out", "out")
    assert {"README.md", "config.json", "model.safetensors", "digests.json"} == set(contents(Path("out")))


@pytest.mark.slow
def test_the_champion_brings_its_classes_and_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte_tokenizer):
    champion_here(tmp_path, monkeypatch, byte_tokenizer)
    Path("classes.txt").write_text("unheard\nof\n")  # read by the LLM of the project
    done = CliRunner().invoke(
        cli.app,
        ["export", "models:/flame@champion", "--format", "safetensors", "--out", "out", "--classes", "classes.txt"],
    )
    assert done.exit_code == 0, (done.output, done.exception)
    card = (Path("out") / "README.md").read_text("utf-8")
    assert re.search(r"exported from \| `models:/flame@champion`", card) and str(tmp_path) not in card
    assert load_file("out/classes.safetensors")["classes"].shape == (2, world.DIMENSIONS)
