"""What to do about a failed check: the param that holds its threshold, likely causes, and how to go on.

These texts are printed and shown only. `checks.json` says what was measured, and is an out.
"""

from __future__ import annotations

from flame_core.remedies.of_data import DATA
from flame_core.remedies.of_models import MODELS
from flame_core.remedies.of_optional_stages import OPTIONAL_STAGES
from flame_core.remedies.remedy import Remedy

__all__ = ["REMEDIES", "Remedy", "advice", "remedy_of"]

GO_ON = "flame run"
# Checks named `<check>/<what it is of>`. Those of `download` are named `<source>/<check>`.
_BEFORE = ("benchmarks_", "concept_fit_", "domain_", "recall_over_chance", "spectrum_", "tune_")
REMEDIES: dict[str, Remedy] = {**DATA, **OPTIONAL_STAGES, **MODELS}


def remedy_of(check: str) -> Remedy | None:
    """The remedy of a check, whose name may hold what it is of: `recall_over_chance/en/text`, or `tuxpaint/pairs`."""
    first, last = check.partition("/")[0], check.rpartition("/")[2]
    return REMEDIES.get(first if first.startswith(_BEFORE) and first in REMEDIES else last)


def advice(check: str, go_on: str = f"go on with `{GO_ON}`") -> list[str]:
    """Lines that say how to go on after a check has failed; none of a check that is not known here.

    Args:
        check: its name.
        go_on: what follows the mend, where the lines are shown.
    """
    remedy = remedy_of(check)
    if remedy is None:
        return []
    threshold = f"threshold: {remedy.param}" if remedy.param else "threshold: fixed, no param changes it"
    causes = [f"{number}. {cause}" for number, cause in enumerate(remedy.causes, start=1)]
    return [threshold, "likely causes, the likeliest first:", *causes, f"then {go_on}"]
