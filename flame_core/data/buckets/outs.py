"""Outs that lie in a bucket as they lie in `data/`, fetched into `data/`: for machines that train without DVC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flame_core.data.buckets.bucket import Bucket, open_bucket
from flame_core.data.buckets.staging import Stage
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.names import shown, stays_inside
from flame_core.verification import DIGESTS, read_digests
from flame_core.work import gather

OF_A_TRAINING = ("shards", "captions", "embeddings/train")  # what `flame train` verifies and reads


@dataclass(frozen=True)
class Fetched:
    """An out that was fetched: its name below `data/`, and how many files and bytes it has."""

    name: str
    files: int
    size: int


def fetch_outs(address: str, names: Sequence[str], layout: Layout) -> list[Fetched]:
    """Make `data/<name>` of each `<address>/<name>`, whose `digests.json` says which files it has.

    Every byte is compared with its sha256 there before anything in `data/` is replaced. Copies that are here already,
    of this or an earlier call, are not fetched again.

    Raises:
        ParamsError: the address is not one of a bucket.
        InputError: an out is not there, lacks a file, or holds other bytes than its digests say; names the file.
        ResourceError: the server cannot be reached, or there is no room.
    """
    found = []
    for name in names:
        if not name or not stays_inside(name):
            raise InputError(f"{shown(name)} is no out: name folders of {layout.data}, such as shards")
        found.append(_fetch(open_bucket(f"{address.rstrip('/')}/{name}"), name, layout))
    return found


def _fetch(bucket: Bucket, name: str, layout: Layout) -> Fetched:
    there = {file.path: file for file in bucket.files()}
    if DIGESTS not in there:
        raise InputError(f"{bucket.address} has no {DIGESTS}, so it is no out that `flame` made")
    listed = Stage(bucket.address, DIGESTS)
    listed.fetch(bucket, [there[DIGESTS]])
    digests = read_digests(listed.files)
    if missing := sorted(digests.keys() - there.keys()):
        raise InputError(
            f"{bucket.address}/{missing[0]} is missing{f', and {len(missing) - 1:,} more' if missing[1:] else ''}; "
            "copy the out to the bucket again"
        )
    stage = Stage(bucket.address, "*")
    files = [there[path] for path in sorted(digests)]
    stage.fetch(bucket, files, digests)
    gather(layout.data / name, layout.state, {path: stage.files / path for path in digests}, sha256=digests)
    return Fetched(name, len(files), sum(file.size for file in files))
