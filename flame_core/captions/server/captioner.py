"""Captions of a shard from the answers of a chat server, and a ledger row per sample.

The ledger of a shard is `data/captions/answers/<split>/<shard>.parquet`: what became of every sample, which model
answered, by its own word, and the digests of the request and of the answer's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.captions.captioner import Failure, Kind, Written, one_each
from flame_core.captions.generation import clean
from flame_core.captions.server.answers import Answer, Answers
from flame_core.captions.server.question import question
from flame_core.data.shards import Sample
from flame_core.digest import text_sha256
from flame_core.params import ServerCaptioner as ServerParams

LEDGER = "answers.parquet"  # of a unit
LEDGERS = "answers"  # the folder of the out that has them

SCHEMA = pa.schema(
    {
        "row": pa.int32(),  # of the sample in its shard
        "key": pa.string(),
        "kind": pa.string(),
        "outcome": pa.string(),  # ok, failed; refused: nothing could be asked
        "reason": pa.string(),  # null if ok
        "message": pa.string(),  # the server's, about an error
        "status": pa.int32(),  # of HTTP; null: there was no answer
        "tries": pa.int32(),
        "model": pa.string(),  # that the answer names
        "fingerprint": pa.string(),  # its `system_fingerprint`, if it has one
        "finish": pa.string(),  # its `finish_reason`: length means cut at max_new_tokens
        "prompt_tokens": pa.int64(),
        "completion_tokens": pa.int64(),
        "request_sha256": pa.string(),
        "answer_sha256": pa.string(),  # of the text as the server wrote it
    }
)


class ServerCaptioner:
    """Reads the answers that `asking.ask` left."""

    def __init__(self, params: ServerParams, kind: Kind, answers: Answers) -> None:
        self._params, self._kind, self._answers = params, kind, answers

    def write(self, samples: Sequence[Sample]) -> Written:
        """One text per sample of a shard, or why there is none."""
        texts, provenances, rows = [], [], []
        for row, sample in enumerate(samples):
            asked = question(self._params, sample)
            about: dict[str, Any] = {"row": row, "key": sample.key, "kind": self._kind}
            if isinstance(asked, Failure):
                answer: Answer | Failure = asked
                rows.append({**about, "outcome": "refused", "reason": asked.reason, "tries": 0})
            else:
                answer = self._answers.get(asked.digest) or Failure("not_asked")
                rows.append({**about, "request_sha256": asked.digest, **_told(answer)})
            texts.append(_text(answer))
            provenances.append(self._provenance(answer))
        return Written(one_each(texts), provenances, rows)

    def _provenance(self, answer: Answer | Failure) -> str:
        """`server:<model>@<fingerprint>`, by the answer's own word, or else the model that was asked for."""
        kind = "server" if self._params.picture else "server-rewrite"
        if isinstance(answer, Failure) or not answer.model:
            return f"{kind}:{self._params.model}"
        return f"{kind}:{answer.model}" + (f"@{answer.fingerprint}" if answer.fingerprint else "")


def _told(answer: Answer | Failure) -> dict[str, Any]:
    """The columns about an answer."""
    if isinstance(answer, Failure):
        return {"outcome": "failed", "reason": answer.reason, "tries": 0}
    values = {name: value for name, value in vars(answer).items() if name != "text" and value != ""}
    digest = {"answer_sha256": text_sha256(answer.text)} if answer.text else {}
    return {"outcome": "ok" if answer.ok else "failed", **values, **digest}


def write_ledger(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the ledger of a shard."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path, compression="zstd")


def _text(answer: Answer | Failure) -> str | Failure:
    if isinstance(answer, Failure):
        return answer
    return Failure(answer.reason) if answer.reason else clean(answer.text) or Failure("no_text")
