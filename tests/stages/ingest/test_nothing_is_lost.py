"""The rule, for every kind of source: what it lists is what ingest kept and what the ledger drops.

And what it saw (files of a folder, members of tars) is part of a listed pair, or counted and named.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flame_core.data.ledger import read_ledger
from flame_core.data.shards import read_index
from flame_core.data.sources.listing import left_out, read_keys, read_source
from flame_core.layout import Layout
from tests.data.drawings import drawing, encoded, png
from tests.data.sources.test_debian import Repository, needs_apt, repository
from tests.stages.ingest.shards import run_ingest
from tests.stages.pipeline import pipeline_params

__all__ = ["repository"]
Made = tuple[dict[str, Any], int, int]  # params of the source, how much there is to see, how much of it is in pairs
GOOD = 8


def _good(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(GOOD):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text(f"drawing number {number}")


def _entries(folder: Path) -> int:
    """All files, links and hidden folders in a folder and those below that are not hidden."""
    return sum(1 if entry.is_symlink() or not entry.is_dir() or entry.name[0] in "._" else _entries(Path(entry.path))
               for entry in os.scandir(folder))  # fmt: skip


def _odd_files(folder: Path) -> None:
    """Files, links and folders that are no part of a pair."""
    (folder / ".cache" / "x").mkdir(parents=True)
    (folder / "__MACOSX").mkdir()
    for name in (
        ".DS_Store",
        "._0.png",
        "README.md",
        "notes",
        "x.heic",
        "clip.mp4",
        "00000_stats.json",
        "00000.parquet",
    ):
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "zero.txt").symlink_to("/dev/zero")
    (folder / "cycle").symlink_to(".")
    (folder / "out").symlink_to("/")
    os.close(os.open(os.fsencode(folder) + b"/\xff.png", os.O_CREAT | os.O_WRONLY))


def _folder(root: Path) -> Made:
    folder = root / "folder"
    _good(folder)
    _odd_files(folder)
    (folder / "0.jpg").write_bytes(encoded(drawing(99), "JPEG"))  # a second picture of the stem
    (folder / "same.png").write_bytes(png(1))
    (folder / "same.txt").write_text("the same again")
    (folder / "silent.png").write_bytes(png(50))
    (folder / "x.txt").write_text("its picture is a HEIC")
    (folder / "alone.txt").write_text("no picture")
    (folder / "cut.png").write_bytes(png(51)[:200])
    (folder / "cut.txt").write_text("cut")
    (folder / "latin.png").write_bytes(png(52))
    (folder / "latin.txt").write_bytes("Häher".encode("latin-1"))  # named: no text
    (folder / "list.json").write_text("[1]")  # named: no object
    return {"kind": "folder", "path": str(folder)}, _entries(folder), 2 * GOOD + 9


def _table(root: Path) -> Made:
    folder = root / "table"
    _good(folder)
    _odd_files(folder)
    rows = [{"image": f"{number}.png", "caption": f"drawing number {number}"} for number in range(GOOD)]
    rows += [{"image": "gone-too.png", "caption": "x"}, {"image": "x.heic", "caption": "y"}]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    (folder / "silent.png").write_bytes(png(50))
    return {"kind": "folder", "path": str(folder), "table": "t.jsonl"}, _entries(folder), GOOD + 2


def _webdataset(root: Path) -> Made:
    folder = root / "shards"
    folder.mkdir()
    members = [(f"{n}.{kind}", png(n) if kind == "png" else f"drawing {n}".encode())
               for kind in ("png", "txt") for n in range(GOOD)]  # fmt: skip
    members += [("dup.png", png(60)), ("dup.txt", b"a"), ("dup.png", png(61)), ("dup.txt", b"b")]
    members += [("two.png", png(62)), ("two.gif", encoded(drawing(63), "GIF")), ("two.txt", b"two")]
    members += [("7.5.png", png(64)), ("7.5.txt", b"dotted"), ("heic.heic", b"x"), ("heic.txt", b"heic")]
    used = len(members) - 1
    members += [("1.cls", b"1"), ("1.seg.png", png(65)), ("._1.png", b"x"), ("inner.tar", b"x"), ("1.txt", b"again")]
    members += [("amb.png", png(66)), ("amb.png", png(67)), ("amb.txt", b"which")]
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with tarfile.open(folder / "1.tar", "w:gz") as tar:
        tar.add(folder / "0.tar")
    os.mkfifo(folder / "2.tar")
    for name in ("0.parquet", "0_stats.json", "3.tar.gz", "README"):
        (folder / name).write_bytes(b"x")
    (folder / "sub").mkdir()
    seen = len(members) + 1 + 1 + 2 + 5  # members and the link; 0.tar; two that cannot be read; what lies beside
    return {"kind": "webdataset", "path": str(folder)}, seen, used + 1


@pytest.mark.parametrize("make", [_folder, _table, _webdataset])
def test_what_is_listed_is_kept_or_in_the_ledger(layout: Layout, tmp_path: Path, make: Callable[[Path], Made]):
    params, seen, used = make(tmp_path)
    rows = 1 if "table" in params else 0  # a broken row is no file
    _assert_the_rule(layout, params)
    problems, unused = left_out(read_source(layout.raw / "s"))
    named = sum(problem.count for problem in problems) + sum(group.count for group in unused)
    assert seen + rows == used + named


@needs_apt
def test_what_packages_hold_is_kept_or_in_the_ledger(layout: Layout, repository: Repository):
    files = {}
    for number in range(GOOD):
        files |= {f"a/{number}.png": png(number), f"a/{number}.txt": f"Drawing {number}.".encode()}
    files |= {"a/other.jpg": encoded(drawing(70), "JPEG"), "a/other.txt": b"its picture is no stamp"}
    files |= {"a/latin.png": png(71), "a/latin.txt": b"H\xe4her", "a/silent.png": png(72), "a/alone.txt": b"Alone."}
    links = {"usr/share/tuxpaint/stamps/a/out.png": "/etc/passwd"}
    repository.add(
        "tuxpaint-stamps-default",
        "1.0",
        {f"usr/share/tuxpaint/stamps/{name}": content for name, content in files.items()},
        links,
    )
    _assert_the_rule(layout, {"kind": "debian", "packages": ["tuxpaint-stamps-default"]})
    entries = {entry.key.rpartition("/")[2]: entry.reason for entry in read_ledger(layout.shards)}
    assert entries == {
        "other": "image_missing",
        "other.jpg": "unsupported_suffix",
        "latin": "no_caption",
        "latin.txt": "damaged_text",
        "silent": "no_caption",
        "alone": "image_missing",
        "out": "no_caption",
        "out.png": "unreadable_file",
    }


@pytest.mark.parametrize("kind", ["folder", "table", "webdataset"])
def test_values_that_are_not_read_are_in_the_ledger(layout: Layout, tmp_path: Path, kind: str):
    folder = tmp_path / "data"
    folder.mkdir()
    records = [{"caption": f"drawing number {n}", "category": ["a", "b"] if n < 3 else "c"} for n in range(GOOD)]
    params: dict[str, Any] = {"kind": "folder", "path": str(folder)}
    for n, record in enumerate(records):
        (folder / f"{n}.png").write_bytes(png(n))
        if kind != "table":
            (folder / f"{n}.json").write_text(json.dumps(record))
    if kind == "table":
        rows = [{"image": f"{n}.png", **record} for n, record in enumerate(records)]
        (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
        params["table"] = "t.jsonl"
    if kind == "webdataset":
        with tarfile.open(folder / "0.tar", "w") as tar:
            for path in sorted(path for path in folder.iterdir() if path.suffix != ".tar"):
                tar.add(path, path.name)
                path.unlink()
        params |= {"kind": "webdataset", "caption_field": "caption"}
    _assert_the_rule(layout, params)
    (entry,) = read_ledger(layout.shards)
    assert (entry.outcome, entry.reason, entry.count) == ("unused", "unread_value", 3)
    assert (entry.key, entry.detail.partition(",")[0]) == ("category", "3 pairs have category as a list")


def _assert_the_rule(layout: Layout, params: dict[str, Any]) -> None:
    run_ingest(pipeline_params({"s": params}), layout)
    listed = Counter(f"s/{key}" for key in read_keys(layout.raw / "s"))
    entries = read_ledger(layout.shards)
    assert all(entry.reason and entry.detail for entry in entries)
    problems, unused = left_out(read_source(layout.raw / "s"))
    beside: Counter[tuple[str, str]] = Counter()
    for problem in problems:
        beside[problem.file, problem.reason] += problem.count
    for group in unused:
        beside[group.examples[0], group.reason] += group.count
    dropped = Counter(entry.key for entry in entries if entry.outcome == "dropped" and entry.key.startswith("s/"))
    merged = Counter(entry.key for entry in entries if entry.outcome == "merged")
    kept = Counter(row.key for row in read_index(layout.shards))
    assert listed == kept + merged + dropped
    others: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if not entry.key.startswith("s/"):
            others[entry.key, entry.reason] += entry.count
    assert others == beside
    assert len(kept) >= GOOD
