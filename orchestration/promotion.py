"""The asset `promote`: after an evaluation, the gate decides whether the challenger becomes champion.

It moves an alias in MLflow's registry but no data, so it is not a stage of `dvc.yaml`. The verdict is a check; the
table of differences and a link to the version are metadata. A refusal is a warning: the champion stays, and the run
continues.
"""
# No postponed annotations here: Dagster inspects the annotation of an asset's context.

from collections.abc import Iterator, Mapping

import dagster as dg

from flame_core.dvc_project.project import Stage
from flame_core.errors import GateError, InputError, ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.settings import settings
from orchestration.dagster_dvc.assets import asset_key

ASSET, CHECK = "promote", "gate"


def promotion_asset(layout: Layout, stages: Mapping[str, Stage]) -> dg.AssetsDefinition:
    """The asset, after every evaluation and the comparison."""
    before = [asset_key(name) for name in stages if name.partition("@")[0] in ("evaluate", "compare")]

    @dg.asset(
        name=ASSET,
        deps=before,
        group_name="registry",
        kinds={"mlflow"},
        owners=["team:models"],
        description="Compare the challenger with the champion on every benchmark and language; make it champion if the "
        "gate allows it.",
        check_specs=[dg.AssetCheckSpec(CHECK, asset=ASSET, description="whether the gate accepts the challenger")],
    )
    def promote(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from flame_core.tracking.pages import version_url
        from flame_core.tracking.promotion import Judged, promote_if_new
        from flame_core.tracking.store import tracking_address

        address = tracking_address(layout)
        if address is None:
            yield _result("tracking is off (FLAME_TRACKING_URI=off), so there is no registry", {})
            return
        try:
            found = promote_if_new(load_params(layout), layout)
        except (InputError, GateError, ResourceError) as error:
            yield _result(str(error), {}, passed=False)
            return
        except ParamsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        if isinstance(found, Judged):
            said = f"unchanged: these models were judged before ({found.reason})"
            yield _result(said, {}, passed=found.promoted)
            return
        name = settings().registered_model
        metadata: dict[str, dg.MetadataValue] = {"champion": dg.MetadataValue.text(found.champion or "none")}
        if found.verdict is None:
            yield _result("no challenger", metadata)
            return
        challenger = str(found.challenger)
        metadata |= {
            "challenger": dg.MetadataValue.text(challenger),
            "model version": dg.MetadataValue.url(version_url(address, name, challenger)),
            "rule": dg.MetadataValue.text(found.verdict.rule),
        }
        if rows := [dg.TableRecord(vars(row)) for row in found.verdict.differences]:
            metadata["differences"] = dg.MetadataValue.table(rows)
        context.log.info("%s: %s", "promoted" if found.verdict.promoted else "refused", found.verdict.reason)
        yield _result(found.verdict.reason, metadata, passed=found.verdict.promoted)

    return promote


def _result(reason: str, metadata: Mapping[str, dg.MetadataValue], passed: bool = True) -> dg.MaterializeResult:
    check = dg.AssetCheckResult(
        check_name=CHECK, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=reason
    )  # fmt: skip
    return dg.MaterializeResult(metadata={"outcome": reason, **metadata}, check_results=[check])
