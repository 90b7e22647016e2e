from __future__ import annotations

import hashlib
import json
import os
import random

import pytest

from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.data.sources.listing import (
    SourceFile,
    check_manifest,
    read_keys,
    read_pairs,
    read_source,
)
from flame_core.data.sources.listing_writer import write_listing
from flame_core.errors import InputError


def write_list(folder, pictures, pairs, **rest):
    """Write the list of pairs without records."""
    return write_listing(folder, pictures, ((pair, ()) for pair in pairs), **rest)


def _pair(number: int, folder, **changes) -> RawPair:
    content = b"x" * number
    image = ImageRef(folder / f"{number}.jpg", 0, number, hashlib.sha256(content).hexdigest())
    return RawPair(**({"key": f"k{number}", "image": image, "captions": {"en": [f"caption {number}"]}} | changes))


def test_pairs_come_back_as_they_were_also_in_parts(tmp_path):
    pairs = [_pair(number, tmp_path) for number in range(2500)]
    pairs[3] = _pair(3, tmp_path, image=None, captions={}, group="g", split="val")
    pairs[4] = _pair(
        4,
        tmp_path,
        captions={"fr": ["a", "b"], "en": ["c\x00\n\"'{caption}"]},
        title="t",
        keywords=["k"],
        category="c",
        licence="l",
    )
    record = write_list(tmp_path, tmp_path, iter(pairs), about={"kind": "test"}, problems=[])
    assert record == {"kind": "test", "pairs": 2500, "problems": []}
    assert read_pairs(tmp_path, tmp_path) == pairs
    assert read_keys(tmp_path) == [pair.key for pair in pairs]
    for start, stop in [(0, 5), (1000, 1030), (1023, 1024), (1024, 2048), (2400, 2500), (7, 7)]:
        assert read_pairs(tmp_path, tmp_path, start, stop) == pairs[start:stop]


def test_the_list_does_not_say_where_the_folder_is(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pairs = [_pair(number, tmp_path / name) for number in range(3)]
        write_list(tmp_path / name, tmp_path / name, pairs, about={}, problems=[], manifest=[SourceFile("x", 1, "s")])
    for name in ("pairs.parquet", "source.json", "manifest.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_lone_surrogates_are_replaced(tmp_path):
    text = json.loads('"a \\ud800 b"')
    write_list(tmp_path, tmp_path, [_pair(1, tmp_path, captions={"en": [text]})], about={}, problems=[])
    assert read_pairs(tmp_path, tmp_path)[0].captions == {"en": ["a ? b"]}


def test_problems_found_while_listing_are_recorded(tmp_path):
    problems: list[Problem] = []

    def pairs():
        yield _pair(1, tmp_path)
        problems.append(Problem("a.tar", "damaged_file", "cut off"))

    write_list(tmp_path, tmp_path, pairs(), about={}, problems=problems)
    assert read_source(tmp_path)["problems"] == [{"file": "a.tar", "reason": "damaged_file", "detail": "cut off"}]


def test_changed_files_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1234")
    manifest = [SourceFile("a.jpg", 4, hashlib.sha256(b"1234").hexdigest())]
    write_list(tmp_path, tmp_path, [], about={}, problems=[], manifest=manifest)
    check_manifest(tmp_path, tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"12345")
    with pytest.raises(InputError, match=r"a\.jpg has 5 bytes, and had 4.*flame download"):
        check_manifest(tmp_path, tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.jpg"):
        check_manifest(tmp_path, tmp_path)


def test_bytes_that_changed_are_noticed_when_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"0123456789")
    ref = ImageRef(tmp_path / "a.jpg", 2, 3, hashlib.sha256(b"234").hexdigest())
    assert ref.read() == b"234"
    (tmp_path / "a.jpg").write_bytes(b"0123x56789")
    assert ImageRef(tmp_path / "a.jpg", 6, 3, hashlib.sha256(b"678").hexdigest()).read() == b"678"
    with pytest.raises(InputError, match=r"a\.jpg: 3 bytes at 2"):
        ref.read()


def test_a_source_that_was_not_downloaded(tmp_path):
    with pytest.raises(InputError, match="flame download"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("source.json", b""),
        ("source.json", b"[1]"),
        ("source.json", b"\xff{}"),
        ("source.json", b'{"pairs": "3", "problems": []}'),
        ("source.json", b'{"pairs": 3, "problems": [{"file": 1}]}'),
        ("source.json", b"[" * 100_000),
        ("manifest.jsonl", b"{}\n"),
        ("manifest.jsonl", b'{"path": "a", "size": "1", "sha256": "x"}\n'),
        ("manifest.jsonl", b"\xff\n"),
        ("pairs.parquet", b"PAR1 no PAR1"),
        ("pairs.parquet", b""),
        ("pairs.parquet", None),
    ],
)
def test_damaged_lists_are_one_sentence(tmp_path, name, content):
    write_list(tmp_path, tmp_path, [_pair(1, tmp_path)], about={}, problems=[], manifest=[SourceFile("1.jpg", 1, "s")])
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is (damaged|missing).*flame download"):
        read_source(tmp_path)
        read_keys(tmp_path)
        read_pairs(tmp_path, tmp_path)
        check_manifest(tmp_path, tmp_path)


def test_a_flipped_byte_of_the_list_is_no_traceback(tmp_path):
    pairs = [_pair(number, tmp_path, title=f"t{number}") for number in range(30)]
    write_list(tmp_path, tmp_path, pairs, about={}, problems=[])
    content = (tmp_path / "pairs.parquet").read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "pairs.parquet").write_bytes(damaged)
        try:
            assert all(isinstance(key, str) for key in read_keys(tmp_path))
            read_pairs(tmp_path, tmp_path)
        except InputError:
            refused += 1
    assert refused > 100


def test_what_stands_in_a_picture_s_place_comes_back(tmp_path):
    pairs = [_pair(1, tmp_path, image=None, unread="1.heic"), _pair(2, tmp_path, image=None)]
    write_list(tmp_path, tmp_path, pairs, about={}, problems=[])
    assert read_pairs(tmp_path, tmp_path) == pairs


def test_a_pipe_in_a_file_s_place_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    write_list(tmp_path, tmp_path, [], about={}, problems=[], manifest=[SourceFile("a.jpg", 0, "s")])
    with pytest.raises(InputError, match=r"a\.jpg is a pipe"):
        check_manifest(tmp_path, tmp_path)
    with pytest.raises(InputError, match="pipe"):
        ImageRef(tmp_path / "a.jpg", 0, 0, "s").read()
