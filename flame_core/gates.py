"""Quality gates: a stage writes its checks into its out, and every consumer refuses an out with a blocking failure.

`checks.json` is stored with the data, so the gate works the same in a shell, in Dagster and in a later run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flame_core.digest import json_bytes
from flame_core.errors import GateError, InputError
from flame_core.verification import making

CHECKS = "checks.json"


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
        raise InputError(f"{path} is missing: run `{making(out)}` first (`dvc repro` runs all)")
    try:
        return [Check(**row) for row in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): run `{making(out)}`") from None


def require(out: Path) -> None:
    """Refuse an input with a failed blocking check.

    Raises:
        GateError: names the checks, their values and thresholds, and some keys.
    """
    failed = [check for check in read(out) if check.blocking and not check.passed]
    if failed:
        lines = [
            f"  {c.name}: {c.description} (measured {c.value}, threshold {c.threshold})"
            + (f"; for example {', '.join(c.keys[:5])}" if c.keys else "")
            for c in failed
        ]
        raise GateError(f"{out} failed {len(failed)} blocking check(s):\n" + "\n".join(lines))
