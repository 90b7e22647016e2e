from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from flame_core.data.sources import tar_listing, webdataset
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.listing import read_pairs, read_source
from flame_core.data.sources.listing_writer import write_listing
from flame_core.data.sources.manifest import make_manifest
from flame_core.data.sources.tar_content import read_samples
from flame_core.data.sources.tar_listing import TarTask
from flame_core.data.sources.webdataset import Webdataset
from flame_core.errors import InputError, ParamsError
from flame_core.params import Params, WebdatasetSource
from flame_core.params.validation import validate
from flame_core.settings import settings
from flame_core.work import WorkCache
from tests.data.drawings import drawing, encoded, png

Member = tuple[str, bytes]


def write_tar(path: Path, members: Sequence[Member], kind: int = tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def members_of(*numbers: int) -> list[Member]:
    """Samples as img2dataset writes them."""
    found: list[Member] = []
    for number in numbers:
        found += [
            (f"{number:06d}.jpg", encoded(drawing(number), "JPEG")),
            (f"{number:06d}.json", json.dumps({"key": f"{number:06d}", "caption": f"drawing {number}"}).encode()),
            (f"{number:06d}.txt", f"drawing {number}".encode()),
        ]
    return found


def _download(folder: Path, **params):
    source = Webdataset(WebdatasetSource(kind="webdataset", path="unused", **params), folder)
    unit = source.download(WorkCache(folder.parent / "work", "download"))
    return unit, read_pairs(unit.folder, folder)


def _unused(unit) -> dict[tuple[str, str], int]:
    return {(group["reason"], group["kind"]): group["count"] for group in read_source(unit.folder).get("unused", [])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_as_img2dataset_writes_them(folder: Path, kind: int):
    write_tar(folder / "00000.tar", members_of(0, 1), kind)
    write_tar(folder / "00001.tar", members_of(2), kind)
    (folder / "00000_stats.json").write_text("{}")
    unit, pairs = _download(folder)
    assert _unused(unit) == {("side_file", ".json"): 1}
    assert [pair.key for pair in pairs] == ["00000/000000", "00000/000001", "00001/000002"]
    assert [pair.captions for pair in pairs] == [{"en": [f"drawing {number}"]} for number in range(3)]
    assert [pair.image and pair.image.read() for pair in pairs] == [encoded(drawing(n), "JPEG") for n in range(3)]
    assert {pair.split for pair in pairs} == {None}


def test_shards_that_a_project_in_the_folder_made_are_left_out_unless_they_are_named(folder: Path):
    (folder / "project/data").mkdir(parents=True)
    for mark in ("dvc.yaml", "params.yaml"):
        (folder / "project" / mark).write_text("")
    for place in (folder, folder / "project/data"):
        write_tar(place / "0.tar", members_of(0), tarfile.USTAR_FORMAT)
    unit, pairs = _download(folder, shards="**/*.tar")
    assert [pair.key for pair in pairs] == ["0/000000"] and _unused(unit) == {("not_matched", "folder"): 1}
    assert [pair.key for pair in _download(folder, shards="project/data/*.tar")[1]] == ["project/data/0/000000"]


def test_captions_by_language_in_json(folder: Path):
    record = {"captions": {"en": ["One", "Two"], "zh": ["一"]}, "album": 4, "license": "CC-BY"}
    write_tar(folder / "a.tar", [("x/1.png", png(1)), ("x/1.json", json.dumps(record).encode())])
    _, pairs = _download(folder, group_field="album")
    assert pairs[0].key == "a/x/1"
    assert (pairs[0].captions, pairs[0].group, pairs[0].licence) == (record["captions"], "4", "CC-BY")


def test_other_members_and_kinds(folder: Path):
    members = [
        ("1.WEBP", encoded(drawing(1), "WEBP")),
        ("1.cls", b"7"),
        ("1.seg.png", png(5)),
        ("1.png", png(6)),
        ("1.txt", "Caf\xe9".encode("latin-1")),
        ("2.txt", b"no picture"),
        ("3.jpg", png(3)),
    ]
    write_tar(folder / "a.tar", members)
    with tarfile.open(folder / "a.tar", "a") as tar:
        link = tarfile.TarInfo("4.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    unit, pairs = _download(folder)
    assert [(pair.key, pair.captions, pair.image is None) for pair in pairs] == [
        ("a/1", {}, False),
        ("a/1", {}, False),
        ("a/2", {"en": ["no picture"]}, True),
        ("a/3", {}, False),
    ]
    (problem,) = read_source(unit.folder)["problems"]
    assert (problem["file"], problem["reason"]) == ("a.tar/1.txt", "damaged_text")
    assert "line 1 is not utf-8: byte 0xe9" in problem["detail"]
    assert _unused(unit) == {
        ("unsupported_member", ".cls"): 1,
        ("unsupported_member", ".seg.png"): 1,
        ("unsupported_member", "link or sparse file (tar --dereference --hard-dereference packs none)"): 1,
    }
    assert pairs[0].image is not None and pairs[0].image.read() == encoded(drawing(1), "WEBP")
    _, pairs = _download(folder, encoding="latin-1")
    assert pairs[0].captions == {"en": ["Caf\xe9"]}


def test_words_for_splits(folder: Path):
    for shard in ("train", "val"):
        words = enumerate(["train", "validation", "test"])
        write_tar(folder / f"{shard}.tar", [(f"{n}.json", json.dumps({"split": word}).encode()) for n, word in words])
    _, pairs = _download(folder)
    assert [pair.split for pair in pairs] == ["train", "val", "test"] * 2
    _, pairs = _download(folder, val_shards="val*")  # which is whole; nothing that is kept apart is trained on
    assert [pair.split for pair in pairs] == ["train", "train", "test", "val", "val", "val"]


def test_validation_shards_and_a_limit_of_samples(folder: Path):
    write_tar(folder / "set-train-0.tar", members_of(0, 1, 2))
    write_tar(folder / "set-train-1.tar", members_of(3, 4, 5))
    write_tar(folder / "set-val-0.tar", members_of(6, 7))
    _, pairs = _download(folder, val_shards="*-val-*", max_samples=4)
    assert [(pair.key[-1], pair.split) for pair in pairs] == [
        *((str(number), "train") for number in range(4)),
        ("6", "val"),
        ("7", "val"),
    ]
    unit, pairs = _download(folder, max_samples=4)
    assert _unused(unit) == {("beyond_max_samples", "samples"): 2, ("beyond_max_samples", "shards"): 1}
    assert [(pair.key[-1], pair.split) for pair in pairs] == [(str(number), None) for number in range(4)]


def _write_some(folder: Path) -> None:
    """Tars of more and fewer samples than a row group has, one without any, with members of many kinds."""
    for shard, count in enumerate((0, 1500, 3, 0, 1100)):
        members = [(f"{number}.jpg", b"%d %d" % (shard, number)) for number in range(count)]
        members += [(f"{number}.txt", b"drawing %d" % number) for number in range(0, count, 2)]
        members += [(f"{number}.txt", b"\xff") for number in range(1, count, 2)]
        write_tar(
            folder / f"{shard}.tar", [*members, *((f"{number}.{number}.x", b"") for number in range(count // 10))]
        )


def _at_once(folder: Path, out: Path) -> None:
    """The list of all tars, without lists of each."""
    out.mkdir()
    problems, unused = Problems(), Unused()
    tars = make_manifest(folder, sorted(folder.glob("*.tar")), problems)
    params = WebdatasetSource(kind="webdataset", path="unused")
    tasks = [TarTask(folder, tar, None, None, params, WorkCache(out, "unused")) for tar in tars]
    pairs = chain.from_iterable(tar_listing._pairs(task, problems, unused) for task in tasks)
    about = {"kind": "webdataset"}
    write_listing(out, folder, pairs, about=about, problems=problems, unused=unused, manifest=tars)


@pytest.mark.parametrize("workers", [1, 2])
def test_lists_of_tars_make_one(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int):
    _write_some(folder)
    monkeypatch.setattr(webdataset, "FEW_BYTES", 0)
    monkeypatch.setattr(webdataset, "settings", lambda: settings().model_copy(update={"workers": workers}))
    unit, _ = _download(folder)
    _at_once(folder, tmp_path / "once")
    names = {"manifest.jsonl", "pairs.parquet", "source.json"}
    assert set(unit.names()) == names and unit.record.counts == {"pairs": 2603}
    assert all(unit.file(name).read_bytes() == (tmp_path / "once" / name).read_bytes() for name in names)


def test_only_tars_that_are_new_are_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []

    def noted(source: Path, tar: str, *rest):
        read.append(tar)
        if tar == broken:
            raise KeyboardInterrupt
        yield from read_samples(source, tar, *rest)

    monkeypatch.setattr(tar_listing, "read_samples", noted)
    for number in range(3):
        write_tar(folder / f"{number}.tar", members_of(number))
    broken = "1.tar"  # as if the run were ended there
    with pytest.raises(KeyboardInterrupt):
        _download(folder)
    broken = ""
    _download(folder)
    assert read == ["0.tar", "1.tar", "1.tar", "2.tar"]
    write_tar(folder / "1.tar", members_of(4))
    _, pairs = _download(folder)
    assert read[4:] == ["1.tar"] and [pair.key for pair in pairs] == ["0/000000", "1/000004", "2/000002"]


def _samples(folder: Path, content: bytes) -> tuple[list[str], list[str]]:
    """Keys that can be read of a tar with this content, and what is said about it."""
    (folder / "bad.tar").write_bytes(content)
    problems = []
    keys = [sample.key for sample in read_samples(folder, "bad.tar", problems, Unused()) if sample.image]
    assert {problem.file for problem in problems} <= {"bad.tar"}
    return keys, [problem.detail for problem in problems]


def test_damaged_tars_give_what_can_be_read_and_are_named(folder: Path):
    write_tar(folder / "good.tar", members_of(*range(6)))
    good = (folder / "good.tar").read_bytes()
    everything = [f"{number:06d}" for number in range(6)]
    assert _samples(folder, good) == (everything, [])
    with tarfile.open(folder / "good.tar") as tar:
        third = tar.getmember("000002.jpg")
        last = tar.getmembers()[-1]
    end = last.offset_data + 512

    cut = good[: third.offset_data + 100]
    keys, details = _samples(folder, cut)
    assert keys == everything[:2]
    assert len(details) == 1 and "cut off: 000002.jpg is not complete" in details[0]

    keys, details = _samples(folder, good[: third.offset])  # between two samples
    assert keys == everything[:2] and "no end mark" in details[0]

    keys, details = _samples(folder, good[: third.offset + 200])  # within a header
    assert keys == everything[:2] and "no end mark" in details[0]

    keys, details = _samples(folder, good[: third.offset + 5] + b"\xff\xff" + good[third.offset + 7 :])
    assert keys == [*everything[:2], *everything[3:]]
    assert len(details) == 1 and "damaged behind 000001.txt" in details[0]

    keys, details = _samples(folder, good[:end] + b"\x07" * 512 + good[end + 512 :])
    assert keys == everything and len(details) == 1

    assert _samples(folder, b"\x1f\x8b not a tar at all " * 100)[0] == []
    assert _samples(folder, b"\x1f\x8b not a tar at all " * 100)[1] != []
    assert _samples(folder, b"")[1] != []


def test_a_damaged_tar_does_not_stop_the_download(folder: Path, caplog: pytest.LogCaptureFixture):
    write_tar(folder / "a.tar", members_of(0, 1))
    write_tar(folder / "b.tar", members_of(2, 3))
    content = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(content[: len(content) // 2])
    unit, pairs = _download(folder)
    assert {"b/000002", "b/000003"} <= {pair.key for pair in pairs}
    assert [problem["file"] for problem in read_source(unit.folder)["problems"]] == ["a.tar"]
    assert unit.record.failures == {"a.tar": "damaged_file"}
    assert "a.tar" in caplog.text


def test_broken_json_is_a_problem(folder: Path):
    write_tar(folder / "a.tar", [("1.jpg", png(1)), ("1.json", b"{nope"), ("1.txt", b"still good")])
    unit, pairs = _download(folder)
    assert pairs[0].captions == {"en": ["still good"]}
    assert read_source(unit.folder)["problems"] == [
        {"file": "a.tar/1.json", "reason": "damaged_member", "detail": "not a JSON object"}
    ]


@pytest.mark.parametrize(
    ("params", "message"),
    [({"shards": "x-*.tar"}, "holds no file 'x-"), ({"val_shards": "y*"}, "none of the shards matches val_shards 'y")],
)
def test_patterns_that_match_nothing(folder: Path, params: dict, message: str):
    write_tar(folder / "a.tar", members_of(0))
    with pytest.raises(InputError, match=message):
        _download(folder, **params)


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        _download(tmp_path / "nowhere")


def test_a_key_that_comes_twice_mixes_nothing(folder: Path):
    jpg = [encoded(drawing(number), "JPEG") for number in range(3)]
    members = [("dup.jpg", jpg[0]), ("dup.txt", b"a lighthouse"), ("dup.jpg", jpg[1]), ("dup.txt", b"a bowl")]
    members += [("two.jpg", jpg[2]), ("two.png", png(3)), ("two.txt", b"of both")]
    write_tar(folder / "0.tar", members)
    _, pairs = _download(folder)
    assert [(pair.key, pair.image and pair.image.read(), pair.captions["en"]) for pair in pairs] == [
        ("0/dup", jpg[0], ["a lighthouse"]),
        ("0/dup", jpg[1], ["a bowl"]),
        ("0/two", jpg[2], ["of both"]),
        ("0/two", png(3), ["of both"]),
    ]


def test_members_that_do_not_stand_together(folder: Path):
    pictures = [(f"{number}.jpg", encoded(drawing(number), "JPEG")) for number in range(4)]
    texts = [(f"{number}.txt", f"drawing {number}".encode()) for number in range(4)]
    write_tar(folder / "a.tar", pictures + texts)
    write_tar(folder / "b.tar", texts + pictures)
    _, pairs = _download(folder)
    assert [(pair.key, pair.image and pair.image.read(), pair.captions["en"]) for pair in pairs] == [
        (f"{tar}/{number}", pictures[number][1], [f"drawing {number}"]) for tar in "ab" for number in range(4)
    ]


def test_keys_whose_bytes_are_no_text_stay_apart(folder: Path):
    members = [(f"caf{letter}.{kind}", letter.encode("utf-8", "surrogateescape") + kind.encode())
               for letter in ("\udce8", "\udce9") for kind in ("jpg", "json")]  # fmt: skip
    with tarfile.open(folder / "a.tar", "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    _, pairs = _download(folder)
    assert len({pair.key for pair in pairs}) == 2
    assert [pair.image and pair.image.read() for pair in pairs] == [b"\xe8jpg", b"\xe9jpg"]


@pytest.mark.parametrize(("mode", "said"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_compressed_tars_are_called_so(folder: Path, mode: str, said: str):
    write_tar(folder / "a.tar", members_of(0))
    with tarfile.open(folder / "b.tar", mode) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
        tar.add(folder / "a.tar", "inner.tar")
    unit, pairs = _download(folder)
    assert len(pairs) == 1
    (problem,) = read_source(unit.folder)["problems"]
    assert (problem["file"], problem["reason"]) == ("b.tar", "compressed_file")
    assert f"compressed with {said}" in problem["detail"] and "unpack it" in problem["detail"]


def test_pipes_and_devices_in_a_shard_s_place(folder: Path):
    write_tar(folder / "a.tar", members_of(0))
    os.mkfifo(folder / "b.tar")
    (folder / "c.tar").symlink_to("/dev/zero")
    (folder / "d.tar").symlink_to("nowhere.tar")
    unit, pairs = _download(folder)
    assert [pair.key for pair in pairs] == ["a/000000"]
    assert unit.record.failures == {"b.tar": "not_a_file", "c.tar": "not_a_file", "d.tar": "unreadable_file"}


def test_what_lies_beside_the_shards_is_counted(folder: Path):
    for name in ("sub/x", "sub/other", "empty", ".cache"):
        (folder / name).mkdir(parents=True)
    write_tar(folder / "sub/x/0.tar", members_of(0))
    write_tar(folder / "1.tar", members_of(1))
    for name in ("sub/x/0.parquet", "sub/x/0_stats.json", "1.tar.gz", "2_stats.json", "sub/README.md", ".x"):
        (folder / name).write_bytes(b"x")
    unit, _ = _download(folder, shards="**/*.tar")
    assert _unused(unit) == {
        ("side_file", ".parquet"): 1,
        ("side_file", ".json"): 1,
        ("hidden", "folder"): 1,
        ("hidden", "no suffix"): 1,
        ("not_matched", "folder"): 2,
        ("not_matched", ".gz"): 1,
        ("not_matched", ".json"): 1,
        ("not_matched", ".md"): 1,
    }


@pytest.mark.parametrize(
    "shards", ["/abs/*.tar", "**.tar", "sub/**x/*.tar", "", " ", ".", "./", "../*.tar", "a/../b.tar", "a\0.tar"]
)
def test_patterns_that_name_no_files_of_the_folder(shards: str):
    content = {"sources": {"s": {"kind": "webdataset", "path": "x", "shards": shards}}}
    with pytest.raises(ParamsError, match=r"sources\.s\S*\.shards: shards"):
        validate(Params, content, Path("params.yaml"))


@pytest.mark.parametrize("shards", ["*.tar", "**/*.tar", "sub/[0-9]*.tar", "./*.tar", "0000?.tar"])
def test_patterns_that_are_fine(shards: str):
    assert WebdatasetSource(kind="webdataset", path="x", shards=shards).shards == shards


@pytest.mark.parametrize("pattern", ["*.tar", "**/*.tar"])
def test_links_that_lead_nowhere(folder: Path, pattern: str):
    write_tar(folder / "0.tar", members_of(1))
    for name, target in (("loop", "loop"), ("lost", "nowhere"), ("loop.tar", "loop.tar"), ("lost.tar", "nowhere")):
        (folder / name).symlink_to(target)
    unit, pairs = _download(folder, shards=pattern)
    assert len(pairs) == 1 and _unused(unit) == {("not_matched", "no suffix"): 2}
    found = {(problem["file"], problem["reason"]) for problem in read_source(unit.folder)["problems"]}
    assert found == {("loop.tar", "unreadable_file"), ("lost.tar", "unreadable_file")}
