"""How many variants of a function torch compiles: beyond its limit it goes on without, and only a log says so."""

from __future__ import annotations

_VARIANTS = 64  # of windows, rows and shapes of heads of a process's LLMs, and of pieces and phases of its recipes


def allow_variants() -> None:
    """Let this thread compile as many variants as occur."""
    from torch._dynamo import config

    if config.recompile_limit < _VARIANTS:
        config.recompile_limit = _VARIANTS
