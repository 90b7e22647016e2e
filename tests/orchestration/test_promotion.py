"""The asset `promote`: its check is the gate's verdict, also when nothing has changed since."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from flame_core.layout import Layout
from flame_core.tracking.promotion import Judged
from orchestration import promotion


@pytest.mark.parametrize("promoted", [True, False])
def test_a_verdict_stays_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promoted: bool
) -> None:
    reason = "the mean over 4 held-out measures changed by -0.0274"
    monkeypatch.setattr(promotion, "load_params", lambda layout: None)
    monkeypatch.setattr("flame_core.tracking.promotion.promote_if_new", lambda params, layout: Judged(promoted, reason))
    monkeypatch.setattr("flame_core.tracking.store.tracking_address", lambda layout: "http://127.0.0.1:9")
    asset = promotion.promotion_asset(Layout.find(tmp_path), {})
    done = dg.materialize([asset], instance=dg.DagsterInstance.ephemeral())
    (check,) = done.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (promoted, dg.AssetCheckSeverity.WARN)
    assert check.description == f"unchanged: these models were judged before ({reason})"
