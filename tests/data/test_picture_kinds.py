from __future__ import annotations

import pytest

from flame_core.data.picture_decoding import read_picture
from flame_core.data.picture_kinds import FORMATS, OTHER_SUFFIXES, SUFFIXES, is_picture, may_be_picture, suffix_of
from flame_core.params import IngestParams
from tests.data.drawings import drawing, encoded

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="80"><rect width="9" height="9"/></svg>'
FORMAT = {".jfif": "JPEG", ".jpe": "JPEG", ".jpg": "JPEG", ".tif": "TIFF", ".pgm": "PPM", ".pbm": "PPM"}


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_kind_that_is_read_can_be_decoded(suffix: str):
    kind = FORMAT.get(suffix, suffix[1:].upper())
    content = SVG if suffix == ".svg" else encoded(drawing(1), kind)
    assert suffix == ".svg" or kind in FORMATS
    assert max(read_picture(content, IngestParams(max_side=96)).rgb.size) == 96


def test_names():
    assert suffix_of("a/b.c.JPG") == ".jpg" and suffix_of("a.b/c") == ""
    assert is_picture("x.JFIF") and not is_picture("x.txt") and not is_picture("jpg")
    assert may_be_picture("x.heic") and may_be_picture("x") and not may_be_picture("x.cls")
    assert not {".txt", ".json", ".csv", ".parquet", ".tar"} & (SUFFIXES | OTHER_SUFFIXES)
