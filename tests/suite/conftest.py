"""A tiny random CLIP, saved by the tests."""

from __future__ import annotations

import pytest

from flame_core.suite.models.model import open_model
from tests.suite import tiny_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory, byte_tokenizer):
    return open_model("tiny", f"transformers:{tiny_clip.save(tmp_path_factory.mktemp('clip'), byte_tokenizer)}", "cpu")
