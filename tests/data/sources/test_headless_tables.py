"""Delimited texts without a header, whose columns params name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flame_core.errors import InputError
from flame_core.params import FolderSource
from tests.data.sources.one_table import NAMES, listed, pictures_in


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return pictures_in(tmp_path / "set")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"columns": ["image", "caption"]}, "names the columns of a `table`, and there is none"),
        (
            {"table": "t.jsonl", "columns": ["image", "caption"]},
            "t.jsonl names its columns itself",
        ),
        ({"table": "t.txt", "columns": ["image", "image", "caption"]}, "names a column twice"),
        ({"table": "t.txt", "columns": ["file", "caption"]}, "'image' is not one of `columns`: file, caption"),
        ({"table": "t.txt", "columns": ["image", "text"]}, "'caption' is not one of `columns`"),
        ({"table": "t.txt", "columns": ["image", "caption"], "keep_columns": ["long"]}, "'long' is not one of"),
        ({"table": "t.txt", "columns": ["image", "caption"], "group_field": "album"}, "'album' is not one of"),
    ],
)
def test_columns_that_do_not_fit_are_refused(params: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        FolderSource(kind="folder", path="unused", **params)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_text_without_a_header_is_found(root: Path, delimiter: str):
    first = f"0.png{delimiter}A nice\tdrawing; and, a line\r\n"
    lines = [f"{name}{delimiter}A drawing\r\n" for name in NAMES]
    (root / "t.csv").write_text(
        "".join([first if delimiter == "|" else "", *lines, f"0.png{delimiter}a{delimiter}b\n"])
    )
    pairs, about = listed(root, table="../t.csv", columns=["image", "caption"])
    assert all("A drawing" in pair.captions["en"] for pair in pairs.values())
    assert ["has 3 fields" in problem["detail"] for problem in about["problems"]] == [True]


@pytest.mark.parametrize(
    ("content", "params", "message"),
    [
        (
            b"0.png\ta\n",
            {},
            r"no column 'image'; .*a row already: name its columns, `columns: \[image, c",
        ),
        ("0.png\ta\n".encode("utf-16-le"), {"columns": ["image", "caption"]}, "looks like UTF-16 without a byte order"),
        (b"\xff\xfe0", {"columns": ["image", "caption"]}, "cannot be read: .* is not utf-16"),
    ],
)
def test_texts_that_cannot_be_used(root: Path, content: bytes, params: dict[str, Any], message: str):
    (root / "t.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        listed(root, table="../t.txt", **params)


def test_a_picture_that_is_missing_is_one_pair_whatever_its_captions_are_numbered(root: Path):
    (root / "t.token").write_text("".join(f"gone.jpg#{number}\ta\n" for number in range(5)))
    pairs, _ = listed(root, table="../t.token", columns=["image", "caption"])
    assert list(pairs) == [*"0123", "gone"] and "'gone.jpg'" in str(pairs["gone"].missing)
