"""A digest of params changes with the values that decide a result, and with no new field, loss or method."""

from __future__ import annotations

import json
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from flame_core.digest import value_digest
from flame_core.params import (
    InfoNCEParams,
    MultiPositiveSigmoidParams,
    Params,
    TrainParams,
    changed_values,
    parse_params,
    read_yaml,
)
from flame_core.params.objectives import OBJECTIVES, ContrastiveParams
from flame_core.params.section import Section
from flame_core.work import stage_versions
from tests.params.digest_table import ROOT, TABLE, defaults, digests, moved_defaults, recipes

REWRITE = "if it is meant: python -m tests.params.digest_table"


class Masking(Section):
    """Values that a later method brings."""

    keep: float = 0.5


class LaterInfoNCE(InfoNCEParams):
    """A known loss with a new field."""

    smoothing: float = 0.0


class LaterLoss(ContrastiveParams):
    """A new loss."""

    name: Literal["later"] = "later"
    momentum: float = 0.99


_Later: Any = reduce(
    or_, [kind for kind in OBJECTIVES.values() if kind is not InfoNCEParams] + [LaterInfoNCE, LaterLoss]
)


class LaterTrain(TrainParams):
    """A recipe with new fields, plain, empty and nested, and a wider union of losses."""

    objective: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        _Later,
        Field(discriminator="name"),
    ] = MultiPositiveSigmoidParams()
    views: int = 1
    masking: Masking = Masking()
    guide: str | None = None
    maskings: list[Masking] = Field(default=[])


class LaterParams(Params):
    """Params with such recipes."""

    train: dict[str, LaterTrain]  # pyright: ignore[reportIncompatibleVariableOverride]


def demo() -> dict[str, Any]:
    """The content of the demo's params with their recipes resolved."""
    raw = read_yaml(ROOT / "params.yaml")
    return parse_params(raw, ROOT / "params.yaml", ROOT / "recipes").model_dump(mode="json")


def test_the_digest_of_every_recipe_is_the_stored_one() -> None:
    assert digests() == json.loads(TABLE.read_text("utf-8"))["recipes"], REWRITE


def test_a_changed_default_is_told_by_its_stage_s_version() -> None:
    """It would give other results under the same digest."""
    table = json.loads(TABLE.read_text("utf-8"))
    assert moved_defaults(table) == {}, f"bump these stages in flame_core/versions.yaml; {REWRITE}"
    for stage, stored in table["defaults"].items():
        assert stored["version"] <= stage_versions()[stage], REWRITE


def test_the_guard_sees_a_changed_default() -> None:
    table = json.loads(TABLE.read_text("utf-8"))
    table["defaults"]["train"]["fields"] |= {"OptimizerParams.weight_decay": 0.1, "Gone.field": 1}
    assert moved_defaults(table) == {"train": ["OptimizerParams.weight_decay"]}
    assert defaults()["train"]["TrainParams.optimizer"] == ["OptimizerParams", {}]  # a new field in it moves nothing


def test_new_fields_and_losses_leave_every_recipe_s_digest() -> None:
    assert digests(LaterTrain) == digests()
    assert LaterParams.model_validate(demo()).digest == Params.model_validate(demo()).digest


@pytest.mark.parametrize(
    "changed",
    [
        {"views": 2},
        {"masking": {"keep": 0.25}},
        {"guide": "flame"},
        {"maskings": [{}]},
        {"maskings": [{}, {}]},
        {"objective": {"name": "later"}},
        {"objective": {"name": "infonce", "smoothing": 0.1}},
    ],
)
def test_a_new_field_that_is_set_makes_another_digest(changed: dict[str, Any]) -> None:
    before = value_digest(LaterTrain.model_validate({"objective": {"name": "infonce"}}).identity)
    after = value_digest(LaterTrain.model_validate({"objective": {"name": "infonce"}, **changed}).identity)
    assert before != after


def test_different_values_never_share_a_digest() -> None:
    """Losses at their defaults, values back at a default, empty and absent sections: none is taken for another."""
    contents: list[dict[str, Any]] = [
        {},
        {"objective": {"name": "infonce"}},
        {"objective": {"name": "infonce", "logit_scale": 10.0}},
        {"objective": {"name": "facet_sigmoid"}, "model": {"facet_blocks": "all"}},
        {"objective": {"name": "facet_sigmoid"}, "model": {"facet_blocks": 1}},
        {"objective": {"name": "multi_positive_sigmoid", "logit_scale": 14.285714}},
        {"objective": {"name": "multi_positive_sigmoid", "logit_bias": "auto"}},
        {"objective": {"name": "multi_positive_sigmoid", "weight": 2.0}},
        {"text_tower": {}},
        {"text_tower": {"width": 8}},
        {"kinds": ["raw"]},
        {"kinds": ["short", "raw", "long"]},
        {"texts_per_image": 1},
        {"compile": False},
        {"model": {"backbone_options": {"depth": 1}}},
        {"augmentation": {"scale": [0.5, 1.0]}},
        {"optimizer": {"clip_grad_norm": 1.0}},
    ]
    found = [value_digest(TrainParams.model_validate(content).identity) for content in contents]
    assert len(set(found)) == len(contents)


def test_a_value_that_is_spelled_out_is_the_default() -> None:
    for content in recipes().values():
        recipe = TrainParams.model_validate(content)
        spelled = TrainParams.model_validate(recipe.model_dump(mode="json"))
        assert spelled.identity == recipe.identity
    assert TrainParams.model_validate(TrainParams().model_dump(mode="json")).identity == {}


def test_gates_judge_the_weights_and_do_not_make_them() -> None:
    strict = TrainParams.model_validate({"gates": {"max_loss_ratio": 0.5}})
    assert strict.identity == TrainParams().identity
    assert changed_values(strict) == {"gates": {"max_loss_ratio": 0.5}}


def test_what_has_no_default_and_what_tells_kinds_apart_is_always_there() -> None:
    values = changed_values(Params.model_validate(demo()))
    assert values["sources"] == {"tuxpaint": {"kind": "debian", "packages": ["tuxpaint-stamps-default"]}}
    assert values["llm"].keys() == {"name", "source", "sha256"}
    assert "seed" not in values["train"]["flame"] and "storage" not in values


def test_the_digest_of_params_follows_their_values() -> None:
    content = demo()
    found = {Params.model_validate(content).digest}
    for section, key, value in (("ingest", "max_side", 8), ("text", "layer", 3), ("evaluate", "recall_at", [1])):
        found.add(Params.model_validate({**content, section: {**content[section], key: value}}).digest)
    assert len(found) == 4


def test_a_recipe_without_later_fields_is_recorded_as_before_them():
    """`config.json` holds the recipe, and is an out: equal trainings stay equal bytes."""
    recorded = TrainParams().dump()
    later = {"terms", "reading", "teacher", "sidecars", "selection"}
    assert not later & recorded.keys() and "head" not in recorded["model"]
    given = {"terms": [{"name": "cosine"}], "objective": {"name": "infonce"}, "model": {"head": "pooled"}}
    recorded = TrainParams.model_validate(given).dump()
    assert recorded["terms"] == [{"name": "cosine", "weight": 1.0}] and recorded["model"]["head"] == "pooled"
    assert TrainParams.model_validate(recorded).dump() == recorded
