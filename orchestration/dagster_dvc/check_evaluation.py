"""Results of checks as events of assets, for what ran outside of the asset's own step."""

from __future__ import annotations

import dagster as dg


def check_evaluation(
    key: dg.AssetKey, result: dg.AssetCheckResult, partition: str | None = None
) -> dg.AssetCheckEvaluation:
    """A check's result as an event of the asset `key`."""
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=result.check_name or "",
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=True,
        partition=partition,
    )
