"""Copies of a bucket's files, here a folder through the same interface of pyarrow: whole, continued, within a limit."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from pyarrow.fs import LocalFileSystem

from flame_core.data.buckets import staging
from flame_core.data.buckets.bucket import Bucket, BucketFile, is_address, open_bucket, told
from flame_core.data.buckets.staging import Stage
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.settings import settings
from tests.stages.pipeline import tree


@pytest.fixture(autouse=True)
def stage_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FLAME_STAGE_DIR", str(tmp_path / "stage"))
    settings.cache_clear()
    yield tmp_path / "stage"
    staging.release()


def bucket_of(folder: Path, **files: bytes) -> Bucket:
    """A bucket with these files at s3://test/<name of the folder>; `__` in a name is a slash, and it ends in .tar."""
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Bucket(f"s3://test/{folder.name}", LocalFileSystem(), str(folder))


def stage_of(bucket: Bucket) -> Stage:
    return Stage(bucket.address, "**/*.tar")


class Counted(Bucket):
    """A bucket that counts the bytes that are read from it."""

    read: list[int]

    def open(self, file: BucketFile):
        source, read = super().open(file), self.__dict__.setdefault("read", [])

        class Reader:
            def __enter__(self):
                return self

            def __exit__(self, *_: object) -> None:
                source.close()

            def seek(self, place: int) -> None:
                source.seek(place)

            def read(self, count: int) -> bytes:
                if len(read) == 2:
                    raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")
                piece = source.read(count)
                read.append(len(piece))
                return piece

        return Reader()


def test_all_files_are_copied_once_with_their_digests(tmp_path):
    bucket = bucket_of(tmp_path / "b", one=b"1" * 5000, sub__two=b"2" * 70)
    stage, files = stage_of(bucket), bucket.files()
    assert [(file.path, file.size) for file in files] == [("one.tar", 5000), ("sub/two.tar", 70)]
    found = stage.fetch(bucket, files)
    assert tree(stage.files) == tree(tmp_path / "b")
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in tree(stage.files).items()}
    written = (stage.files / "one.tar").stat().st_mtime_ns
    assert stage.fetch(bucket, files) == found and (stage.files / "one.tar").stat().st_mtime_ns == written
    assert stage.fetch(bucket, files[1:]) == {"sub/two.tar": found["sub/two.tar"]}
    assert set(tree(stage.files)) == {"sub/two.tar"}  # what is not wanted any more goes


