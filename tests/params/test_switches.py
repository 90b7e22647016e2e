"""Words that YAML takes for true and false are no numbers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from flame_core.params import IngestParams, ModelParams, TrainParams


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (IngestParams, {"near_duplicate_distance": False}),
        (IngestParams, {"val_fraction": True}),
        (TrainParams, {"epochs": True}),
        (TrainParams, {"kinds": ["raw", False]}),
        (TrainParams, {"optimizer": {"learning_rate": True}}),
    ],
)
def test_a_switch_is_no_number(section, values):
    with pytest.raises(ValidationError, match="is no value for it; YAML also reads the plain words yes, no"):
        section.model_validate(values)


def test_a_switch_is_one_where_it_is_meant():
    assert TrainParams.model_validate({"compile": False}).compile is False
    assert ModelParams.model_validate({"backbone_options": {"qkv_bias": False}}).backbone_options["qkv_bias"] is False
