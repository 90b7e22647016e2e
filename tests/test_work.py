"""The work cache: whole or not at all, verified byte for byte, recomputed when it rotted."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from flame_core.digest import file_sha256
from flame_core.errors import InputError, ResourceError
from flame_core.files import whole_folders
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_folders import node_id, scratch, scratch_below
from flame_core.work import UnitRecord, WorkCache, gather
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


def test_many_units_are_found_as_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("flame_core.work.hashing_threads", lambda: 3)
    cache, calls = WorkCache(tmp_path, "embed"), []
    digests = {number: cache.digest({"input": number // 2}) for number in range(100)}  # two names each
    for number in (*range(0, 40), *range(50, 100)):
        failures = {"k": "why"} if number == 60 else {}
        if number % 2 == 0:
            cache.compute(digests[number], writer(calls, f"result {number}", failures))
    (tmp_path / "embed" / digests[20] / "out.bin").write_text("resulT 20")
    for asked in (cache, WorkCache(tmp_path, "embed", retry_failed=True)):
        found = asked.find_all(digests)
        missing = {20, 21, *range(40, 50)} | ({60, 61} if asked.retry_failed else set())
        assert list(found) == [number for number in digests if number not in missing]
        assert found == {name: asked.find(digest) for name, digest in digests.items() if name in found}
        assert found[98].file("out.bin").read_text() == "result 98" and not found[98].computed
    assert not (tmp_path / "embed" / digests[20]).exists()  # damaged
    assert cache.find_all({}) == {}


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


def test_a_retry_that_fails_or_is_killed_leaves_the_unit(tmp_path):
    failing = {"key": "empty answer"}
    old = WorkCache(tmp_path, "caption").get({"input": "a"}, writer([], failures=failing))
    retry = WorkCache(tmp_path, "caption", retry_failed=True)

    def fail(folder):
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        retry.get({"input": "a"}, fail)
    assert WorkCache(tmp_path, "caption").find(old.folder.name) == replace(old, computed=False)
    retry.get({"input": "a"}, writer([], "better"))
    assert WorkCache(tmp_path, "caption").get({"input": "a"}, fail).file("out.bin").read_text() == "better"


def carry(folder, previous):
    """Rows `good` and `new`: `good` is taken from the last generation."""
    good = previous.file("good").read_text() if previous else "first"
    (folder / "good").write_text(good)
    return UnitRecord({"generation": previous.record.counts["generation"] + 1 if previous else 1}, {"new": "timeout"})


def test_a_unit_is_mended_with_what_was_good(tmp_path):
    cache = WorkCache(tmp_path, "download")
    generations = [cache.mend("d", carry, again).record.counts["generation"] for again in (None, None, lambda _: True)]
    retried = WorkCache(tmp_path, "download", retry_failed=True).mend("d", carry)
    assert generations == [1, 1, 2]
    assert (retried.record.counts["generation"], retried.computed) == (3, True)
    assert [path.name for path in (tmp_path / "download").iterdir()] == ["d"]


def test_a_damaged_unit_is_mended_too(tmp_path):
    cache = WorkCache(tmp_path, "download")
    cache.mend("d", carry)
    (tmp_path / "download" / "d" / "good").write_text("flipp")
    assert cache.mend("d", carry).record.counts["generation"] == 2
    (tmp_path / "download" / "d" / "ledger.json").write_text("{")
    assert cache.mend("d", carry).record.counts["generation"] == 1


@pytest.mark.parametrize("gone", [True, False])
def test_a_kill_between_two_generations_loses_neither(tmp_path, gone):
    cache = WorkCache(tmp_path, "download")
    cache.mend("d", carry)
    cache.mend("other", carry, lambda _: True)
    (tmp_path / "download" / "other").rename(tmp_path / "download" / "d.next")
    if gone:
        (tmp_path / "download" / "d").rename(tmp_path / "elsewhere")
    assert cache.find("d") is not None
    assert [path.name for path in (tmp_path / "download").iterdir()] == ["d"]


def test_scratch_folders_of_another_machine_stay_until_they_are_old(tmp_path):
    """Its processes have other ids, even if it has the same host name."""
    nobody = 2**22 + 1  # above the largest process id
    foreign, mine = f".tmp-0123456789ab-{nobody}-x", f".tmp-{node_id()}-{nobody}-x"
    old, of_the_user = ".tmp-0123456789ab-1-old", ".tmp-pictures"
    for name in (foreign, mine, old, of_the_user):
        (tmp_path / name / "half").mkdir(parents=True)
    eight_days_ago = time.time() - 8 * 86400
    for name in (old, of_the_user):
        for path in (tmp_path / name / "half", tmp_path / name):
            os.utime(path, (eight_days_ago, eight_days_ago))
    with scratch(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {foreign, of_the_user, folder.name}


def test_scratch_folders_below_a_folder_of_very_many_entries(tmp_path):
    nobody = 2**22 + 1
    killed, foreign, old = f".tmp-{node_id()}-{nobody}-x", f".tmp-0123456789ab-{nobody}-x", ".tmp-0123456789ab-1-old"
    living = f".tmp-{node_id()}-{os.getpid()}-x"
    for name in (killed, foreign, old, living):
        (tmp_path / ".tmp" / name / "half").mkdir(parents=True)
    eight_days_ago = time.time() - 8 * 86400
    for path in (tmp_path / ".tmp" / old / "half", tmp_path / ".tmp" / old):
        os.utime(path, (eight_days_ago, eight_days_ago))
    with scratch_below(tmp_path) as folder:
        assert {path.name for path in (tmp_path / ".tmp").iterdir()} == {foreign, living, folder.name}
        (folder / "made").touch()
        folder.rename(tmp_path / "whole")
    assert {path.name for path in (tmp_path / ".tmp").iterdir()} == {foreign, living}
    for name in (foreign, living):
        shutil.rmtree(tmp_path / ".tmp" / name)
    with scratch_below(tmp_path):
        assert [path.name for path in tmp_path.iterdir() if path.name != ".tmp"] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def _in_scratch_folders(parent):
    for _ in range(1500):
        with scratch_below(parent) as folder:
            (folder / "made").touch()


def test_processes_that_begin_and_end_at_the_same_moment_do_not_trip_over_each_other(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_in_scratch_folders, [tmp_path] * 4)
    assert not list(tmp_path.iterdir())


def test_units_are_computed_without_a_look_at_all_others(tmp_path):
    """A folder of a million units is listed once in a process, not for each unit."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from flame_core.work import UnitRecord, WorkCache\n"
        "root, listed = Path(sys.argv[1]), []\n"
        "lists = ('os.scandir', 'os.listdir')\n"
        "sys.addaudithook(lambda event, args: listed.append(args[0]) if event in lists else None)\n"
        "for number in range(30):\n"
        "    WorkCache(root, 'embed').get({'input': number % 20}, lambda folder: UnitRecord({}, {'a': 'b'}))\n"
        "retry = WorkCache(root, 'embed', retry_failed=True)\n"
        "for number in range(20):\n"
        "    retry.get({'input': number}, lambda folder: UnitRecord())\n"
        "    retry.remove(retry.digest({'input': number}))\n"
        "print(sum(isinstance(place, (str, Path)) and Path(place) == root / 'embed' for place in listed))\n"
    )
    (tmp_path / "embed").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout == "1\n", done.stderr
    assert not list((tmp_path / "embed").iterdir())


