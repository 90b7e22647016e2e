import pytest

from flame_core.data.text_files import TextError, decode_text


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
