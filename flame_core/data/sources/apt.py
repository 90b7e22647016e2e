"""Fetches Debian packages with `apt-get download`, as an ordinary user, without touching the system's apt state.

It uses the machine's package sources, with lists, cache and state in a private folder. Packages are stored under their
sha256, so a package that was fetched once can be used again, even without a network.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_core.digest import file_sha256
from flame_core.errors import ResourceError
from flame_core.files.whole_folders import scratch

log = logging.getLogger(__name__)

_OTHERS = "Use a source of the kind `folder` or `webdataset` instead"
_PROGRAMS = ("apt-get", "dpkg-deb")
_CONFIGURATION = """\
Dir::State "{apt}/state/";
Dir::State::Lists "{apt}/lists/";
Dir::State::status "{apt}/state/status"; // nothing is installed: the newest version is one that a source offers
Dir::Cache "{apt}/cache/";
Dir::Log "{apt}/log/";
APT::Sandbox::User "root"; // no second user: the folders are ours alone
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
_URI = re.compile(r"^'[^']+' \S+ \d+ (?P<hash>SHA256|SHA512):(?P<digest>[0-9a-f]+)$", re.MULTILINE)  # the strongest


@dataclass(frozen=True)
class Deb:
    """A package file on this machine, named by its sha256."""

    package: str
    version: str
    sha256: str
    path: Path


def fetch_packages(packages: Sequence[str], cache: Path) -> list[Deb]:
    """The newest version of each package that the machine's package sources offer, downloaded at most once.

    Raises:
        ResourceError: apt is missing, offers no such package, or cannot fetch it and has no cached file.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise ResourceError(
            f"{', '.join(missing)} not found: packages can be fetched only on Debian and its derivatives. {_OTHERS}"
        )
    apt = Apt(cache.resolve() / "apt")
    apt.update()
    return [apt.fetch(package) for package in packages]


class Apt:
    """Runs apt-get so that everything it writes is under one folder."""

    def __init__(self, folder: Path) -> None:
        self._debs = folder / "debs"
        self._configuration = folder / "apt.conf"
        self._offline: str | None = None  # why the lists could not be updated
        for name in ("state", "lists/partial", "cache/archives/partial", "log", "debs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "state/status").touch()
        self._configuration.write_text(_CONFIGURATION.format(apt=folder))

    def update(self) -> None:
        """Update the package lists; if that fails, keep using the previous ones."""
        result = self._run("update", "-o", "APT::Update::Error-Mode=any")
        if result.returncode:
            self._offline = _last_line(result)
            log.warning("apt-get update failed, using the previous lists: %s", self._offline)

    def fetch(self, package: str) -> Deb:
        """The package's file, from the cache or downloaded."""
        answer = self._run("download", "--print-uris", package)
        found = _URI.search(answer.stdout)
        if answer.returncode == 0 and found:
            for path in self._cached(package):
                if (path.stem if found["hash"] == "SHA256" else _digest(path, found["hash"])) == found["digest"]:
                    return self._deb(package, path)
            answer = self._download(package, found["hash"], found["digest"])
            if answer.returncode == 0:
                return self._deb(package, next(self._cached(package)))
        cached = next(self._cached(package), None)
        if cached is None:
            reasons = "; ".join(filter(None, [_last_line(answer), self._offline]))
            raise ResourceError(
                f"package {package} cannot be fetched: {reasons}. Check the network, and that the machine's apt "
                f"sources offer it (`apt-cache policy {package}`). {_OTHERS}"
            )
        deb = self._deb(package, cached)
        log.warning("%s: %s; using version %s from the cache", package, _last_line(answer), deb.version)
        return deb

    def _download(self, package: str, kind: str, digest: str) -> subprocess.CompletedProcess[str]:
        log.info("downloading package %s", package)
        with scratch(self._debs) as folder:
            answer = self._run("download", package, folder=folder)
            fetched = next(folder.glob("*.deb"), None)
            if answer.returncode == 0:
                if fetched is None or _digest(fetched, kind) != digest:
                    raise ResourceError(f"apt-get left no intact file of package {package}; try again")
                path = self._debs / package / f"{file_sha256(fetched)}.deb"
                path.parent.mkdir(parents=True, exist_ok=True)
                os.utime(fetched)
                fetched.replace(path)
        return answer

    def _cached(self, package: str) -> Iterator[Path]:
        """The intact files of a package, the last that was downloaded first."""
        files = sorted((self._debs / package).glob("*.deb"), key=lambda path: path.stat().st_mtime, reverse=True)
        return (path for path in files if file_sha256(path) == path.stem)

    def _deb(self, package: str, path: Path) -> Deb:
        return Deb(package, dpkg_deb("--field", path, "Version").strip(), path.stem, path)

    def _run(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["apt-get", "-c", str(self._configuration), "-q", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            check=False,
        )


def _digest(path: Path, kind: str) -> str:
    """The digest of a file, by the name that apt gives the kind."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind.lower()).hexdigest()


def dpkg_deb(*arguments: str | Path) -> str:
    """The output of `dpkg-deb`.

    Raises:
        ResourceError: it failed; gives its error.
    """
    result = subprocess.run(
        ["dpkg-deb", *map(str, arguments)], capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode:
        raise ResourceError(f"dpkg-deb {arguments[0]} failed: {_last_line(result)}")
    return result.stdout


def licence_of(copyright_file: Path) -> str | None:
    """The licence in a package's copyright file: that of `Files: *`, the first `License:`, or the `Copyright:` text."""
    text = copyright_file.read_text("utf-8", errors="replace") if copyright_file.is_file() else ""
    for pattern in (r"^Files: \*$(?:\n.+)*?\nLicense: *(.+)", r"^License: *(.+)", r"^Copyright:\s+(.+)"):
        if found := re.search(pattern, text, re.MULTILINE):
            return found[1].strip()
    return None


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "W:", "dpkg"))]
    return (lines or result.stderr.splitlines() or [f"exit status {result.returncode}"])[-1].strip()
