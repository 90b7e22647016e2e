"""Errors that reach the user: each names the file, key or row at fault and what to do, and fixes the exit code.

| code | meaning |
|---|---|
| 0 | done, or nothing to do |
| 1 | an unexpected failure (a traceback is shown) |
| 2 | wrong usage: an unknown option, a params or settings mistake |
| 3 | the input was refused: missing, damaged or not what was asked for |
| 4 | a quality gate refused an input |
| 5 | a tool, package or resource is missing (apt, a Python package, disk space, memory) |
| 6 | a computation failed (a non-finite loss, a model that cannot be packed) |
| 75 | interrupted after a clean checkpoint; the same command resumes |
"""

from __future__ import annotations

from collections.abc import Collection


class FlameError(Exception):
    """Base of all errors that are shown to the user without a traceback."""

    exit_code = 1


class ParamsError(FlameError):
    """A wrong value in params.yaml, a recipe, a preset, an override or a setting.

    Attributes:
        message: what is wrong and what to do.
        key: the dotted key that it is about, shown before the message; None if the message names it, or there is none.
    """

    exit_code = 2

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message, key)
        self.message, self.key = message, key

    def __str__(self) -> str:
        return self.message if self.key is None else f"{self.key}: {self.message}"


class InputError(FlameError):
    """Data that cannot be used: missing, damaged, or produced with other params."""

    exit_code = 3


class GateError(FlameError):
    """An input whose producer recorded a failed blocking check."""

    exit_code = 4


class ResourceError(FlameError):
    """Something the machine lacks: a program, a package, disk space, memory."""

    exit_code = 5


class ComputationError(FlameError):
    """A result that must not be used, such as a non-finite loss."""

    exit_code = 6


class Interrupted(FlameError):
    """A stop signal arrived, the state was saved, and the same command resumes."""

    exit_code = 75


def is_of(error: BaseException, packages: Collection[str]) -> bool:
    """Whether an error's class, or one that it inherits from, is of one of these top-level packages."""
    return any(each.__module__.partition(".")[0] in packages for each in type(error).__mro__)
