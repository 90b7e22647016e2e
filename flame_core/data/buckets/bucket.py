"""A folder in a bucket by its address, `s3://bucket/folder` or `gs://bucket/folder`, through `pyarrow.fs`.

Keys and the server come from the environment, as everywhere with S3: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_DEFAULT_REGION`, and `AWS_ENDPOINT_URL` if it is not Amazon's. Google's storage takes the credentials that Google's
own clients take (`GOOGLE_APPLICATION_CREDENTIALS` and so on), and `STORAGE_EMULATOR_HOST` names an emulator.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.names import shown, stays_inside

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs")
_TRIES = timedelta(seconds=60)  # of Google's client, whose own limit is fifteen minutes
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_REFUSED = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY",
    "INVALID_CLIENT_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "HTTP status 401",
    "HTTP status 403",
    "Status(PERMISSION_DENIED",  # Google's
    "Status(UNAUTHENTICATED",
)
_ABSENT = (
    "NO_SUCH_BUCKET",
    "NO_SUCH_KEY",
    "RESOURCE_NOT_FOUND",
    "HTTP status 404",
    "Status(NOT_FOUND",
    "No such file or directory",
)
_KEYS = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS to a file of keys"}


def is_address(path: str) -> bool:
    """Whether a path of params is an address (`scheme://...`) and no path of this machine."""
    return _ADDRESS.match(path) is not None


class BucketFile(NamedTuple):
    """A file by its path below the address, its size in bytes, and when it was written in ns."""

    path: str
    size: int
    modified: int


@dataclass(frozen=True)
class Bucket:
    """A folder in a bucket: its address, the file system, and its path there."""

    address: str
    system: FileSystem
    path: str

    def files(self) -> list[BucketFile]:
        """All files below it, sorted by path.

        Raises:
            InputError: there is nothing at the address, or access is refused.
            ResourceError: the server cannot be reached.
        """
        from pyarrow.fs import FileSelector, FileType

        with told(self.address):
            found = self.system.get_file_info(FileSelector(self.path, recursive=True))
        files = [self._file(info) for info in found if info.type == FileType.File]
        for file in files:
            if not stays_inside(file.path):
                raise InputError(f"{self.address}: the name {shown(file.path)} leads out of the folder")
        return sorted(files)

    def now(self, file: BucketFile) -> BucketFile:
        """The file as it is now.

        Raises:
            InputError: it is gone.
        """
        from pyarrow.fs import FileType

        with told(f"{self.address}/{file.path}"):
            info = self.system.get_file_info(self._place(file))
        if info.type != FileType.File:
            raise InputError(f"{self.address}/{file.path} is gone")
        return self._file(info)

    def open(self, file: BucketFile) -> Any:
        """A file to read from, which can seek."""
        return self.system.open_input_file(self._place(file))

    def _place(self, file: BucketFile) -> str:
        return f"{self.path}/{file.path}"

    def _file(self, info: Any) -> BucketFile:
        return BucketFile(info.path.removeprefix(f"{self.path}/"), info.size, info.mtime_ns or 0)


def require_address(address: str) -> str:
    """The address without a slash at its end.

    Raises:
        ParamsError: it is no address of a bucket, or holds keys or options.
    """
    parts = urlsplit(address)
    if parts.scheme not in SCHEMES:
        known = " or ".join(f"{scheme}://bucket/folder" for scheme in SCHEMES)
        raise ParamsError(f"{address}: write {known}, or a folder of this machine")
    if "@" in parts.netloc or parts.query or parts.fragment or "${" in address or not address.isprintable():
        raise ParamsError(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: keys and options are no part of the "
            "address; they are variables of the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on)"
        )
    if not parts.netloc:
        raise ParamsError(f"{address} names no bucket")
    return address.rstrip("/")


def open_bucket(address: str) -> Bucket:
    """The folder at an address.

    Raises:
        ParamsError: as `require_address`.
        InputError, ResourceError: as `Bucket.files`.
    """
    from pyarrow.fs import FileSystem

    clean = require_address(address)
    with told(clean):
        if clean.startswith("gs://"):
            system, path = _google(), clean.removeprefix("gs://")
        else:
            system, path = FileSystem.from_uri(clean)
    return Bucket(clean, system, path.rstrip("/"))


def _google() -> FileSystem:
    from pyarrow.fs import GcsFileSystem

    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if not emulator:
        return GcsFileSystem(retry_time_limit=_TRIES)
    scheme, _, host = emulator.rpartition("://")
    return GcsFileSystem(anonymous=True, endpoint_override=host, scheme=scheme or "http", retry_time_limit=_TRIES)


@contextmanager
def told(address: str) -> Iterator[None]:
    """Turn what pyarrow raises into errors that say what to do."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{address}: nothing is there; correct the address") from None
    except (OSError, ValueError) as error:
        text = str(error)
        if any(mark in text for mark in _ABSENT):
            raise InputError(f"{address}: nothing is there; correct the address ({text})") from None
        if isinstance(error, PermissionError) or any(mark in text for mark in _REFUSED):
            raise InputError(
                f"{address}: access is refused; set {_KEYS[urlsplit(address).scheme]} of somebody who may read it "
                f"({text})"
            ) from None
        raise ResourceError(f"{address} cannot be read: {text}") from None