def test_many_compute_units_of_a_stage_at_once(tmp_path):
    """The folder of scratch folders comes and goes meanwhile."""

    def compute(number):
        return WorkCache(tmp_path, "embed").get({"input": number}, writer([])).folder

    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(compute, range(200)))
    assert set((tmp_path / "embed").iterdir()) == folders and len(folders) == 200


@pytest.mark.parametrize("step", [1, 2])
def test_an_out_is_there_whenever_its_replacement_is_killed(tmp_path, monkeypatch, step):
    for name in "ab":
        (tmp_path / name).mkdir()
    if not whole_folders._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system does not exchange names")
    out, steps = tmp_path / "data/out", iter(range(1, 100))
    gather(out, tmp_path, {}, {"file": b"old"})

    def dying(move):
        def moved(*arguments):
            done = move(*arguments)
            if next(steps) == step:
                raise KeyboardInterrupt
            return done

        return moved

    monkeypatch.setattr(Path, "rename", dying(Path.rename))
    monkeypatch.setattr(whole_folders, "_exchange", dying(whole_folders._exchange))
    with suppress(KeyboardInterrupt):
        gather(out, tmp_path, {}, {"file": b"new"})
    assert next(steps) > 1
    assert (out / "file").read_bytes() == b"new"


def test_an_out_is_replaced_where_names_are_not_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_folders, "_exchange", lambda one, other: False)
    for content in (b"old", b"new"):
        gather(tmp_path / "data/out", tmp_path / ".flame", {}, {"file": content})
    assert (tmp_path / "data/out/file").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["out"]
    assert list((tmp_path / ".flame/gather").iterdir()) == []


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
        "import os, sys; from pathlib import Path\n"
        "from flame_core.work import WorkCache, UnitRecord, gather, stage_versions\n"
        "from flame_core.errors import ResourceError\n"
        "stage_versions()\n"  # read while it may be: the repository may lie in root's home
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

    child = multiprocessing.get_context("spawn").Process(target=int)
    child.start()
    child.join()
    left = tmp_path / "embed" / f".tmp-{node_id()}-{child.pid}-abc"
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
