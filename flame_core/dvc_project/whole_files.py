"""DVC whose own files are written whole: `dvc.lock`, and `.dvc/tmp/rwlock`, its list of the paths in use.

    python -m flame_core.dvc_project.whole_files repro --single-item train@flame

DVC writes both in place. If it is killed or interrupted just then, half of the file is there, which it then refuses in
every command. Here a file is written beside its place and renamed. A list of paths that another DVC has left cut counts
as empty, since it only tells of processes at work. DVC also fails at a folder of the run cache whose runs are gone, and
itself removes one that was left cut; here such a folder holds none.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_whole() -> None:
    """From now on, DVC in this process writes these files whole, and takes an empty folder for no run."""
    from dvc import rwlock
    from dvc.stage.cache import StageCache
    from dvc.utils.serialize import _common, _yaml

    rwlock._edit_rwlock = edit_held_paths
    load = StageCache._load_cache  # called without a value where a folder is empty
    StageCache._load_cache = lambda self, key, value: load(self, key, value) if value else None
    _common._dump_data = _yaml._dump_data = _dump_data


def replace_whole(path: Path, text: str) -> None:
    """Write a file beside its place and rename it; a link stays one, and the file's mode is kept.

    The caller holds DVC's lock of it.
    """
    place = path.resolve()
    beside = place.with_name(f".{place.name}.new")
    try:
        beside.write_text(text, "utf-8")
        with suppress(FileNotFoundError):  # it is new
            shutil.copymode(place, beside)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)  # as on a full disk


@contextmanager
def edit_held_paths(lock_dir: Any, fs: Any, hardlink: bool) -> Iterator[dict[str, Any]]:
    """As `dvc.rwlock._edit_rwlock`: the content of the list, which is written when the context ends."""
    from dvc import rwlock

    path = Path(lock_dir) / rwlock.RWLOCK_FILE
    with rwlock.make_lock(fs.join(lock_dir, rwlock.RWLOCK_LOCK), tmp_dir=lock_dir, hardlink_lock=hardlink):
        try:
            found = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            found = {}
        try:
            lock: Any = rwlock.SCHEMA(found)
        except rwlock.Invalid as error:
            raise rwlock.RWLockFileFormatError(path) from error
        lock["read"] = defaultdict(list, lock["read"])
        lock["write"] = defaultdict(dict, lock["write"])
        yield lock
        replace_whole(path, json.dumps(lock))


def _dump_data(path: Any, data: Any, dumper: Callable[..., Any], fs: Any = None, **options: Any) -> None:
    """As `dvc.utils.serialize._common._dump_data`, by which DVC writes `dvc.lock`."""
    stream = io.StringIO()
    dumper(data, stream, **options)
    if getattr(fs, "protocol", "local") == "local":
        replace_whole(Path(path), stream.getvalue())
        return
    with fs.open(path, "w+", encoding="utf-8") as file:
        file.write(stream.getvalue())


def main() -> None:
    """DVC's command line."""
    from dvc.cli import main as dvc

    write_whole()
    sys.exit(dvc(sys.argv[1:]))


if __name__ == "__main__":
    main()
