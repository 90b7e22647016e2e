"""Live progress of the questions: rate, share of answers, commonest reasons, tokens so far."""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType

from flame_core import reporting
from flame_core.captions.server.reply import Reply
from flame_core.data.addresses.tally import told

log = logging.getLogger(__name__)
_SAID = 10.0  # seconds between two lines


class Spoken:
    """Counts what became of the questions; `with Spoken(total) as spoken: spoken.add("ok", ...)`."""

    def __init__(self, total: int) -> None:
        self._progress = reporting.progress("ask for captions", total, "captions")
        self._counts: Counter[str] = Counter()
        self._tokens = self._waits = 0
        self._start = self._line = time.monotonic()

    def __enter__(self) -> Spoken:
        self._bar = self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._counts:
            log.info("%s", self.line())

    def add(self, outcome: str, last: bool, reply: Reply | None = None) -> None:
        """Count a sample: `ok`, a reason, `found` or `not asked`; in the last pass it has been counted before."""
        if outcome in ("found", "not asked"):
            if not last:
                self._bar.advance()
            return
        if reply:
            self._tokens += (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
        self._counts[outcome] += 1
        if not last:
            self._bar.advance()
        if time.monotonic() - self._line >= _SAID:
            self._line = time.monotonic()
            log.info("%s", self.line())

    def add_wait(self) -> None:
        """Count an answer that asks for fewer requests."""
        self._waits += 1

    def line(self) -> str:
        """`1,200 captions asked for, 21/s, 97.0 % good; timeout 2.0 %; 310,000 tokens; 12 x rate_limited`."""
        said = [told(self._counts, time.monotonic() - self._start, "captions asked for")]
        said += [f"{self._tokens:,} tokens"] if self._tokens else []
        said += [f"{self._waits:,} x rate_limited"] if self._waits else []
        return "; ".join(said)
