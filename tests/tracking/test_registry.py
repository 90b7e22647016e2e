"""Models as MLflow logs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelStatus

from flame_core.layout import Layout
from flame_core.tracking import registry
from flame_core.tracking.journal import KEY_TAG, MODEL_TAG
from flame_core.tracking.store import experiment_id, local_address, open_client


@pytest.mark.parametrize("name", ["100%20 sure", "c#, a?b"])
def test_a_model_is_logged_from_a_project_of_any_name(name: str, tmp_path: Path):
    root = tmp_path / name
    package = root / "package"
    package.mkdir(parents=True)
    (package / "config.json").write_text("{}")
    address = local_address(Layout.find(root))
    client = open_client(address)
    experiment = experiment_id(client, address)
    run = client.create_run(experiment).info.run_id
    tags = {MODEL_TAG: "0" * 64, KEY_TAG: "made"}
    model = registry.log_model(client, experiment, run, package, {"name": "flame", "tags": tags, "time": 1})
    uri = client.get_logged_model(model).artifact_location
    logged = Path(download_artifacts(uri, dst_path=str(tmp_path / "fetched")))
    assert (logged / "artifacts/package/config.json").read_text() == "{}"


class Killed(BaseException):
    """Stands for `kill -9`."""


@pytest.mark.parametrize("cut", ["log_outputs", "finalize_logged_model"])
@pytest.mark.parametrize("done", [True, False], ids=["after the call", "before the call"])
def test_a_killed_delivery_leaves_a_model_that_becomes_an_output_of_its_run_once(
    tracked: Layout, monkeypatch: pytest.MonkeyPatch, cut: str, done: bool
):
    address = local_address(tracked)
    client = open_client(address)
    experiment = experiment_id(client, address)
    run = client.create_run(experiment).info.run_id
    event = {"name": "clip.b", "tags": {KEY_TAG: "made"}}
    call = getattr(client, cut)

    def killed(*arguments: object) -> None:
        if done:
            call(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(client, cut, killed)
        with pytest.raises(Killed):
            registry.log_external_model(client, experiment, run, event)
    model = registry.log_external_model(client, experiment, run, event)
    assert registry.log_external_model(client, experiment, run, event) == model
    outputs = client.get_run(run).outputs
    assert outputs is not None and [each.model_id for each in outputs.model_outputs] == [model]
    assert client.get_logged_model(model).status == LoggedModelStatus.READY
