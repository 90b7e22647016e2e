"""A model by its name: from a folder, a package and MLflow, with pictures and texts in every form."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flame_core
from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.text.encoder import TextEncoder
from flame_core.vision.image_encoder import load_encoder
from tests.bits import put_back
from tests.data.drawings import png
from tests.measuring import world
from tests.search.runs import run_here
from tests.serving import packages

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    monkeypatch.delenv("FLAME_SERVING_LLM", raising=False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    """A finished run in the working directory, with its params as `flame` reads them."""
    return run_here(tmp_path, monkeypatch)


def test_importing_costs_nothing():
    code = "import flame_core, sys; print(sorted({'torch', 'numpy', 'PIL', 'pydantic', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pictures_in_every_form_are_one_vector(run: tuple[Params, Layout], tmp_path: Path):
    model = flame_core.load("data/models/plain")
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    z = model.encode_image([str(path), path, png(1), Image.open(path), Image.open(BytesIO(png(1))).convert("RGB")])
    assert z.shape == (5, world.DIMENSIONS) == (5, model.dim) and z.dtype == np.float32
    assert (z == z[0]).all()
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    jpeg = world.jpeg(3)
    expected = load_encoder(run[1].model("plain"), "cpu").encode([jpeg])
    np.testing.assert_allclose(model.encode_image(jpeg), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode_image(Image.open(BytesIO(jpeg))), expected, atol=1e-6)


def test_texts_of_the_store_need_no_llm_and_a_missing_llm_is_named(run: tuple[Params, Layout]):
    model = flame_core.load("data/models/plain")
    known = ["Eine grüne Sache.", "A green thing."]
    t = model.encode_text(known)
    np.testing.assert_allclose(t, [world.vector("raw", text, 0) for text in known], atol=1e-6)
    assert (model.encode_text(known[0]) == t[:1]).all()
    z = model.encode_image([world.jpeg(0), world.jpeg(1), world.jpeg(2)])
    np.testing.assert_allclose(model.similarity(z, t), z @ t.T, atol=1e-6)
    with pytest.raises(InputError, match="flame fetch-llm"):
        model.encode_text("something nobody wrote")
    for texts in (["a thing", ""], ["a thing", " \x00\n"]):
        with pytest.raises(InputError, match="text 1 is empty"):
            model.encode_text(texts)
    with pytest.raises(InputError, match="text 1 holds lone surrogates"):
        model.encode_text(["a thing", "a bird \ud83d"])


def test_a_package_reads_with_the_llm_of_the_project(tmp_path: Path, byte_tokenizer, monkeypatch: pytest.MonkeyPatch):
    made = packages.project(tmp_path, byte_tokenizer)
    folder = packages.package(made, packages.FROZEN, tmp_path / "package", ["toys", "boats"])
    model = flame_core.load(folder, project=tmp_path)
    with pytest.raises(InputError, match=r"needs the frozen LLM tiny, which is not in .*flame fetch-llm"):
        model.encode_text("a green boat")
    llm = packages.llm_folder(made[1].llm / "tiny", byte_tokenizer)
    expected = TextEncoder.open(*made).encode("raw", ["a green boat", "ein Haus"])[:, 0]
    np.testing.assert_allclose(model.encode_text(["a green boat", "ein Haus"]), expected, atol=1e-5)
    llm.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("FLAME_SERVING_LLM", str(tmp_path / "elsewhere"))
    again = flame_core.load(folder, project=tmp_path)
    np.testing.assert_allclose(again.encode_text("ein Haus"), expected[1:], atol=1e-5)

    config = made[1].model(packages.FROZEN) / "config.json"
    content = {**again.config, "llm": {"digest": "0" * 64}}
    config.unlink()
    write_json(folder / "config.json", content)
    with pytest.raises(InputError, match="holds another LLM than the model was trained against"):
        flame_core.load(folder, project=tmp_path).encode_text("x")


def test_a_model_with_a_text_tower_of_its_own_never_needs_the_llm(tmp_path: Path, byte_tokenizer):
    made = packages.project(tmp_path, byte_tokenizer)
    folder = packages.package(made, packages.OWN, tmp_path / "package", [])
    t = flame_core.load(folder, project=tmp_path).encode_text(["a green boat", "b"])
    assert t.shape == (2, world.DIMENSIONS) and not np.allclose(t[0], t[1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the list is empty"),
        ([b"x"], "picture 0 cannot be used as a picture: image_unreadable"),
        (["none.png"], "'none.png' cannot be read as a picture: No such file"),
        (["data"], "'data' cannot be read as a picture: is a folder, not a file"),
        (["params.yaml"], "'params.yaml' cannot be used as a picture: image_unreadable"),
        ([png(1), 3], "picture 1 is int"),
    ],
)
def test_what_is_no_picture_is_named(run: tuple[Params, Layout], given: list, message: str):
    with pytest.raises(InputError, match=message):
        flame_core.load("data/models/plain").encode_image(given)


def test_a_model_asked_for_outside_of_its_project_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{tmp_path} is no project, so name the model's \(in Python: project=\)"):
        flame_core.load("data/models/plain")


def test_what_is_no_model_is_named(run: tuple[Params, Layout], tmp_path: Path):
    with pytest.raises(InputError, match="'nowhere' is not a model: write models:/<name>@<alias>"):
        flame_core.load("nowhere")
    run[1].model("plain").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="outside of its project"):
        flame_core.load(tmp_path / "moved")
    (tmp_path / "moved").rename(run[1].model("plain"))
    config = run[1].model("plain") / "config.json"
    for content in ("{}", '{"recipe": {}, "hidden": 1}'):
        with put_back(config):
            config.write_text(content)
            with pytest.raises(InputError, match=r"config\.json is not of a model of `flame train`"):
                flame_core.load("data/models/plain")
    with (run[1].model("plain") / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(InputError, match="damaged"):
        flame_core.load("data/models/plain")


def test_a_project_without_records_and_a_missing_alias_say_what_to_do(
    run: tuple[Params, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from flame_core.settings import settings

    monkeypatch.delenv("FLAME_TRACKING_URI", raising=False)
    settings.cache_clear()
    with pytest.raises(InputError, match="no model was recorded here"):
        flame_core.load()
    assert not (tmp_path / ".flame" / "mlflow").exists()
    from flame_core.tracking.store import local_address, open_client

    client = open_client(local_address(run[1]))
    with pytest.raises(InputError, match="no registered model 'flame': it has none"):
        flame_core.load("models:/flame@champion")
    client.create_registered_model("flame")
    with pytest.raises(InputError, match=r"no version of flame is champion; `flame promote` makes the challenger"):
        flame_core.load("models:/flame@champion")
    with pytest.raises(InputError, match=r"models:/flame/3: .*not found"):
        flame_core.load("models:/flame/3")
