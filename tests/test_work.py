"""The work cache: whole or not at all, verified byte for byte, recomputed when it rotted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flame_core.digest import file_sha256
from flame_core.errors import InputError, ResourceError
from flame_core.work import UnitRecord, WorkCache, clear_disk_errors, gather
from tests.bits import flip


def writer(calls: list[int], text: str = "result", failures: dict[str, str] | None = None):
    def write(folder):
        calls.append(1)
        (folder / "out.bin").write_text(text)
        return UnitRecord({"samples": 3}, failures or {})

    return write


def test_a_unit_is_computed_once(tmp_path):
    cache, calls = WorkCache(tmp_path, "embed"), []
    first = cache.get({"input": "a"}, writer(calls))
    again = cache.get({"input": "a"}, writer(calls))
    assert (first.computed, again.computed, len(calls)) == (True, False, 1)
    assert again.file("out.bin").read_text() == "result"
    assert again.names() == ["out.bin"]
    assert again.record == UnitRecord({"samples": 3}, {})


def test_other_inputs_or_another_stage_are_another_unit(tmp_path):
    calls: list[int] = []
    WorkCache(tmp_path, "embed").get({"input": "a"}, writer(calls))
    WorkCache(tmp_path, "embed").get({"input": "b"}, writer(calls))
    WorkCache(tmp_path, "caption").get({"input": "a"}, writer(calls))
    assert len(calls) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "ledger"])
def test_a_damaged_unit_is_computed_again(tmp_path, damage):
    cache, calls = WorkCache(tmp_path, "embed"), []
    unit = cache.get({"input": "a"}, writer(calls))
    path = unit.file("ledger.json" if damage == "ledger" else "out.bin")
    if damage == "flip":
        path.write_text("resulT")
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    again = cache.get({"input": "a"}, writer(calls))
    assert (again.computed, again.file("out.bin").read_text(), len(calls)) == (True, "result", 2)


def test_no_flipped_bit_of_a_ledger_changes_what_it_says(tmp_path):
    cache, calls = WorkCache(tmp_path, "embed"), []
    unit = cache.get({"input": "a"}, writer(calls, failures={"key": "empty answer"}))
    path = unit.file("ledger.json")
    content = path.read_bytes()
    for place in range(len(content)):
        flip(path, place, place % 8)
        again = cache.get({"input": "a"}, writer(calls, failures={"key": "empty answer"}))
        assert (again.record, again.sha256) == (unit.record, unit.sha256)
        path.write_bytes(content)
    assert len(calls) > len(content) * 0.9


def test_a_failing_unit_leaves_nothing(tmp_path):
    cache = WorkCache(tmp_path, "embed")

    def fail(folder):
        (folder / "out.bin").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cache.get({"input": "a"}, fail)
    assert list((tmp_path / "embed").iterdir()) == []


def test_retry_failed_computes_only_units_with_failures(tmp_path):
    calls: list[int] = []
    WorkCache(tmp_path, "caption").get({"input": "a"}, writer(calls, failures={"key": "empty answer"}))
    WorkCache(tmp_path, "caption").get({"input": "b"}, writer(calls))
    retry = WorkCache(tmp_path, "caption", retry_failed=True)
    assert retry.get({"input": "a"}, writer(calls)).computed
    assert not retry.get({"input": "b"}, writer(calls)).computed
    assert len(calls) == 3


def test_gather_links_files_and_replaces_the_old_out(tmp_path):
    unit = WorkCache(tmp_path / "work", "embed").get({"input": "a"}, writer([]))
    out = tmp_path / "data" / "out"
    gather(out, tmp_path, {"train/0.bin": unit.file("out.bin")}, {"note.txt": b"one"})
    gather(out, tmp_path, {"train/1.bin": unit.file("out.bin")})
    assert [path.relative_to(out).as_posix() for path in sorted(out.rglob("*"))] == [
        "digests.json",
        "train",
        "train/1.bin",
    ]
    assert json.loads((out / "digests.json").read_text()) == {"train/1.bin": file_sha256(out / "train/1.bin")}
    assert (out / "train/1.bin").samefile(unit.file("out.bin"))


@pytest.fixture
def other_disk():
    """A folder on another file system than the temporary one."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("this machine has one file system")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.mark.parametrize("linked", ["data", ".flame", "data/out", "data/models"])
def test_data_and_state_may_lie_on_different_file_systems(tmp_path, other_disk, linked):
    unit = WorkCache(tmp_path / ".flame" / "work", "embed").get({"input": "a"}, writer([]))
    (tmp_path / "data").mkdir()
    place = tmp_path / linked
    if linked == ".flame":
        shutil.move(place, other_disk / "moved")
    else:
        (other_disk / "moved").mkdir()
        shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(other_disk / "moved")
    out = tmp_path / ("data/models/out" if linked == "data/models" else "data/out")
    for name in ("one", "two"):
        gather(out, tmp_path / ".flame", {f"{name}/0.bin": unit.file("out.bin")}, {f"{name}.txt": b"x"})
        found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        assert found == ["digests.json", f"{name}.txt", f"{name}/0.bin"]
    assert place.is_symlink()  # nobody's link is replaced by a folder on the small disk
    assert not list((tmp_path / "data").rglob(".gather"))


@pytest.fixture
def readable():
    """A temporary folder that any user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("where", ["data", ".flame"])
def test_a_folder_that_may_not_be_written_is_named(readable, where):
    """As another user in a process of its own, since root may write anywhere."""
    for name in ("data", ".flame"):
        (readable / name).mkdir()
        (readable / name).chmod(0o555 if name == where else 0o777)
    code = (
        "import os, sys; from pathlib import Path; from flame_core.work import WorkCache, UnitRecord, gather\n"
        "from flame_core.errors import ResourceError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "root = Path(sys.argv[1])\n"
        "try:\n"
        "    WorkCache(root / '.flame/work', 'embed').get({}, lambda folder: UnitRecord())\n"
        "    gather(root / 'data/out', root / '.flame', {}, {'a': b'b'})\n"
        "except ResourceError as error:\n"
        "    print(error.exit_code, error)\n"
    )
    command = [sys.executable, "-c", code, str(readable)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.startswith(f"5 {readable / where}: "), done.stdout
    assert "Permission denied. This user may not" in done.stdout


def test_no_room_on_the_disk_says_where(tmp_path):
    with pytest.raises(ResourceError, match=r"embeddings.*No space left"), clear_disk_errors(tmp_path / "embeddings"):
        raise OSError(28, os.strerror(28))


def test_what_a_killed_process_left_is_removed(tmp_path):
    import multiprocessing
    import socket

    child = multiprocessing.get_context("spawn").Process(target=int)
    child.start()
    child.join()
    left = tmp_path / "embed" / f".tmp-{socket.gethostname()}-{child.pid}-abc"
    (left / "half").mkdir(parents=True)
    WorkCache(tmp_path, "embed").get({"input": "a"}, writer([]))
    assert not left.exists()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", "a//b", "", "a\0b", "b/file/inside"])
def test_nothing_is_gathered_outside_the_out(tmp_path, name):
    out, state = tmp_path / "project/out", tmp_path / "project/.flame"
    gather(out, state, {}, {"a": b"before"})
    with pytest.raises(InputError, match="out: "):
        gather(out, state, {}, {"b/file": b"1", name: b"2"})
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["project/out/a", "project/out/digests.json"]
