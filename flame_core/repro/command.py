"""DVC's command line with six differences, started by `flame run` and by Dagster's steps.

    python -m flame_core.repro.command repro train@flame
    python -m flame_core.repro.command --no-wait repro train@flame    # a step waits by itself, and says so in its log

- It ends with the exit code of the stage that failed; DVC itself always ends with 255.
- If a disk refuses what DVC writes, it stops at once, says where and what to do, and ends with the code of that (5).
  DVC itself goes on without the file in its cache, may end with 0, and leaves what it has copied of the file.
- If another DVC process holds a lock or path, it names that process and waits (with `--no-wait` it ends).
  It releases what a dead process holds, even if the dead process is still listed (a zombie, as in containers whose
  first process does not reap its children).
- It writes `dvc.lock` and its list of paths in use whole, whenever it is killed or interrupted.
- It accepts outs in a folder that is a link to another disk, also in a git repository.
- If the process that started it is killed, it stops the stage in order (`process_trees/tree.py`) and ends.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rich.markup import escape

from flame_core.dvc_project.linked_outs import allow_linked_outs
from flame_core.dvc_project.repo import busy_path, busy_with, held_paths, release_dead
from flame_core.dvc_project.stage_processes import NO_WAIT
from flame_core.dvc_project.whole_files import write_whole
from flame_core.errors import ResourceError
from flame_core.files.disk_errors import clear_disk_errors, disk_error
from flame_core.process_trees.tree import TOKEN, ProcessTree
from flame_core.reporting import console
from flame_core.settings import settings

_EXITED = re.compile(r", exited with (-?\d+)\Z")
_WAIT_SECONDS = 1.0  # between two attempts
_LOOKS = 60  # at held paths that stay the same, until the next attempt: the one that was in the way may be free
_PARENT_SECONDS = 0.5  # between two checks that the parent still runs
_SIGNALLED = 128  # what a shell adds to the number of the signal that ended a command


class _Seen(logging.Filter):
    """Catches the error that DVC's command line is about to log; lets none through that is waited for or told here."""

    def __init__(self, waits: bool) -> None:
        super().__init__()
        self.waits = waits
        self.chain: list[BaseException] = []

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        self.chain = []
        while error is not None and error not in self.chain:
            self.chain.append(error)
            error = error.__cause__ or error.__context__
        return not (self.locked or self.refused)

    @property
    def locked(self) -> BaseException | None:
        """The error, if another process holds a lock or path and is to be waited for."""
        from dvc.lock import LockError

        if not self.waits:
            return None
        return next((error for error in self.chain if isinstance(error, LockError)), None)

    @property
    def stage_code(self) -> int | None:
        """The exit code of the command that failed, if that was the error."""
        from dvc.stage.exceptions import StageCmdFailedError

        failed = next((error for error in self.chain if isinstance(error, StageCmdFailedError)), None)
        found = failed and _EXITED.search(str(failed))
        return int(found[1]) if found else None

    @property
    def refused(self) -> ResourceError | None:
        """What a disk refused DVC itself, if that was the error."""
        if self.stage_code is not None:  # the stage has told its own
            return None
        return next((each for each in map(_refusal, self.chain) if each is not None), None)


def dvc(arguments: list[str], *, waits: bool = True) -> int:
    """Run DVC's command line in this process and project; returns the exit code described above."""
    from dvc.cli import main
    from dvc_objects.fs.local import FsspecLocalFileSystem

    write_whole()
    allow_linked_outs()
    FsspecLocalFileSystem.put_file = _put_file
    logging.getLogger("dvc_data.hashfile.transfer").addFilter(_refused_copy)
    logger, said = logging.getLogger("dvc.cli"), ""
    while True:
        seen = _Seen(waits)
        logger.addFilter(seen)
        try:
            code = main(arguments)
        finally:
            logger.removeFilter(seen)
        if code == 0:
            return 0
        if locked := seen.locked:
            if (busy := busy_with(locked, Path.cwd())) != said:
                console.print(f"waiting for another DVC process: {busy}", markup=False, soft_wrap=True)
            said = busy
            _wait(of_path=busy_path(str(locked)) is not None)
            continue
        if refused := seen.refused:
            console.print(f"[bold red]error:[/] {escape(str(refused))}", highlight=False, soft_wrap=True)
            return refused.exit_code
        stage = seen.stage_code
        return code if stage is None else _SIGNALLED - stage if stage < 0 else stage


def _refusal(error: BaseException | None) -> ResourceError | None:
    """What to tell the user if an error is a disk's."""
    if isinstance(error, OSError):
        return disk_error(error, None if error.filename else Path.cwd())
    return error if isinstance(error, ResourceError) else None


def _refused_copy(record: logging.LogRecord) -> bool:
    """Raise what DVC is about to log of a file that the disk did not take into the cache; it would go on without it."""
    if record.exc_info and (refused := _refusal(record.exc_info[1])) is not None:
        raise refused
    return True


def _put_file(self: Any, lpath: str, rpath: str, callback: Any = None, **_: Any) -> None:
    """Copy a file into DVC's cache as DVC does, but leave no part of it if this fails: each try would add one."""
    from dvc_objects.fs.utils import copyfile, tmp_fname
    from fsspec.callbacks import DEFAULT_CALLBACK

    place = Path(rpath)
    with clear_disk_errors(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(tmp_fname())
        try:
            copyfile(lpath, str(part), callback=callback or DEFAULT_CALLBACK)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)


def _wait(*, of_path: bool) -> None:
    """Wait a moment; for a path that is held, until others are, or a minute: each attempt tells of all stages anew."""
    for _ in range(_LOOKS):
        before = held_paths(Path.cwd())
        for dead in release_dead(Path.cwd()):
            console.print(f"released the lock of {dead}, which has ended", markup=False, soft_wrap=True)
        time.sleep(_WAIT_SECONDS)
        if not of_path or not before or held_paths(Path.cwd()) != before:
            return


def _end_with(parent: int, token: str) -> None:
    """Stop the stage when the parent is gone, or was before this process could know it."""
    tree = ProcessTree.of(token)
    while os.getppid() == parent and not tree.is_abandoned():
        time.sleep(_PARENT_SECONDS)
    tree.stop(os.getpid(), settings().stop_grace_seconds, lambda line: None)


def main() -> None:
    """Run DVC with this process's arguments."""
    waits = sys.argv[1:2] != [NO_WAIT]
    if tokens := os.environ.get(TOKEN, "").split():
        threading.Thread(target=_end_with, args=(os.getppid(), tokens[-1]), daemon=True).start()
    try:
        code = dvc(sys.argv[1:] if waits else sys.argv[2:], waits=waits)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
