"""The assets of a DVC project that has nothing to do with FLAME."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from flame_core.dvc_project.project import DvcProject, Stage
from orchestration.dagster_dvc.assets import dvc_assets
from tests.foreign_project import foreign as foreign
from tests.foreign_project import foreign_template as foreign_template
from tests.foreign_project import reproduced as reproduced
from tests.foreign_project import reproduced_template as reproduced_template

KEYS = [dg.AssetKey(path) for path in (["grow"], ["scale.10"], ["scale.2"], ["total"])]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def read_checks(project: DvcProject, stage: Stage, declared) -> list[dg.AssetCheckResult]:
    enough = (project.root / "numbers" / "enough").read_text() == "yes"
    return [dg.AssetCheckResult(check_name=name, passed=enough) for name in declared]


def assets(project: DvcProject) -> list[dg.AssetsDefinition]:
    return dvc_assets(project, read_checks=read_checks, read_tags=lambda project: {"params": "p1"})


def stale(project: DvcProject, instance: dg.DagsterInstance) -> dict[dg.AssetKey, str]:
    """FRESH, STALE or MISSING, as the asset pages say it."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = dg.Definitions(assets=assets(project)).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {key: resolver.get_status(key).value for key in KEYS}
