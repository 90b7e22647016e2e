"""Quality gates: a stage writes its checks into its out, and every consumer refuses an out with a blocking failure.

`checks.json` is stored with the data, so the gate works the same in a shell, in Dagster and in a later run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flame_core.absent_outs import bringing, making
from flame_core.digest import json_bytes
from flame_core.errors import GateError, InputError
from flame_core.remedies import advice, remedy_of

CHECKS = "checks.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """One check. `value` was measured, `threshold` comes from params, `keys` are some of the failing samples."""

    name: str
    passed: bool
    description: str
    value: Any = None
    threshold: Any = None
    blocking: bool = True
    keys: list[str] = field(default_factory=list)


def to_bytes(checks: Iterable[Check]) -> bytes:
    """The content of `checks.json`."""
    return json_bytes([asdict(check) for check in checks])


def read(out: Path) -> list[Check]:
    """The checks stored in `out`.

    Raises:
        InputError: the out is missing or no stage made it, or its checks are damaged.
    """
    path = out / CHECKS
    if not path.is_file():
        raise InputError(f"{path} is missing: {bringing(out)}")
    try:
        return [Check(**row) for row in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): run `{making(out)}`") from None


def require(out: Path) -> None:
    """Refuse an input with a failed blocking check.

    Raises:
        GateError: names the checks, their values and thresholds, some keys, and how to go on.
    """
    failed = [check for check in read(out) if check.blocking and not check.passed]
    if failed:
        lines = [line for check, advised in with_advice(failed) for line in told(check, advised=advised)]
        raise GateError(f"{out} failed {len(failed)} blocking check(s):\n" + "\n".join(f"  {line}" for line in lines))


def verdict(checks: Iterable[Check]) -> str:
    """All checks in a word or two: `failed` if a blocking one did, and `passed` only if all did."""
    missed = [check for check in checks if not check.passed]
    if any(check.blocking for check in missed):
        return "failed"
    return f"{len(missed)} not passed: {', '.join(check.name for check in missed)}" if missed else "passed"


def warn(checks: Iterable[Check]) -> None:
    """Log the failed checks of an out that was just made, with how to go on; a consumer refuses blocking ones."""
    for check, advised in with_advice([check for check in checks if not check.passed]):
        kind = "blocking check failed" if check.blocking else "check failed"
        log.warning("%s: %s", kind, "\n  ".join(told(check, advised=advised)))


def measured(check: Check) -> str:
    """What was measured, and the threshold if there is one: `measured 0.25, threshold 0.5`; "" if there is neither."""
    limit = "" if check.threshold is None else f"threshold {shown(check.threshold)}"
    value = f"measured {shown(check.value)}" if check.value is not None else "not measured" if limit else ""
    return ", ".join(filter(None, (value, limit)))


def shown(value: Any) -> str:
    """A value or threshold of a check as text: `de 12, en 90` of a mapping, `short (min 1, max 9)` if it is nested."""
    if isinstance(value, dict):
        parts = [
            f"{key} ({shown(each)})" if isinstance(each, dict) else f"{key} {shown(each)}"
            for key, each in value.items()
        ]
        return ", ".join(parts) or "none"
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def told(check: Check, *, advised: bool = True) -> list[str]:
    """A failed check in lines: what was measured, and how to go on if that is `advised`."""
    examples = f"; for example {', '.join(check.keys[:5])}" if check.keys else ""
    found = measured(check)
    first = f"{check.name}: {check.description}{f' ({found})' if found else ''}{examples}"
    return [first, *(f"  {line}" for line in advice(check.name))] if advised else [first]


def with_advice(checks: Iterable[Check]) -> Iterator[tuple[Check, bool]]:
    """(check, whether to say how to go on): once for all checks with the same remedy, after the last of them."""
    rows = list(checks)
    last = {remedy_of(check.name): number for number, check in enumerate(rows)}
    return ((check, last[remedy_of(check.name)] == number) for number, check in enumerate(rows))
