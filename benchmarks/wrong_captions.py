"""Copies webdataset shards so that a share of the pictures has captions of other pictures, and lists the right ones.

    python -m benchmarks.wrong_captions 0.3 flickr8k/flickr8k-train-0000[01].tar wrong/

writes shards of the same names into `wrong/`, and the keys of the pictures that keep their captions to
`wrong/right.parquet`, a selection of a recipe. The `.json` beside each chosen picture is that of the next chosen one
in an order by hash.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.key_selection import KEY
from flame_core.digest import text_sha256


def exchanged(texts: Mapping[str, bytes], share: float) -> tuple[dict[str, bytes], list[str]]:
    """Captions by key, of which a share goes around in a circle; and the keys that keep their own."""
    order = sorted(texts, key=text_sha256)
    chosen = order[: round(share * len(order))]
    others = dict(zip(chosen, [*chosen[1:], *chosen[:1]], strict=True))
    return {key: texts[others.get(key, key)] for key in texts}, sorted(texts.keys() - others.keys())


def copy_shards(share: float, shards: list[Path], out: Path) -> None:
    """Write the copies and the list."""
    members = {path.name: _members(path) for path in shards}
    texts = {name: content for own in members.values() for name, content in own.items() if name.endswith(".json")}
    found, right = exchanged({_key(name): content for name, content in texts.items()}, share)
    out.mkdir(parents=True, exist_ok=True)
    for shard, own in members.items():
        with tarfile.open(out / shard, "w") as tar:
            for name, content in own.items():
                new = found[_key(name)] if name.endswith(".json") else content
                info = tarfile.TarInfo(name)
                info.size = len(new)
                tar.addfile(info, io.BytesIO(new))
    pq.write_table(pa.table({KEY: right}), out / "right.parquet")
    print(f"{len(texts) - len(right):,} of {len(texts):,} pictures have another's captions in {out}")


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {each.name: reader.read() for each in tar if (reader := tar.extractfile(each)) is not None}


def _key(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("share", type=float)
    parser.add_argument("shards", nargs="+", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    copy_shards(options.share, options.shards, options.out)


if __name__ == "__main__":
    main()
