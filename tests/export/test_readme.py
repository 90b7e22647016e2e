"""The card of an exported folder says how its own tower wants its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flame_core.export.about import About
from flame_core.export.readme import readme
from flame_core.export.usage import Usage
from tests.export import subjects

ABOUT = About("A tower.", "")


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("plain", "minus CLIP's mean, divided by its standard deviation."),
        ("feature-map", "(0.485, 0.456, 0.406), divided by their standard deviation (0.229, 0.224, 0.225)."),
    ],
)
def test_the_mean_of_the_pixels_is_that_of_the_tower(tmp_path: Path, byte_tokenizer: Any, name: str, moments: str):
    subject = subjects.subject(subjects.trained(tmp_path, name, byte_tokenizer))
    text = readme(subject, ABOUT, Usage("timm", {}, {}))
    assert moments in " ".join(text.split())
    assert ("CLIP's mean" in text) == (name == "plain")
