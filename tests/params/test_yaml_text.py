"""Hostile YAML: refused by file, line and key, in little time and memory."""

from __future__ import annotations

import contextlib
import os
import random
import time
import tracemalloc
from pathlib import Path

import pytest

from flame_core.errors import ParamsError
from flame_core.params.yaml_text import MOST_BYTES, read_yaml_file, read_yaml_text

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: x}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"line 5, a4: more than 100,000 values"),
        (MERGES, r"a1\d\.<<: more than 100,000 values"),
        ("[" * 100_000, r"line 1: values are nested more than 50 deep"),
        ("{a: " * 60 + "1" + "}" * 60, r"nested more than 50 deep"),
        ("- " * 100_000, r"nested more than 50 deep"),
        ("a: &a [*a]", r"line 1, a\.0: it contains itself|line 1, a: it contains itself"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", r"line 4, a\.b: the key is given twice"),
        ("a: 2026-01-01", r"line 1, a: a value of the kind timestamp .*quotes"),
        ("a: !!binary aGk=", r"a: a value of the kind binary"),
        ("a: !!python/object/apply:os.system ['true']", r"a: a value of the kind .*os\.system"),
        ("a: .nan", r"a: '\.nan' is not a finite number"),
        ("a: [-.inf]", r"a\.0: '-\.inf' is not a finite number"),
        ("a: 1.0e+999", r"a: '1\.0e\+999' is not a finite number"),
        ("a: 9223372036854775808", r"does not fit into 64 bits"),
        ("a: " + "9" * 10_000, r"a: '9+…9+' cannot be read"),
        ("no: 1", r"a key must be a text"),
        ("? [a]\n: 1", r"a key must be a text"),
        ("? !!str {a: b}\n: 1", r"a key must be a text"),
        ("a: !!bool abc", r"line 1, a: 'abc' cannot be read"),
        ("a: !!int ''", r"a: '' cannot be read"),
        ("a: !!float _", r"a: '_' cannot be read"),
        ("a: caf\udce9", r"is not valid YAML"),  # an argument that is no text
        ('a: "x\\0y"', r"a: the text has the character 0x0000"),
        ('a: "x\\ey"', r"a: the text has the character 0x001b"),
        ('"x\\0": 1', r"the text has the character 0x0000"),
        ("a: [1\nb: 2", r"is not valid YAML: line 2, column 2: "),
        ("a:\n\tb: 2", r"is not valid YAML: line 2, column 1: .*; a tab cannot indent a line in YAML, use spaces$"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n", r", line 2: a merge left a conflict here"),
        ("a: \x07", r"is not valid YAML"),
        ("x" * (MOST_BYTES + 1), r"too large"),
    ],
)
def test_what_is_refused(text, message):
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ParamsError, match=f"^here.*{message}") as refused:
        read_yaml_text(text, "here")
    assert time.process_time() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()
    assert len(str(refused.value)) < 1000


def test_any_text_is_read_or_refused():
    draw = random.Random(3)
    marks = [
        "a",
        "b: ",
        "- ",
        "&x ",
        "*x",
        "<<: ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\n",
        "\n  ",
        "? ",
        ": ",
        "'",
        '"',
        "|",
        "#",
    ]
    tags = [f"!!{tag} " for tag in ("bool", "int", "float", "str", "null", "merge", "map", "seq", "set", "omap")]
    values = ["0x", "1", "-", "_", ".", "~", "true", "\t", "%", "---\n", "!", "=", "2020-01-01", "\udcff", "\0"]
    for _ in range(20_000):
        with contextlib.suppress(ParamsError):
            read_yaml_text("".join(draw.choices(marks + tags + values, k=draw.randint(1, 14))), "here")


def test_what_is_read():
    text = "a: &a {x: 1, y: [1.5, null, true, 'no']}\nb: {<<: *a, x: 2}\nc: *a\nd: |\n  two\n  lines\n"
    a = {"x": 1, "y": [1.5, None, True, "no"]}
    assert read_yaml_text(text, "here") == {"a": a, "b": {**a, "x": 2}, "c": a, "d": "two\nlines\n"}
    assert read_yaml_text("", "here") is None
    assert read_yaml_text("5", "here") == 5


def test_files(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: caf\xc3\xa9")  # a byte order mark
    assert read_yaml_file(path) == {"a": "café"}
    for content, message in (
        (b"a: 1\nb: caf\xe9\n", r"line 2: byte 0xe9 is not UTF-8"),
        ("a: 1".encode("utf-16"), r"line 1: byte 0xff is not UTF-8"),
        (b"#" * (MOST_BYTES + 1), r"too large"),
    ):
        path.write_bytes(content)
        with pytest.raises(ParamsError, match=f"params.yaml.*{message}"):
            read_yaml_file(path)


def test_what_is_no_file(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")  # would be waited for
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "endless", "folder", "loop"):
        with pytest.raises(ParamsError, match=name):
            read_yaml_file(tmp_path / name)
    with pytest.raises(ParamsError, match=r"none does not exist"):
        read_yaml_file(tmp_path / "none")
