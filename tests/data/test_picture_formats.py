from __future__ import annotations

import gzip

import pytest

from flame_core.data.picture_formats import why_unreadable
from tests.data.drawings import drawing, encoded, png


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "image_unsupported", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "image_unsupported", "HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "image_unsupported", "raw file"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "image_unsupported", "video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "image_unsupported", "JPEG XL"),
        (b"8BPS\0\1", "image_unsupported", "Photoshop"),
        (b"%PDF-1.7", "image_unsupported", "PDF"),
        (gzip.compress(b"<svg/>", mtime=0), "image_unsupported", "gzip"),
        (encoded(drawing(1), "ICO"), "image_unsupported", "icon"),
        (b" <!DOCTYPE html><title>404</title>", "image_unreadable", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "image_unreadable", "git lfs pull"),
        (png(1)[:20], "image_unreadable", "PNG: its header is damaged"),
        (b"nothing at all", "image_unreadable", "known format"),
    ],
)
def test_what_bytes_are_that_are_not_decoded(content, reason, detail):
    found = why_unreadable(content)
    assert found[0] == reason
    assert detail in found[1]
