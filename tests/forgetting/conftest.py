"""The project that most tests forget samples of."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import caption, download, ingest
from tests.forgetting.small_project import CAPTIONS
from tests.stages.pipeline import folder_source, pipeline_params, write_pairs


@pytest.fixture
def project(tmp_path: Path) -> tuple[Params, Layout]:
    """Shards and captions of 60 drawings, and a report that names one of them."""
    write_pairs(tmp_path / "pairs", range(60), CAPTIONS)
    layout = Layout.find(tmp_path / "project")
    layout.root.mkdir()
    params = pipeline_params({"s": folder_source(tmp_path / "pairs")})
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    return params, layout
