"""A packaged model answers who asks, and says and reads nothing else of this machine."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc import scoring_server
from safetensors.torch import save_file

from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.names import shown
from flame_core.serving import predictor as module
from flame_core.serving.package import CLASS_TENSOR, CLASSES, SERVING
from flame_core.serving.predictor import LLM_VARIABLE, PATHS_VARIABLE, Predictor
from flame_core.serving.pyfunc_model import Answers, Refusal
from flame_core.text.tensor_file import tensor_bytes
from flame_core.vision.tower import ImageTower
from tests.data.drawings import png
from tests.measuring import world

NAMES = ["boats", "toys"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a servable model with random weights."""
    folder = tmp_path_factory.mktemp("package")
    params = world.params(folder)
    recipe = params.train["plain"]
    torch.manual_seed(0)
    save_file(ImageTower(recipe.model, world.DIMENSIONS, 0).state_dict(), folder / WEIGHTS)
    content = params.model_dump(mode="json")
    facets = ["raw/1", "short/1", "short/2"]
    write_json(folder / CONFIG, {"recipe": content["train"]["plain"], "hidden": world.DIMENSIONS, "facets": facets})
    texts = np.eye(2, world.DIMENSIONS, dtype=np.float32)
    (folder / CLASSES).write_bytes(tensor_bytes({CLASS_TENSOR: texts}, "float32"))
    sections = {name: content[name] for name in ("ingest", "llm", "text")}
    write_json(folder / SERVING, {"classes": NAMES, "facets": facets, "text_facets": {}, **sections})
    return folder


@pytest.fixture
def model(package: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    for name in (LLM_VARIABLE, PATHS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    answers = Answers()
    answers.load_context(SimpleNamespace(artifacts={"package": str(package)}))
    return answers


def refused(model: Answers, rows: dict, **params: object) -> str:
    """The sentence that is sent for a request."""
    with pytest.raises(Refusal) as error:
        model.predict(None, pd.DataFrame(rows), params)
    error.value.message = "Failed to predict data ...\n"  # what MLflow's server does
    sent = json.loads(error.value.serialize_as_json())
    assert sent.keys() == {"error_code", "message"}
    return sent["message"]


def test_bytes_base64_and_data_uris_are_one_picture(model: Answers):
    image = base64.b64encode(png(1)).decode()
    lines = base64.encodebytes(png(1)).decode().replace("\n", "\r\n")
    rows = [{"image_bytes": png(1)}, *({"image": text} for text in (image, lines, f"data:image/png;base64,{image}"))]
    z = np.array(model.predict(None, pd.DataFrame(rows))["image_embedding"].tolist())
    assert z.shape == (4, world.DIMENSIONS) and (z == z[0]).all()
    labels = model.predict(None, pd.DataFrame(rows), {"task": "classify", "top": 1})
    assert labels["labels"][0] == [NAMES[int(z[0, 1] > z[0, 0])]]


def test_no_file_is_read_and_none_is_given_away(model: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here.png").write_bytes(png(1))
    monkeypatch.chdir(tmp_path)
    there = refused(model, {"image": [str(tmp_path / "here.png")]})
    assert (
        there
        == f"picture 0: {shown(str(tmp_path / 'here.png'))} is no base64, and paths are off here ({PATHS_VARIABLE})"
    )
    absent = refused(model, {"image": [str(tmp_path / "none.png")]})
    assert absent == there.replace("here.png", "none.png")  # who asks learns nothing about either
    assert "paths are off" in refused(model, {"image": ["here.png"]})
    assert "addresses are not fetched" in refused(model, {"image": ["http://127.0.0.1/x.png"]})


def test_one_folder_may_be_read(model: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "pictures"
    (folder / "birds").mkdir(parents=True)
    (folder / "birds/a.png").write_bytes(png(1))
    (tmp_path / "secret.png").write_bytes(png(2))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "a.pipe")
    monkeypatch.setenv(PATHS_VARIABLE, str(folder))
    assert len(model.predict(None, pd.DataFrame({"image": ["birds/a.png", str(folder / "birds/a.png")]}))) == 2
    for image in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "a.pipe",
        "birds",
        "a\0b",
        "x" * 5000 + ".png",
    ):
        assert "nor a file of the folder that may be read" in refused(model, {"image": [image]})


def test_what_is_too_large_is_refused_before_it_is_decoded(model: Answers, monkeypatch: pytest.MonkeyPatch):
    for name, limit in (("MOST_BYTES", 100), ("MOST_ROWS", 3), ("MOST_CHARS", 5)):
        monkeypatch.setattr(module, name, limit)
    assert "bytes are more than 100" in refused(model, {"image_bytes": [b"x" * 101]})
    assert "letters of base64 are more than 100 bytes" in refused(model, {"image": ["A" * 400]})
    assert "4 pictures are more than 3: ask in parts" in refused(model, {"image_bytes": [b"x"] * 4})
    assert "text 1: 6 characters are more than 5" in refused(model, {"text": ["short", "longer"]})


def test_wrong_requests(model: Answers):
    assert "task 'draw' is unknown" in refused(model, {"text": ["x"]}, task="draw")
    assert "top must be at least 1" in refused(model, {"image_bytes": [png(1)]}, task="classify", top=0)
    assert "no row holds a picture" in refused(model, {"other": ["x"]})
    assert refused(model, {"image_bytes": [png(1), b"x"]}).startswith("picture 1: image_unreadable")
    assert "a number" not in refused(model, {"image_bytes": [png(1)]}, task="classify", top="a number")


def test_what_is_wrong_with_the_server_stays_in_its_log(
    model: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    assert "which is not set now" in refused(model, {"text": ["x"]})
    monkeypatch.setenv(LLM_VARIABLE, str(tmp_path / "nowhere"))
    said = refused(model, {"text": ["x"]})
    assert "which is not there now" in said and str(tmp_path) not in said
    monkeypatch.setenv(LLM_VARIABLE, str(tmp_path))  # no model in it
    said = refused(model, {"text": ["x"]})
    assert said == "texts need the frozen LLM tiny, which cannot be loaded here; the log says why"
    assert str(tmp_path) in caplog.text
    monkeypatch.setattr(Predictor, "pictures", lambda *_: 1 / 0)
    assert refused(model, {"image_bytes": [png(1)]}) == "the model could not answer; its log says why"
    assert "ZeroDivisionError" in caplog.text


def test_bodies_that_cannot_be_parsed_get_no_stack_trace(model: Answers):
    """The server's own parsers; it has loaded the model before it takes a request."""
    for parse, body in ((scoring_server.parse_csv_input, '"'), (scoring_server.parse_parquet_input, b"PAR1")):
        with pytest.raises(scoring_server.MlflowException) as error:
            parse(io.StringIO(body) if isinstance(body, str) else io.BytesIO(body))
        assert "stack_trace" not in json.loads(error.value.serialize_as_json())


def test_the_library_itself_raises_its_own_error(package: Path):
    with pytest.raises(InputError, match="picture 0"):
        Predictor(package).pictures(["no picture"])
