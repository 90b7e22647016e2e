from pathlib import Path

import pytest

from flame_core.data.text_files import TextError, decode_text, text_lines, undecoded


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(encoding):
    assert decode_text("naïve 猫".encode(encoding)) == "naïve 猫"


def test_bytes_of_another_encoding_are_named_never_replaced():
    with pytest.raises(TextError, match=r"line 2 is not utf-8: byte 0xef at 8; it may be cp1252"):
        decode_text("a cat\nna\u00efve".encode("cp1252"))
    assert decode_text("na\u00efve".encode("cp1252"), "cp1252") == "na\u00efve"


def test_utf_16_without_a_mark_is_named():
    with pytest.raises(TextError, match="UTF-16"):
        decode_text("na\u00efve".encode("utf-16-le"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_keep_their_ends(tmp_path: Path, encoding):
    (tmp_path / "t").write_bytes("é\r\n猫\n\nx".encode(encoding))
    assert list(text_lines(tmp_path / "t")) == ["é\r\n", "猫\n", "\n", "x"]


def test_lines_of_another_encoding_are_marked(tmp_path: Path):
    (tmp_path / "t").write_bytes("one\nl\u2019été\n猫".encode("utf-8").replace("é".encode(), b"\xe9"))
    assert [undecoded(line) for line in text_lines(tmp_path / "t")] == [False, True, False]
    (tmp_path / "t").write_bytes("été".encode("latin-1"))
    assert list(text_lines(tmp_path / "t", "latin-1")) == ["été"]


def test_lines_that_end_within_a_character(tmp_path: Path):
    (tmp_path / "t").write_bytes("ab\ncd".encode("utf-16")[:-1])
    with pytest.raises(TextError, match="is not utf-16"):
        list(text_lines(tmp_path / "t"))


def test_a_line_without_an_end_is_not_read_whole(tmp_path: Path):
    (tmp_path / "t").write_text("a\n" + "x" * 50)
    assert len(list(text_lines(tmp_path / "t", longest=50))) == 2
    with pytest.raises(TextError, match="line 2 has more than 49 characters"):
        list(text_lines(tmp_path / "t", longest=49))
