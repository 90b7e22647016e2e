"""Deletes single objects from DVC's cache and its remotes, for any DVC project. DVC has no command for that.

An object is a file's bytes under its md5. Listings of folders (`.dir`) stay, so other files of that revision can still
be restored.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flame_core.dvc_project.repo import opened

Holds = Callable[[Path], bool]


@dataclass
class Deleted:
    """Objects by the name of the remote, and remotes that could not be reached, with the reason."""

    objects: dict[str, list[str]] = field(default_factory=dict)
    unreached: dict[str, str] = field(default_factory=dict)


def delete_cached(
    cache: Path, md5s: Iterable[str], holds: Holds, *, delete: bool, refused: list[str] | None = None
) -> list[str]:
    """Delete (or only find) the objects of a local cache with these md5s or for which `holds`; returns their md5s.

    What the disk does not let go, as in a cache of several users, is added to `refused` with the reason.
    """
    wanted, found = set(md5s), list[str]()
    for path in sorted(cache.glob("??/*")):
        if path.suffix == ".dir" or not path.is_file():
            continue
        md5 = path.parent.name + path.name
        try:
            if md5 not in wanted and not holds(path):
                continue
            found.append(md5)
            if delete:
                path.unlink(missing_ok=True)  # its mode does not matter: links to it may be another project's
        except FileNotFoundError:  # removed by another process, which may be writing another object
            continue
        except OSError as error:
            if refused is None:
                raise
            refused.append(f"{path}: {error.strerror}")
    return found


def delete_remote(
    root: Path, folder: Path, md5s: Iterable[str], known: Iterable[str], holds: Holds, *, delete: bool
) -> Deleted:
    """Delete (or only find) objects of every remote of the project.

    Args:
        root: the project's folder.
        folder: for the object that is looked at.
        md5s: of objects to delete.
        known: md5s of objects that need no look, because the local cache has them. Others are fetched and looked at.
        holds: whether a fetched file is to be deleted.
        delete: whether to delete.
    """
    wanted, seen = set(md5s), set(known)
    done = Deleted()
    place = folder / "object"
    with opened(root) as repo:
        for name in sorted(repo.config["remote"]):
            found: list[str] = []
            try:
                odb = repo.cloud.get_remote_odb(name)
                for md5 in list(odb.all()):
                    if md5.endswith(".dir"):
                        continue
                    held = md5 in wanted
                    if not held and md5 not in seen:
                        with odb.fs.open(odb.oid_to_path(md5), "rb") as source, place.open("wb") as copy:
                            shutil.copyfileobj(source, copy)
                        held = holds(place)
                    if held:
                        found.append(md5)
                        if delete:
                            odb.fs.remove(odb.oid_to_path(md5))
            except Exception as error:  # each kind of storage has its own
                done.unreached[name] = f"{type(error).__name__}: {error}"
            done.objects[name] = found
    return done
