"""Pictures that people send to the model server: every kind is made a JPEG, bombs are refused at once."""

from __future__ import annotations

import base64
import time

import pytest

from flame_core.errors import InputError
from flame_core.params import IngestParams
from flame_core.serving.predictor import Predictor
from tests.data.drawings import drawing, encoded
from tests.data.test_picture_bounds import scans_of


@pytest.fixture
def predictor() -> Predictor:
    """One without a model: pictures are made ready before it is asked."""
    made = Predictor.__new__(Predictor)
    made.ingest = IngestParams(max_side=64)
    return made


@pytest.mark.parametrize("packed", [False, True], ids=["bytes", "base64"])
def test_many_scans_are_answered_at_once(predictor, packed):
    bomb = scans_of((4000, 4000), 3000)
    start = time.process_time()
    with pytest.raises(InputError, match="picture 3: image_too_many_scans"):
        predictor._jpeg(base64.b64encode(bomb).decode() if packed else bomb, 3)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"])
def test_every_kind_of_picture_is_made_a_jpeg(predictor, kind):
    assert predictor._jpeg(encoded(drawing(1, (60, 50)), kind), 0).startswith(b"\xff\xd8")


def test_what_is_not_decoded_is_named(predictor):
    with pytest.raises(InputError, match="picture 0: image_unsupported: JPEG 2000"):
        predictor._jpeg(encoded(drawing(1), "JPEG2000"), 0)
