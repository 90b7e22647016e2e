"""Copies webdataset shards so that a share of the pictures has captions of other pictures, and lists the right ones.

    python -m benchmarks.wrong_captions flickr8k 0.3 flickr8k/flickr8k-train-0000[01].tar wrong/

writes shards of the same names into `wrong/`, and the pictures that keep their captions to `wrong/right.parquet`, a
selection of a recipe, by their keys in the source that the first argument names. The `.json` beside each other picture
is that of the next one in an order by hash.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.key_selection import KEY
from flame_core.digest import text_sha256


def others(names: Iterable[str], share: float) -> dict[str, str]:
    """{name: the one whose captions it gets}, of a share of the names: they go around in a circle."""
    order = sorted(names, key=lambda name: text_sha256(Path(name).stem))
    chosen = order[: round(share * len(order))]
    return dict(zip(chosen, [*chosen[1:], *chosen[:1]], strict=True))


def copy_shards(source: str, share: float, shards: list[Path], out: Path) -> None:
    """Write the copies and the list."""
    members = {f"{path.stem}/{name}": content for path in shards for name, content in _members(path).items()}
    texts = [name for name in members if name.endswith(".json")]
    wrong = others(texts, share)
    out.mkdir(parents=True, exist_ok=True)
    for path in shards:
        with tarfile.open(out / path.name, "w") as tar:
            for name in _members(path):
                own = f"{path.stem}/{name}"
                content = members[wrong.get(own, own)]
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    right = [f"{source}/{name.removesuffix('.json')}" for name in texts if name not in wrong]
    pq.write_table(pa.table({KEY: right}), out / "right.parquet")
    print(f"{len(wrong):,} of {len(texts):,} pictures have another's captions in {out}")


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {each.name: reader.read() for each in tar if (reader := tar.extractfile(each)) is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("share", type=float)
    parser.add_argument("shards", nargs="+", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    copy_shards(options.source, options.share, options.shards, options.out)


if __name__ == "__main__":
    main()
