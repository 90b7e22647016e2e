"""A package holds all that a servable model needs, and nothing that depends on the machine that made it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flame_core.errors import InputError
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.serving.package import CARD, CLASS_TENSOR, CLASSES, SERVING, require_package
from flame_core.serving.predictor import LLM_VARIABLE, Predictor
from flame_core.text.store import CENTER, EMBEDDINGS
from flame_core.text.tensor_file import write_tensors
from tests.data.drawings import png
from tests.measuring import world
from tests.serving.packages import FACETS, FROZEN, OWN, TEXT_TOWER, llm_folder, package, project

NAMES = ["toys", "boats", "houses"]
PICTURES = [png(seed) for seed in range(3)]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    monkeypatch.delenv(LLM_VARIABLE, raising=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("recipe", [FROZEN, OWN])
def test_the_bytes_do_not_depend_on_the_machine(
    tmp_path: Path, byte_tokenizer, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    packages = []
    for name, workers in (("here", "1"), ("somewhere-else", "7")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("FLAME_WORKERS", workers)
        monkeypatch.setenv("FLAME_CACHE_DIR", str(tmp_path / name / "cache"))
        made = project(tmp_path / name, byte_tokenizer)
        packages.append(contents(package(made, recipe, tmp_path / f"package-{name}", NAMES, "# card\n")))
    assert packages[0] == packages[1]
    for name, content in packages[0].items():
        assert str(tmp_path).encode() not in content, name


@pytest.mark.parametrize("recipe", [FROZEN, OWN])
def test_it_answers_alike_where_the_project_is_gone(tmp_path: Path, byte_tokenizer, monkeypatch, recipe: str) -> None:
    (tmp_path / "project").mkdir()
    llm = llm_folder(tmp_path / "llm", byte_tokenizer)
    monkeypatch.setenv(LLM_VARIABLE, str(llm))
    folder = package(project(tmp_path / "project", byte_tokenizer), recipe, tmp_path / "package", NAMES)
    before = Predictor(folder)
    z, t = before.pictures(PICTURES), before.texts(["a green boat", "ein rotes Haus"])
    shutil.rmtree(tmp_path / "project")
    shutil.move(folder, tmp_path / "moved")
    after = Predictor(tmp_path / "moved")
    np.testing.assert_array_equal(after.pictures(PICTURES), z)
    np.testing.assert_array_equal(after.texts(["a green boat", "ein rotes Haus"]), t)


def test_class_texts_are_the_mean_of_their_prompts(tmp_path: Path, byte_tokenizer) -> None:
    folder = package(project(tmp_path, byte_tokenizer), FROZEN, tmp_path / "package", NAMES)
    t = load_file(folder / CLASSES)[CLASS_TENSOR]
    prompts = [[world.vector("raw", text, 0) for text in (name, f"a drawing of {name}")] for name in NAMES]
    means = np.mean(prompts, axis=1)
    np.testing.assert_allclose(t, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)
    assert json.loads((folder / SERVING).read_text())["classes"] == NAMES


def test_a_label_is_the_class_whose_text_is_nearest(tmp_path: Path, byte_tokenizer) -> None:
    folder = package(project(tmp_path, byte_tokenizer), FROZEN, tmp_path / "package", NAMES)
    predictor = Predictor(folder)
    z = predictor.pictures(PICTURES)
    cosines = z @ load_file(folder / CLASSES)[CLASS_TENSOR].T  # [3, 3]
    order, scores = predictor.labels(z, 2)
    np.testing.assert_array_equal(order, np.argsort(-cosines, axis=1)[:, :2])
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :2], atol=1e-6)
    assert predictor.labels(z, 99)[0].shape == (3, 3)  # no more than there are


def test_without_classes_pictures_are_embedded_and_labels_refused(tmp_path: Path, byte_tokenizer) -> None:
    predictor = Predictor(package(project(tmp_path, byte_tokenizer), FROZEN, tmp_path / "package", []))
    z = predictor.pictures(PICTURES)
    assert z.shape == (3, world.DIMENSIONS)
    with pytest.raises(InputError, match="holds no class texts"):
        predictor.labels(z, 1)


def test_pictures_are_prepared_by_the_params_of_the_run(tmp_path: Path, byte_tokenizer) -> None:
    made = project(tmp_path, byte_tokenizer)
    serving = json.loads((package(made, FROZEN, tmp_path / "package", NAMES) / SERVING).read_text())
    for section in ("ingest", "llm", "text"):
        assert serving[section] == made[0].model_dump(mode="json")[section]


@pytest.mark.parametrize(
    ("recipe", "needed"), [(FROZEN, [WEIGHTS, CONFIG, CLASSES, SERVING]), (OWN, [WEIGHTS, CLASSES, *TEXT_TOWER])]
)
def test_every_file_that_is_missing_is_named(tmp_path: Path, byte_tokenizer, recipe: str, needed: list[str]) -> None:
    folder = package(project(tmp_path, byte_tokenizer), recipe, tmp_path / "package", NAMES)
    (folder / CARD).unlink()
    require_package(folder)  # the card is for people
    for name in needed:
        (folder / name).unlink()
    with pytest.raises(InputError, match="run `flame evaluate` to pack it") as refused:
        require_package(folder)
    assert all(name in str(refused.value) for name in needed)


def test_an_empty_folder_and_none_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"is not a servable model: model.safetensors, config.json"):
            Predictor(folder)


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path, byte_tokenizer) -> None:
    folder = package(project(tmp_path, byte_tokenizer), FROZEN, tmp_path / "package", NAMES)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"hidden": 32}))
    with pytest.raises(InputError, match="is not a usable model"):
        Predictor(folder)


def test_a_package_without_the_means_that_its_texts_are_centred_by_is_refused(tmp_path: Path, byte_tokenizer) -> None:
    params, layout = project(tmp_path, byte_tokenizer)
    params = params.model_copy(update={"text": params.text.model_copy(update={"center": "global"})})
    layout.train_embeddings.mkdir(parents=True)
    means = np.zeros((len(FACETS), world.DIMENSIONS), np.float32)
    write_tensors(layout.train_embeddings / CENTER, {EMBEDDINGS: means}, "float32")
    folder = package((params, layout), FROZEN, tmp_path / "package", NAMES)
    Predictor(folder)
    (folder / CENTER).unlink()
    with pytest.raises(InputError, match=rf"{CENTER} is missing, by which this model's texts are centred"):
        Predictor(folder)
