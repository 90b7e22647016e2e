"""What the hub says about a data set, and its files.

Every file is verified: by its sha256 if it is stored as LFS or Xet, by its git blob id otherwise. The token is
`HF_TOKEN`; one that is stored on the machine is not used. The library goes on where a body was cut; a killed run
fetches again the files that it was at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flame_core.digest import file_sha256
from flame_core.errors import FlameError, InputError, ResourceError
from flame_core.names import shown, stays_inside

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class HubFile:
    """A file of a data set at a commit: `sha256` of an LFS or Xet file, else None."""

    path: str
    size: int
    sha256: str | None
    blob_id: str


@dataclass(frozen=True)
class HubTree:
    """All files of a data set at a commit, sorted by path, and the licence of its card."""

    commit: str
    licence: str | None
    files: tuple[HubFile, ...]


def find_commit(repo: str, revision: str) -> tuple[str, str | None]:
    """The commit that a revision is now, and the licence of its card.

    Raises:
        InputError: there is no such data set or revision, or it needs a token.
        ResourceError: the hub does not answer.
    """
    with _clear_errors(repo, f"revision {shown(revision)}"):
        about = _api().dataset_info(repo, revision=revision)
    if not about.sha:
        raise ResourceError(f"hub data set {repo}: the hub does not say which commit {shown(revision)} is")
    licence = about.card_data.get("license") if about.card_data else None
    names = licence if isinstance(licence, list) else [licence]
    return about.sha, ", ".join(name for name in names if isinstance(name, str)) or None


def read_tree(repo: str, commit: str) -> list[HubFile]:
    """All files of a data set at a commit.

    Raises:
        InputError: a name leads out of the data set's folder, or as `find_commit`.
        ResourceError: the hub does not answer.
    """
    from huggingface_hub.hf_api import RepoFile

    with _clear_errors(repo, f"commit {commit}"):
        entries = list(_api().list_repo_tree(repo, recursive=True, revision=commit, repo_type="dataset"))
    files = []
    for entry in entries:
        if isinstance(entry, RepoFile):
            if not stays_inside(entry.path):
                raise InputError(f"hub data set {repo}: a file of it is called {shown(entry.path)}")
            files.append(HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id))
    return sorted(files, key=lambda file: file.path)


def fetch_file(repo: str, commit: str, file: HubFile, folder: Path) -> Path:
    """Fetch a file into a folder of its own, where the library also leaves notes; returns its place.

    Raises:
        InputError: the file is not there, or the data set needs a token.
        ResourceError: the hub does not answer, or sends other bytes.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with _clear_errors(repo, f"file {shown(file.path)}"):
        fetched = Path(_api().hf_hub_download(repo, file.path, repo_type="dataset", revision=commit, local_dir=folder))
    if fetched.stat().st_size != file.size or _digest(fetched, file) != (file.sha256 or file.blob_id):
        raise ResourceError(
            f"hub data set {repo}: the bytes that came for {shown(file.path)} are not those that the hub lists at "
            f"{commit[:12]}; they were removed. Run the same command again: files that are good are kept"
        )
    return fetched


def _digest(path: Path, file: HubFile) -> str:
    """sha256 of the bytes, or their git blob id if the hub knows no sha256."""
    if file.sha256:
        return file_sha256(path)
    with path.open("rb") as content:
        blob = partial(hashlib.sha1, b"blob %d\0" % file.size, usedforsecurity=False)
        return hashlib.file_digest(content, blob).hexdigest()


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES:
        raise _Offline
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=os.environ.get("HF_TOKEN") or False)


class _Offline(Exception):
    """`HF_HUB_OFFLINE` is set."""


@contextmanager
def _clear_errors(repo: str, what: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    of_client = cast("type[Exception]", HfHubHTTPError.__bases__[0])  # of the HTTP client that the library uses
    try:
        yield
    except (_Offline, OfflineModeIsEnabled):
        raise ResourceError(
            f"hub data set {repo}: its {what} has to be asked for, and HF_HUB_OFFLINE is set. Unset it, or run where "
            "the data set was fetched before; with a commit as `revision` nothing is asked for that is there"
        ) from None
    except HFValidationError as error:
        raise InputError(f"hub data set {repo}: {error}") from None
    except (OSError, of_client) as error:
        raise _told(repo, what, error) from error


def _told(repo: str, what: str, error: BaseException) -> FlameError:
    from huggingface_hub import errors

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)

    def is_a(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    if is_a(errors.GatedRepoError):
        return InputError(
            f"hub data set {repo} is gated: accept its conditions on its page, and set HF_TOKEN to a token of that "
            f"account ({token})"
        )
    if is_a(errors.RevisionNotFoundError):
        return InputError(f"hub data set {repo} has no {what}")
    if is_a(errors.RepositoryNotFoundError):
        return InputError(f"there is no hub data set {repo}, or it is private and {token}")
    if is_a(errors.RemoteEntryNotFoundError):
        return InputError(f"hub data set {repo} has no {what}")
    response = next((found for cause in causes if (found := getattr(cause, "response", None)) is not None), None)
    if response is not None:
        if response.status_code in (401, 403):
            return InputError(f"hub data set {repo}: the hub refuses its {what} ({response.status_code}; {token})")
        return ResourceError(
            f"hub data set {repo}: the hub answers with status {response.status_code}; try again later"
        )
    return ResourceError(
        f"hub data set {repo}: its {what} cannot be had from the hub ({type(causes[-1]).__name__}: "
        f"{str(causes[-1])[:200]}). Is there a network? Run the same command again: files that are good are kept"
    )
