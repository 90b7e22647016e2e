"""The model registry: logged models, their versions, and the aliases `challenger` and `champion`.

Every evaluated model of the main line becomes a version and the challenger; only `promote` makes a champion (`gate`).
An alias names one version at a time, so there is never a second champion; promotions run one at a time, each against
the champion at that time.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import tempfile
import time as clock
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flame_core
from flame_core.serving.locked_requirements import FILE as LOCKED
from flame_core.serving.locked_requirements import locked_requirements
from flame_core.shipped import shipped
from flame_core.tracking.journal import KEY_TAG, MODEL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER, CHAMPION = "challenger", "champion"
CHALLENGED = "flame.challenged_at"  # of a version: when it last became the challenger, in milliseconds since 1970
ROLLED_BACK = "promotion.rolled_back"  # of a version: when and why; kept until a person allows `--again`
FORGOTTEN_TAG = "flame.forgotten"  # of a run and its version: how many samples that it saw were forgotten since
PACKAGE = "package"  # the artifact of the pyfunc that holds the servable model
# Packages that the model's code needs.
REQUIREMENTS = (
    "mlflow", "numpy", "pandas", "pillow", "platformdirs", "psutil", "pyarrow", "pydantic", "pydantic-settings",
    "pyyaml", "resvg-py", "safetensors", "scipy", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip
CLOCKS_DIFFER = 3600.0  # seconds that another machine's clock may be ahead
log = logging.getLogger(__name__)


def log_model(
    client: MlflowClient, experiment: str, run_id: str, package: Path, event: Mapping[str, Any]
) -> str:  # fmt: skip
    """Log a packaged model to its run; returns MLflow's model id. The same model is logged once.

    Args:
        client: MLflow's client of the store.
        experiment: id of the run's experiment.
        run_id: id of the run that trained the model.
        package: folder of the servable model.
        event: `name` and `tags`, with the sha256 of the weights and the training's key.
    """
    tags = event["tags"]
    model = _model_with(client, experiment, {name: tags[name] for name in (MODEL_TAG, KEY_TAG)})
    if model is None:
        model = client.create_logged_model(experiment, event["name"], run_id, dict(tags), model_type="flame")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save(folder, package, model.model_id, run_id)
        client.log_model_artifacts(model.model_id, str(folder))
    _finish(client, run_id, model)
    return model.model_id


def log_external_model(client: MlflowClient, experiment: str, run_id: str, event: Mapping[str, Any]) -> str:
    """Log a model that is stored elsewhere, so that scores can be linked to it; returns MLflow's model id."""
    tags = {**event["tags"], "mlflow.model.isExternal": "true"}
    model = _model_with(client, experiment, {KEY_TAG: tags[KEY_TAG]})
    if model is None:
        name = event["name"].replace(".", "-")  # MLflow accepts no dot here
        model = client.create_logged_model(experiment, name, run_id, tags, model_type="baseline")
    _finish(client, run_id, model)
    return model.model_id


def _model_with(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> LoggedModel | None:
    wanted = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_logged_models([experiment], filter_string=wanted)
    return found[0] if found else None


def _finish(client: MlflowClient, run_id: str, model: LoggedModel) -> None:
    """Mark a model as an output of its run and as logged, each unless this was already done, maybe before a kill."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    outputs = client.get_run(run_id).outputs
    if model.model_id not in {each.model_id for each in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    if model.status != LoggedModelStatus.READY:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _save(folder: Path, package: Path, model_id: str, run_id: str) -> None:
    """Write MLflow's model folder: a model from code, with the code of `flame_core`, a signature and an example."""
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    vector, names = Array(DataType.double), Array(DataType.string)
    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "image", required=False),
                ColSpec(DataType.binary, "image_bytes", required=False),
                ColSpec(DataType.string, "text", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(vector, "image_embedding", required=False),
                ColSpec(vector, "text_embedding", required=False),
                ColSpec(vector, "similarities", required=False),
                ColSpec(names, "labels", required=False),
                ColSpec(vector, "scores", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("task", DataType.string, "embed"), ParamSpec("top", DataType.long, 5)]),
    )
    source = Path(flame_core.__file__).parent
    save_model(
        str(folder),
        python_model=str(source / "serving" / "pyfunc_model.py"),
        artifacts={PACKAGE: package.absolute().as_uri()},  # of a path, MLflow would read `%20` as a blank
        code_paths=[str(source)],
        signature=signature,
        input_example=pd.DataFrame({"image": [_example()]}),
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS],
        mlflow_model=Model(model_id=model_id, run_id=run_id),
    )
    known = shipped(LOCKED)
    lock = locked_requirements(REQUIREMENTS, known)
    if lock is None:
        log.info("the registered model carries no %s: other versions are installed than in %s", LOCKED, known)
    else:
        (folder / LOCKED).write_text(lock, "utf-8")
    code = folder / "code"
    for unused in [*code.rglob("__pycache__"), *code.glob("*/shipped")]:  # the second only of an installed wheel
        shutil.rmtree(unused)


def _example() -> str:
    """A small picture in base64."""
    import base64
    import io

    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), fill="orange")
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def register(
    client: MlflowClient, name: str, run_id: str, model_id: str, event: Mapping[str, Any], description: str
) -> str:
    """Make a logged model a version of `name` and the challenger; returns its number. The same model is one version.

    An event that arrives again, in any order, moves no alias: an event changes the challenger only if it is later than
    the events that made this version, or the present challenger, the challenger. A version that was rolled back never
    becomes the challenger.

    Args:
        client: MLflow's client of the store.
        name: name of the registered model.
        run_id: id of the run that trained the model.
        model_id: MLflow's id of the logged model.
        event: `tags` of the model, and `time` of the event (milliseconds since 1970; older journals have none).
        description: description of a new version, in Markdown.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags, time = event["tags"], int(event.get("time", 0))
    version = find_version(client, name, tags[MODEL_TAG])
    last = -1
    if version is None:
        version = client.create_model_version(
            name, f"models:/{model_id}", run_id, dict(tags), description=description, model_id=model_id
        )
    else:
        last = _challenged(version)
    number = str(version.version)
    if time <= last:
        return number
    if number != number_with(client, name, CHAMPION) and ROLLED_BACK not in version.tags:
        current = number_with(client, name, CHALLENGER)
        if current is None or time >= _challenged(client.get_model_version(name, current)):
            client.set_registered_model_alias(name, CHALLENGER, number)
    client.set_model_version_tag(name, number, CHALLENGED, str(time))
    return number


def _challenged(version: ModelVersion) -> int:
    """When a version became the challenger, in milliseconds.

    0 if its tag is no time any more, or if a clock that was wrong has put that in the future.
    """
    said = version.tags.get(CHALLENGED, "")
    time_of = int(said) if said.isdecimal() else 0
    return time_of if time_of < (clock.time() + CLOCKS_DIFFER) * 1000 else 0


def find_version(client: MlflowClient, name: str, sha256: str) -> ModelVersion | None:
    """The version of the model with these weights; the newest if there are several."""
    return newest(client.search_model_versions(f"name = '{name}' AND tags.`{MODEL_TAG}` = '{sha256}'"))


def newest(versions: Iterable[ModelVersion]) -> ModelVersion | None:
    """The version with the highest number."""
    return max(versions, key=lambda version: int(version.version), default=None)


def number_with(client: MlflowClient, name: str, alias: str) -> str | None:
    """The number of the version that has an alias; None if no version has it."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
