"""Vectors are kept by the pictures' bytes; a harmful picture is refused, and none is clipped."""

from __future__ import annotations

import io
import os
import time

import numpy as np
import pytest
from PIL import Image

from flame_core.errors import ComputationError, InputError
from flame_core.settings import Settings
from flame_core.suite import encoding
from flame_core.suite.content import Picture
from flame_core.suite.encoding import Vectors, encoded
from flame_core.suite.tasks.segmentation import view_of_mask
from tests.suite.datasets import COLOURS, picture, put


def test_another_picture_of_the_same_size_is_encoded_again(model, tmp_path):
    """The same picture under another name or in a tar is not encoded again."""
    path = put(tmp_path / "a.bmp", picture("red", "BMP"))
    about = path.stat()
    red = np.array(encoded(model, "views", [Picture("a", path)], tmp_path / "work"))
    put(path, picture("blue", "BMP"))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_size == about.st_size
    blue = encoded(model, "views", [Picture("a", path)], tmp_path / "work")
    np.testing.assert_array_equal(blue, model.views([picture("blue", "BMP")]))
    assert np.abs(blue - red).max() > 1e-3
    units = len(list((tmp_path / "work").rglob("vectors.npy")))
    content = picture("red", "BMP")
    packed = Picture("b", put(tmp_path / "b", b"xx" + content), 2, len(content))
    np.testing.assert_array_equal(encoded(model, "views", [packed], tmp_path / "work"), red)
    assert len(list((tmp_path / "work").rglob("vectors.npy"))) == units == 2


def bomb(scans: int) -> bytes:
    plain = picture("red", "JPEG", (2000, 2000), progressive=True)
    last = plain[plain.rindex(b"\xff\xda") : -2]
    return plain[:-2] + last * scans + plain[-2:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bomb(3000), "image_too_many_scans"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0" + b"\x7f\x45\x6c\xe3", "image_"),
        (b"GIF89a", "image_unreadable"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "image_unsupported"),
        (b"", "image_"),
    ],
    ids=["scans", "pixels", "header", "heic", "empty"],
)
def test_a_hostile_picture_is_refused_before_it_is_decoded(model, tmp_path, content, reason):
    bad = Picture("bad", put(tmp_path / "bad.jpg", content))
    good = Picture("good", put(tmp_path / "good.jpg", picture("red")))
    start = time.process_time()
    with pytest.raises(InputError, match=rf"bad.jpg: bad cannot be decoded \({reason}.*remove it"):
        encoded(model, "views", [good, bad], tmp_path / "work")
    assert time.process_time() - start < 5


def test_sixteen_bits_are_not_clipped_to_white(model, tmp_path):
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint16), (64, 1))
    for name, values in (("wide", ramp * 257), ("narrow", ramp.astype(np.uint8))):
        file = io.BytesIO()
        Image.fromarray(values).save(file, "PNG")
        put(tmp_path / f"{name}.png", file.getvalue())
    wide, narrow = (Picture(name, tmp_path / f"{name}.png") for name in ("wide", "narrow"))
    found = encoded(model, "views", [wide, narrow], tmp_path / "work")
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_what_is_transparent_is_white(model, tmp_path):
    """Below it there may be any colour."""
    half = Image.new("RGB", (32, 32), "white")
    half.paste("red", (0, 0, 16, 32))
    clear = Image.new("RGBA", (32, 32), (0, 0, 255, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 16, 32))
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.paste(1, (0, 0, 16, 32))
    pictures = []
    for name, image, options in (("opaque", half, {}), ("clear", clear, {}), ("palette", palette, {"transparency": 0})):
        image.save(tmp_path / f"{name}.png", **options)
        pictures.append(Picture(name, tmp_path / f"{name}.png"))
    opaque, *others = encoded(model, "views", pictures, tmp_path / "work")
    for found in others:
        np.testing.assert_allclose(found, opaque, atol=1e-6)


def test_a_mask_that_is_a_bomb_is_refused():
    with pytest.raises(InputError, match=r"mask m cannot be decoded \(image_too_many_scans"):
        view_of_mask(bomb(3000), "m", 3, 255)


def test_threads_read_the_same_vectors_and_refuse_the_same_picture(model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_CHUNK", 3)
    paths = [put(tmp_path / f"{colour}.png", picture(colour, "PNG")) for colour in COLOURS]
    pictures = [Picture(path.stem, path) for path in paths]
    alone = encoded(model, "views", pictures, tmp_path / "alone")
    monkeypatch.setattr(encoding, "settings", lambda: Settings(loader_workers=3))
    np.testing.assert_array_equal(encoded(model, "views", pictures, tmp_path / "threads"), alone)
    for name in ("blue", "black"):
        put(tmp_path / f"{name}.png", b"GIF89a")
    with pytest.raises(InputError, match=r"blue\.png: blue cannot be decoded"):
        encoded(model, "views", [Picture(path.stem, path) for path in paths], tmp_path / "threads")


def test_features_that_are_not_finite_are_refused_by_picture(model, tmp_path, monkeypatch):
    good, bad = (Picture(name, put(tmp_path / name, picture(name))) for name in ("red", "blue"))
    features = model.features
    vectors = Vectors(model, "raw", tmp_path / "work")
    np.testing.assert_allclose(np.linalg.norm(vectors.features([good, bad]), axis=1), 1, rtol=1e-6)

    def broken(jpegs):
        found = features(jpegs)
        found[[jpeg == bad.read() for jpeg in jpegs], 1] = np.nan
        return found

    monkeypatch.setattr(model, "features", broken)
    with pytest.raises(ComputationError, match="features of blue are not finite"):
        Vectors(model, "raw", tmp_path / "other").features([good, bad])
