"""MLflow's model: the code file is stored and run again from there, and answers as the predictor does."""

from __future__ import annotations

from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import DataType

from flame_core.serving import pyfunc_model
from flame_core.serving.predictor import LLM_VARIABLE, Predictor
from tests.data.drawings import png
from tests.serving.packages import FROZEN, package, project

NAMES = ["toys", "boats", "houses"]


@pytest.fixture
def saved(tmp_path: Path, byte_tokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model that MLflow saved from the code file; its package lies in `artifacts/`."""
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    monkeypatch.delenv(LLM_VARIABLE, raising=False)
    made = package(project(tmp_path, byte_tokenizer), FROZEN, tmp_path / "package", NAMES)
    code, folder = pyfunc_model.__file__, tmp_path / "model"
    schema = Schema([ColSpec(DataType.binary, "image_bytes", required=False)])
    options = ParamSchema([ParamSpec("task", DataType.string, "embed"), ParamSpec("top", DataType.long, 5)])
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=code,
        artifacts={"package": str(made)},
        pip_requirements=["numpy"],
        signature=ModelSignature(inputs=schema, params=options),
    )
    return folder


def test_a_loaded_model_answers_as_the_predictor(saved: Path) -> None:
    model, predictor = mlflow.pyfunc.load_model(str(saved)), Predictor(saved / "artifacts/package")
    rows = pd.DataFrame({"image_bytes": [png(1), png(2)]})
    z = predictor.pictures([png(1), png(2)])
    np.testing.assert_array_equal(np.array(model.predict(rows)["image_embedding"].tolist()), z)
    order, scores = predictor.labels(z, 2)
    found = model.predict(rows, params={"task": "classify", "top": 2})
    assert found["labels"].tolist() == [[NAMES[i] for i in row] for row in order]
    np.testing.assert_array_equal(np.array(found["scores"].tolist()), scores)


def test_answers_join_the_rows_that_were_asked(saved: Path) -> None:
    """A table that was filtered or sorted keeps its index, so pandas puts each answer beside its picture."""
    model = mlflow.pyfunc.load_model(str(saved))
    rows = pd.DataFrame({"image_bytes": [png(1), png(2), png(3)]}, index=[7, 0, 1])
    for task in ("embed", "classify"):
        found = model.predict(rows, params={"task": task})
        assert found.index.tolist() == [7, 0, 1]
    alone = model.predict(rows.loc[[1]])["image_embedding"].tolist()[0]
    joined = rows.join(model.predict(rows))
    np.testing.assert_allclose(joined.loc[1, "image_embedding"], alone, atol=1e-6)


def test_nothing_in_it_is_a_pickle(saved: Path) -> None:
    """Models from code: MLflow keeps the file, byte for byte."""
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    assert (saved / "pyfunc_model.py").read_bytes() == Path(pyfunc_model.__file__).read_bytes()