def test_a_broken_copy_is_continued_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_PIECE", 100)
    content = os.urandom(1050)
    whole = bucket_of(tmp_path / "b", one=content)
    broken = Counted(whole.address, whole.system, whole.path)
    stage, files = stage_of(whole), whole.files()
    with pytest.raises(ResourceError, match=r"s3://test/b/one\.tar cannot be read: AWS Error NETWORK_CONNECTION"):
        stage.fetch(broken, files)
    assert not (stage.files / "one.tar").exists()
    (part,) = (stage.place / "parts").iterdir()
    assert part.read_bytes() == content[:200]
    with (stage.place / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"path": "one.tar", "si')  # of a killed process
    (stage.place / "parts" / "of an earlier state").write_bytes(b"x")
    broken.__dict__["read"] = [0] * 3  # does not break again
    found = stage.fetch(broken, files)
    assert sum(broken.__dict__["read"]) == 850
    assert (stage.files / "one.tar").read_bytes() == content and not list((stage.place / "parts").iterdir())
    assert stage.fetch(whole, files) == found == {"one.tar": hashlib.sha256(content).hexdigest()}


def test_what_changed_in_the_bucket_or_was_deleted_here_is_copied_again(tmp_path):
    bucket = bucket_of(tmp_path / "b", one=b"first", two=b"second")
    stage = stage_of(bucket)
    before = stage.fetch(bucket, bucket.files())
    bucket_of(tmp_path / "b", one=b"other")
    os.utime(tmp_path / "b" / "one.tar", (1, 1))
    (stage.files / "two.tar").unlink()
    after = stage.fetch(bucket, bucket.files())
    assert tree(stage.files) == {"one.tar": b"other", "two.tar": b"second"}
    assert after["one.tar"] != before["one.tar"] and after["two.tar"] == before["two.tar"]


def test_a_file_that_changes_while_it_is_copied_and_one_with_another_digest_are_refused(tmp_path):
    bucket = bucket_of(tmp_path / "b", one=b"first")
    stage, files = stage_of(bucket), bucket.files()
    os.utime(tmp_path / "b" / "one.tar", (1, 1))
    with pytest.raises(InputError, match=r"b/one\.tar changed while it was copied; run the same command again"):
        stage.fetch(bucket, files)
    wrong = "0" * 64
    with pytest.raises(InputError, match=rf"one\.tar: its sha256 is [0-9a-f]{{64}}, and {wrong} was recorded"):
        stage.fetch(bucket, bucket.files(), {"one.tar": wrong})
    assert not list(stage.files.rglob("*.tar")) and not list((stage.place / "parts").iterdir())


def test_copies_that_were_used_longest_ago_make_room(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAME_STAGE_BYTES", "7000")
    settings.cache_clear()
    buckets = [bucket_of(tmp_path / f"b{number}", one=bytes([number]) * 2500) for number in range(3)]
    stages = [stage_of(bucket) for bucket in buckets]
    for number in (1, 0):
        stages[number].fetch(buckets[number], buckets[number].files())
        os.utime(stages[number].place / "ledger.jsonl", (time.time() - 100 * number,) * 2)
    with pytest.raises(
        ResourceError, match=r"b2: its files take 2,500 bytes, and [\d,]+ bytes of other addresses are in"
    ):
        stages[2].fetch(buckets[2], buckets[2].files())
    staging.release()  # as at the end of a process
    stages[2].fetch(buckets[2], buckets[2].files())
    assert [stage.place.exists() for stage in stages] == [True, False, True]
    staging.release()
    large = bucket_of(tmp_path / "b3", one=b"x" * 7001)
    with pytest.raises(ResourceError, match="its files take 7,001 bytes; FLAME_STAGE_BYTES allows 7,000"):
        stage_of(large).fetch(large, large.files())


def test_copies_that_are_read_count_as_used(tmp_path, limit):
    buckets = [bucket_of(tmp_path / f"b{number}", one=bytes([number]) * 2500) for number in range(3)]
    stages = [stage_of(bucket) for bucket in buckets]
    found = [stage.fetch(bucket, bucket.files()) for stage, bucket in zip(stages[:2], buckets, strict=False)]
    for number in range(2):
        os.utime(stages[number].place / "ledger.jsonl", (time.time() - 200 + 100 * number,) * 2)
    assert stages[0].has({"one.tar": 2500}, found[0])
    staging.release()
    stages[2].fetch(buckets[2], buckets[2].files())
    assert [stage.place.exists() for stage in stages] == [True, False, True]


def test_copies_that_are_deleted_while_they_are_looked_for_are_not_there(tmp_path, monkeypatch):
    bucket = bucket_of(tmp_path / "b", one=b"1")
    stage = stage_of(bucket)
    sha256 = stage.fetch(bucket, bucket.files())
    staging.release()
    hold = staging._hold

    def late(place: Path) -> bool:
        shutil.rmtree(place)
        return hold(place)

    with monkeypatch.context() as patched:
        patched.setattr(staging, "_hold", late)
        assert not stage.has({"one.tar": 1}, sha256)
    assert stage.fetch(bucket, bucket.files()) == sha256 and stage.has({"one.tar": 1}, sha256)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_STAGE_BYTES", "7000")
    settings.cache_clear()


def test_what_another_process_is_going_to_copy_counts(tmp_path, limit):
    started, end = Event(), Event()

    class Slow(Bucket):
        def open(self, file: BucketFile):
            started.set()
            assert end.wait(30)
            return super().open(file)

    first, second = bucket_of(tmp_path / "a", one=b"1" * 4000), bucket_of(tmp_path / "b", two=b"2" * 4000)
    slow = Slow(first.address, first.system, first.path)
    copying = Thread(target=stage_of(first).fetch, args=(slow, first.files()))
    copying.start()
    try:
        assert started.wait(30)
        with pytest.raises(ResourceError, match=r"b: its files take 4,000 bytes, and 4,000 bytes of other addresses"):
            stage_of(second).fetch(second, second.files())
    finally:
        end.set()
        copying.join()


def test_files_that_another_process_moves_are_no_error(tmp_path, stage_dir):
    place = stage_dir / "busy"
    (place / "parts").mkdir(parents=True)
    (place / "ledger.jsonl").touch()
    for number in range(200):
        (place / "parts" / f"{number}").write_bytes(b"x")
    end = Event()

    def move() -> None:
        while not end.is_set():
            for old, new in (("parts", "files"), ("files", "parts")):
                (place / new).mkdir(exist_ok=True)
                for path in (place / old).iterdir():
                    path.rename(place / new / path.name)

    moving = Thread(target=move)
    moving.start()
    try:
        for _ in range(100):
            assert [folder for _, _, folder in staging._others(stage_dir / "own")] == [place]
    finally:
        end.set()
        moving.join()


def test_copies_that_a_process_makes_while_old_ones_are_deleted_stay(tmp_path, limit, monkeypatch):
    old, new = bucket_of(tmp_path / "a", one=b"1" * 4000), bucket_of(tmp_path / "b", two=b"2" * 4000)
    place = stage_of(old).place
    stage_of(old).fetch(old, old.files())
    staging.release()
    remove = shutil.rmtree

    def newcomer(folder: Path, **given: bool) -> None:
        place.mkdir(exist_ok=True)
        (place / "one.tar").write_bytes(b"new")
        remove(folder, **given)

    monkeypatch.setattr(shutil, "rmtree", newcomer)
    stage_of(new).fetch(new, new.files())
    assert (place / "one.tar").read_bytes() == b"new" and not (place / "ledger.jsonl").exists()


def test_names_that_lead_out_or_collide_are_refused(tmp_path):
    bucket = bucket_of(tmp_path / "b")
    with pytest.raises(InputError, match=r"'x\.tar' is both a file and the folder of 'x\.tar/y\.tar'"):
        stage_of(bucket).fetch(bucket, [BucketFile("x.tar", 1, 0), BucketFile("x.tar/y.tar", 1, 0)])

    class Hostile(LocalFileSystem):
        def get_file_info(self, place):
            (info,) = LocalFileSystem().get_file_info([str(tmp_path / "b" / ".." / "b" / "one.tar")])
            return [info]

    bucket_of(tmp_path / "b", one=b"1")
    with pytest.raises(InputError, match="leads out of the folder"):
        Bucket("s3://test/b", Hostile(), str(tmp_path / "b")).files()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://x/y", "write s3://bucket/folder or gs://bucket/folder"),
        ("s3://key:secret@bucket/x", r"^s3://bucket/x: keys and options are no part of the address"),
        ("s3://bucket/x?endpoint_override=evil", "keys and options are no part"),
        ("s3:///x", "names no bucket"),
    ],
)
def test_addresses_are_of_buckets_and_hold_no_keys(address, message):
    assert is_address(address)
    with pytest.raises(ParamsError, match=message) as refused:
        open_bucket(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        (
            "When listing objects: AWS Error ACCESS_DENIED during ListObjectsV2 operation: Access Denied",
            InputError,
            "access is refused; set AWS_ACCESS_KEY_ID",
        ),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation", InputError, "access is refused"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", InputError, "nothing is there"),
        ("AWS Error NETWORK_CONNECTION (Request ID: A403B404)", ResourceError, "cannot be read"),
    ],
)
def test_what_the_server_says_decides_the_exit_code(said, error, message):
    with pytest.raises(error, match=f"s3://b/x:? {message}"), told("s3://b/x"):
        raise OSError(said)


def test_paths_of_this_machine_are_no_addresses():
    assert not any(map(is_address, ("data/shards", "/data/x", "~/x", "C:/x", "./s3:/x")))
