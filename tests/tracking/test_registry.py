"""Models as MLflow logs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts

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
