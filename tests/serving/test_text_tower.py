"""A served model of a recipe with a text tower answers texts with that tower: the LLM is another space."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.model_files import CONFIG, TEXT_WEIGHTS, WEIGHTS
from flame_core.params import Params, TextTowerParams
from flame_core.serving.model_card import model_card
from flame_core.serving.package import package_files, require_package
from flame_core.serving.predictor import LLM_VARIABLE, Predictor
from flame_core.serving.pyfunc_model import Answers
from flame_core.text import transformer
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import load_llm
from flame_core.text.store import CENTER, EMBEDDINGS, TOKENIZER
from flame_core.text.tensor_file import write_tensors
from flame_core.vision.tower import ImageTower
from tests.conftest import tiny_llm
from tests.data.drawings import png
from tests.measuring import world
from tests.serving.packages import TEXT_TOWER, text_side

TOWER = TextTowerParams(width=16, depth=1, heads=2, max_tokens=16)
TEXTS = ["a green boat", "ein rotes Haus", "a"]
MANIFEST = {"hidden": world.DIMENSIONS, "facets": ["raw/1", "short/1", "short/2"], "text_facets": ["raw/1"]}


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_DEVICE", "cpu")


@pytest.fixture
def trained(tmp_path: Path, byte_tokenizer) -> tuple[Params, Layout]:
    """Two untrained models: `other` with a text tower, `plain` without; the store is centred."""
    params = world.params(tmp_path)
    params.train["other"] = params.train["other"].model_copy(update={"text_tower": TOWER})
    layout = Layout(tmp_path, tmp_path)
    torch.manual_seed(0)
    for name, recipe in params.train.items():
        folder = layout.model(name)
        folder.mkdir(parents=True)
        save_file(ImageTower(recipe.model, world.DIMENSIONS, 0).state_dict(), folder / WEIGHTS)
        kinds = {"hidden": world.DIMENSIONS, "facets": MANIFEST["facets"], "text_facets": {"raw": 1, "short": 2}}
        write_json(folder / CONFIG, {"recipe": recipe.model_dump(mode="json"), "samples": 12, **kinds})
    folder = layout.model("other")
    byte_tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    vocabulary = transformer.Captions(folder / TOKENIZER, TOWER).end + 1
    save_file(transformer.TextTower(TOWER, vocabulary, world.DIMENSIONS).state_dict(), folder / TEXT_WEIGHTS)
    layout.train_embeddings.mkdir(parents=True)
    centers = np.random.default_rng(0).normal(size=(3, world.DIMENSIONS)).astype(np.float32)
    write_tensors(layout.train_embeddings / CENTER, {EMBEDDINGS: centers}, "float32")
    return params, layout


@pytest.fixture
def llm(tmp_path: Path, byte_tokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a tiny LLM, named as the server's."""
    folder = tmp_path / "llm"
    tiny_llm("llama").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    write_json(folder / "source.json", {"files": {}})
    monkeypatch.setenv(LLM_VARIABLE, str(folder))
    return folder


def packed(params: Params, layout: Layout, recipe: str) -> Path:
    """The folder of the packaged model."""
    folder = layout.root / f"package-{recipe}"
    folder.mkdir()
    files, contents = package_files(params, layout, recipe, text_side(layout, recipe), [], "")
    for name, path in files.items():
        (folder / name).write_bytes(path.read_bytes())
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def test_texts_are_answered_by_the_models_own_tower(trained: tuple[Params, Layout], llm: Path, byte_tokenizer) -> None:
    params, layout = trained
    own = transformer.TrainedTexts(layout.model("other"), "cpu").lookup("raw", TEXTS)[:, 0]
    frozen = TextEncoder(load_llm(llm, params.text.layer, torch.float32, "cpu"), byte_tokenizer, params.text, "cpu")
    t = Predictor(packed(params, layout, "other")).texts(TEXTS)
    np.testing.assert_array_equal(t, own)
    assert np.abs((t * frozen.encode("raw", TEXTS)[:, 0]).sum(axis=1)).max() < 0.7
    of_the_llm = Predictor(packed(params, layout, "plain")).texts(TEXTS)
    assert np.abs(of_the_llm - t).max() > 0.1


def test_it_needs_no_llm_and_ranks_by_the_same_cosines(
    trained: tuple[Params, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = trained
    monkeypatch.delenv(LLM_VARIABLE, raising=False)
    answers = Answers()
    answers.load_context(SimpleNamespace(artifacts={"package": str(packed(params, layout, "other"))}))
    rows = pd.DataFrame({"image_bytes": [png(1), None, None], "text": TEXTS})
    z = np.array(answers.predict(None, rows)["image_embedding"][0])
    t = transformer.TrainedTexts(layout.model("other"), "cpu").lookup("raw", TEXTS)[:, 0]
    found = answers.predict(None, rows, {"task": "similarity"})["similarities"][0]
    np.testing.assert_allclose(found, z @ t.T, atol=1e-6)


def test_the_package_holds_the_space_of_its_texts_and_no_other(trained: tuple[Params, Layout]) -> None:
    params, layout = trained
    own, _ = package_files(params, layout, "other", text_side(layout, "other"), [], "")
    assert own.keys() == {WEIGHTS, CONFIG, *TEXT_TOWER}
    frozen, _ = package_files(params, layout, "plain", text_side(layout, "plain"), [], "")
    assert frozen.keys() == {WEIGHTS, CONFIG, CENTER}


@pytest.mark.parametrize("lost", TEXT_TOWER)
def test_a_package_without_its_tower_is_refused(trained: tuple[Params, Layout], llm: Path, lost: str) -> None:
    folder = packed(*trained, "other")
    (folder / lost).unlink()
    with pytest.raises(InputError, match=rf"is not a servable model: {lost} missing; run `flame evaluate` to pack it"):
        Predictor(folder)


def test_a_package_with_a_damaged_tower_is_refused(trained: tuple[Params, Layout], llm: Path) -> None:
    folder = packed(*trained, "other")
    (folder / TEXT_WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(InputError, match="is not a usable model"):
        Predictor(folder)
    (folder / CONFIG).write_text(json.dumps({"recipe": None}))
    with pytest.raises(InputError, match="is not a usable model"):
        require_package(folder)


def test_the_card_names_the_text_side(trained: tuple[Params, Layout]) -> None:
    params, layout = trained
    config = json.loads((layout.model("other") / CONFIG).read_text())
    own, frozen = (
        model_card(name, params, config, {}, {"train": 12, "val": 3}, {}, [], []) for name in ("other", "plain")
    )
    assert "a transformer of width 16 and depth 1, trained along and included" in own
    assert "frozen" not in own and "need the LLM" not in own and "cut at 16 tokens" in own
    assert "hidden states of layer 2, frozen, not included" in frozen
    assert "Texts other than the cached class names need the LLM" in frozen
