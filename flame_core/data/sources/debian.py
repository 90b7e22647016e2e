"""Image-text pairs inside Debian packages: fetched by `apt.py`, unpacked with `dpkg-deb -x`, nothing installed.

Each package has its own reader module (`tuxpaint.py`, `openclipart.py`). Only pictures are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flame_core.data.forgotten import NOTHING, Forgotten
from flame_core.data.sources import RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.apt import Deb, dpkg_deb, fetch_packages, licence_of
from flame_core.data.sources.listing_writer import listed_unit, write_listing
from flame_core.data.sources.openclipart import clipart
from flame_core.data.sources.tuxpaint import stamps
from flame_core.data.sources.unpacked import Package
from flame_core.params import DebianSource
from flame_core.settings import settings
from flame_core.work import Unit, UnitRecord, WorkCache


@dataclass(frozen=True)
class Reader:
    """How to find the pairs of a package, and which packages that needs."""

    needs: tuple[str, ...]
    pairs: Callable[[Mapping[str, Package]], Iterator[RawPair]]


READERS = {
    "tuxpaint-stamps-default": Reader(("tuxpaint-stamps-default",), lambda has: stamps(has["tuxpaint-stamps-default"])),
    "openclipart-png": Reader(
        ("openclipart-png", "openclipart-svg"), lambda has: clipart(has["openclipart-png"], has["openclipart-svg"])
    ),
}


class Debian:
    """The source `kind: debian`."""

    def __init__(self, params: DebianSource, forgotten: Forgotten = NOTHING) -> None:
        self._forgotten = forgotten
        self._readers = [READERS[name] for name in params.packages]

    def pictures(self, raw: Path) -> Path:
        return raw

    def download(self, work: WorkCache) -> Unit:
        needed = sorted({name for reader in self._readers for name in reader.needs})
        debs = fetch_packages(needed, settings().cache_dir)
        packages = {deb.package: [deb.version, deb.sha256] for deb in debs}
        chosen = [list(reader.needs) for reader in self._readers]
        inputs = {"kind": "debian", "packages": packages, "read": chosen, **self._forgotten.identity}
        return work.get(inputs, lambda folder: self._unpack(debs, folder))

    def _unpack(self, debs: list[Deb], folder: Path) -> UnitRecord:
        unpacked = folder / "unpacked"
        has: dict[str, Package] = {}
        facts = []
        problems, unused = Problems(), Unused()
        for deb in debs:
            tree = unpacked.resolve() / deb.package
            tree.mkdir(parents=True)
            dpkg_deb("--extract", deb.path, tree)
            licence = licence_of(tree / "usr/share/doc" / deb.package / "copyright")
            has[deb.package] = Package(tree, licence, folder / "pictures", problems, unused)
            facts.append({"package": deb.package, "version": deb.version, "sha256": deb.sha256, "licence": licence})
        pairs = ((pair, ()) for reader in self._readers for pair in reader.pairs(has))
        about = {"kind": "debian", "packages": facts}
        record = write_listing(
            folder, folder, pairs, about=about, problems=problems, unused=unused, forgotten=self._forgotten
        )
        shutil.rmtree(unpacked)
        return listed_unit(record)
