"""The code of the model in MLflow (models from code: this file is stored and run when loaded, nothing is pickled).

How to use it:

    model = mlflow.pyfunc.load_model("models:/flame@champion")
    birds = pd.DataFrame({"image_bytes": [Path("bird.png").read_bytes()]})
    model.predict(birds)                                  # image_embedding
    model.predict(birds, params={"task": "classify"})     # labels and scores
    model.predict(pd.DataFrame({"image": [...], "text": [...]}), params={"task": "similarity"})

MLflow's scoring server answers with the result or with one sentence, never with a stack trace or a path of the server.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.models
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

from flame_core.errors import InputError
from flame_core.names import shown
from flame_core.serving.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd

TASKS = ("embed", "similarity", "classify")
log = logging.getLogger(__name__)


class Refusal(MlflowException):
    """Why a request is refused, in one sentence; MLflow's server sends nothing else."""

    def __init__(self, sentence: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        super().__init__(sentence, error_code)
        self._sentence = sentence

    def serialize_as_json(self) -> str:
        """The body of the answer; MLflow's own would have the request before the sentence."""
        return json.dumps({"error_code": self.error_code, "message": self._sentence})


def send_no_traces() -> None:
    """If MLflow's scoring server loads this model, answer requests that it cannot parse without a stack trace."""
    server = sys.modules.get("mlflow.pyfunc.scoring_server")
    handler = getattr(server, "_handle_serving_error", None)
    if handler is not None:
        handler.__defaults__ = (False,)  # include_traceback


class Answers:
    """Takes rows of pictures and texts and returns one row of results for each."""

    def load_context(self, context: Any) -> None:
        """Load the packaged model."""
        send_no_traces()
        self.predictor = Predictor(Path(context.artifacts["package"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Answer a batch of rows.

        Args:
            context: MLflow's.
            model_input: columns `image` (base64, data: URI, or a path in the folder that `FLAME_SERVING_PATHS` names),
                `image_bytes`, `text`; each may be absent or null, and a row has one of the first two.
            params: `task`: `embed` returns `image_embedding` and `text_embedding` per row; `similarity` returns the
                cosine of each picture with every text (`similarities`); `classify` returns the `top` best `labels` per
                picture with their `scores`. A row without a picture or a text has None there.

        Raises:
            Refusal: names the picture, or says what is missing.
        """
        try:
            return self._answer(model_input, {"task": "embed", "top": 5, **(params or {})})
        except InputError as error:
            raise Refusal(str(error)) from error
        except MlflowException:
            raise
        except Exception as error:
            log.exception("a request was not answered")
            raise Refusal("the model could not answer; its log says why", INTERNAL_ERROR) from error

    def _answer(self, model_input: pd.DataFrame, options: dict[str, Any]) -> pd.DataFrame:
        if options["task"] not in TASKS:
            raise InputError(f"task {shown(str(options['task']))} is unknown; known are {', '.join(TASKS)}")
        if options["top"] < 1:
            raise InputError(f"top must be at least 1, not {options['top']}")
        rows = model_input.to_dict("records")
        pictures = [(place, image) for place, row in enumerate(rows) if (image := _image(row, place)) is not None]
        texts = [(place, text) for place, row in enumerate(rows) if (text := _text(row, place)) is not None]
        if not pictures and not texts:
            raise InputError("no row holds a picture (`image`, `image_bytes`) or a text (`text`)")
        of_pictures, of_texts = [place for place, _ in pictures], [place for place, _ in texts]
        z = self.predictor.pictures([image for _, image in pictures], of_pictures) if pictures else None
        columns: dict[str, tuple[list[int], list[Any]]] = {}  # rows that have an answer, and the answers
        if options["task"] == "classify":
            labels, scores = self._classify(z, options["top"])
            columns = {"labels": (of_pictures, labels), "scores": (of_pictures, scores)}
            return _in_their_rows(columns, model_input.index)
        t = self.predictor.texts([text for _, text in texts], of_texts) if texts else None
        if options["task"] == "similarity":
            if z is None or t is None:
                raise InputError("similarity needs at least one picture and one text")
            return _in_their_rows({"similarities": (of_pictures, (z @ t.T).tolist())}, model_input.index)
        if z is not None:
            columns["image_embedding"] = of_pictures, z.tolist()
        if t is not None:
            columns["text_embedding"] = of_texts, t.tolist()
        return _in_their_rows(columns, model_input.index)

    def _classify(self, z: Any, top: int) -> tuple[list[list[str]], list[list[float]]]:
        if z is None:
            raise InputError("classify needs at least one picture")
        order, scores = self.predictor.labels(z, top)
        names = self.predictor.classes
        return [[names[i] for i in row] for row in order], scores.tolist()


def _in_their_rows(columns: dict[str, tuple[list[int], list[Any]]], index: pd.Index) -> pd.DataFrame:
    """{column: (rows, their answers)} as a table with the index of the request; all other rows have None."""
    import pandas as pd

    found = {name: dict(zip(places, answers, strict=True)) for name, (places, answers) in columns.items()}
    rows = range(len(index))
    return pd.DataFrame({name: [own.get(row) for row in rows] for name, own in found.items()}, index, dtype=object)


def _image(row: dict[Any, Any], place: int) -> str | bytes | None:
    """The picture of a row; None if it has none.

    Raises:
        InputError: there are two, or it is neither base64 nor bytes.
    """
    image, content = _given(row, "image"), _given(row, "image_bytes")
    if image is not None and content is not None:
        raise InputError(f"row {place} has both `image` and `image_bytes`: send one of them")
    if image is not None and not isinstance(image, str | bytes):
        raise InputError(f"row {place}: `image` is {_kind(image)}: send base64 in quotes")
    if content is not None and not isinstance(content, bytes):
        raise InputError(f"row {place}: `image_bytes` is {_kind(content)}, not bytes: send base64 as `image`")
    return content if image is None else image


def _text(row: dict[Any, Any], place: int) -> str | None:
    """The text of a row; None if it has none.

    Raises:
        InputError: it is something else, such as a number, which a table may have made of it.
    """
    text = _given(row, "text")
    if text is not None and not isinstance(text, str):
        raise InputError(f"row {place}: `text` is {_kind(text)}, not a text: send JSON, and the text in quotes")
    return text


def _given(row: dict[Any, Any], column: str) -> Any:
    """A value of a row; None if it is absent, null, or a table's sign for that."""
    import pandas as pd

    value: Any = row.get(column)
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


def _kind(value: Any) -> str:
    return f"{shown(str(value))} ({type(value).__name__})"


class FlameModel(Answers, PythonModel):
    """`Answers` as an MLflow model. It inherits `predict`, since MLflow would ask for type hints if it were here."""


mlflow.models.set_model(FlameModel())
