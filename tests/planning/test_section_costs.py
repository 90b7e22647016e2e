"""What optional stages take at the sizes of CC3M and LAION-400M, in `flame plan` and `flame status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flame_core.codes.tower_shape import TowerShape, model_shape, recipe_shape, scorer_shapes
from flame_core.layout import Layout
from flame_core.params import (
    CodesParams,
    FeaturesParams,
    NoiseParams,
    Params,
    SelectParams,
    SemDedupParams,
    TuneParams,
    parse_params,
    read_yaml,
)
from flame_core.planning.plan import plan
from flame_core.planning.section_costs import section_costs, time_of
from flame_core.planning.start import given
from flame_core.scoring.picture_passes_cost import features_section
from flame_core.selections.selection_cost import codes_section, noise_section, select_section, semdedup_section
from flame_core.tuning.cost import ASSUMED_PICTURES, tune_section
from tests.planning.quantities import gigabytes, hours

ROOT = Path(__file__).parents[2]
CC3M, LAION = 3_318_333, 414_080_000
VIT_B = TowerShape(35.1e9, 196, 768)
CODES: dict[str, Any] = {"tower": {"recipe": "flame"}, "codes": 1024}
SELECT = {"clusters": 3000, "selections": {"quarter": {"share": 0.25}}}


def values(section: dict[str, dict[str, str]]) -> dict[str, str]:
    (found,) = section.values()
    return found


def number(text: str) -> float:
    return float(text.split()[0].replace(",", ""))


def test_codes_are_one_pass_of_the_tower_over_all_pictures_and_a_few_again():
    params = CodesParams.model_validate(CODES)
    small, large = (values(codes_section(params, count, VIT_B, 100)) for count in (CC3M, LAION))
    fitted, of_pca = 2_000_000 // 16, 2**14 // 16  # pictures that give 16 tokens each
    assert number(small["pictures through the tower"]) == CC3M + fitted + of_pca + 200
    assert hours(small["time of the tower"]) == pytest.approx((CC3M + fitted) * 35.1e9 / 1e14 / 3600, rel=0.05)
    assert hours(large["time of the tower"]) == pytest.approx(LAION * 35.1e9 / 1e14 / 3600, abs=1)  # 40 hours
    assert gigabytes(small["codes and keys"]) == pytest.approx(CC3M * 408 / 1e9, abs=0.05)  # the paper: 1.1 GB
    assert small["memory"] == large["memory"]  # of what is fitted
    assign = 2 * CC3M * 196 * 64 * (1024 + 768) / 5e10 / 3600
    assert hours(small["time of one core"]) == pytest.approx(assign, rel=0.2)
    frozen = values(codes_section(params.model_copy(update={"frozen": "old"}), CC3M, VIT_B, 100))
    assert number(frozen["pictures through the tower"]) == CC3M + 200


def test_a_captioner_is_trained_on_whole_pictures():
    own = {"codebook": "vq", "vq": {"steps": 1000, "batch_size": 10, "width": 64, "layers": 1, "words": 100}}
    params = CodesParams.model_validate(CODES | own)
    found = values(codes_section(params, CC3M, VIT_B, 100))
    fitted, of_pca = 2_000_000 // 196, 2**14 // 16
    assert number(found["pictures through the tower"]) == CC3M + fitted + of_pca + 200
    kmeans = values(codes_section(CodesParams.model_validate(CODES | {"steps": 1}), CC3M, VIT_B, 100))
    forward = 196 * (64 * 64 + 2 * 64**2) + 30 * (14 * 64**2 + 2 * 196 * 64 + 100 * 64)  # products per picture
    training = (3 * forward + 196 * 1024 * 64) * 2 * 1000 * 10 / 5e10 / 3600
    assert hours(found["time of one core"]) - hours(kmeans["time of one core"]) == pytest.approx(training, abs=0.11)


def test_few_pictures_are_all_fitted_to():
    params = CodesParams.model_validate(CODES)
    found = values(codes_section(params, 735, TowerShape(2e8, 36, 192), 1))
    assert number(found["pictures through the tower"]) == 3 * 735 + 200  # 2^14 tokens are 22 of each


def test_a_selection_grows_with_the_samples():
    params = SelectParams.model_validate(SELECT)
    small, large = (values(select_section(params, count, 1024, 196)) for count in (CC3M, LAION))
    labels = 2 * LAION * 64 * (1024 + 3000) / 5e10 / 3600
    iterations = 2 * 20 * 1_000_000 * 3000 * 64 / 5e10 / 3600
    assert hours(large["time of one core"]) == pytest.approx(labels + iterations + LAION / 5e4 / 3600, rel=0.02)
    assert gigabytes(small["memory"]) < 4 < 200 < gigabytes(large["memory"])
    assert gigabytes(large["keys of the selections"]) == pytest.approx(LAION / 4 * 28 / 1e9, abs=0.01)


def test_semantic_duplicates_are_compared_within_clusters(tmp_path: Path):
    chosen = SemDedupParams(clusters=1000)
    few, many = (values(semdedup_section(chosen.model_copy(update={"clusters": k}), CC3M, 768)) for k in (500, 50_000))
    compared = 2 * CC3M**2 / 500 * 768 / 5e10 / 3600
    assert hours(few["time of one core"]) == pytest.approx(compared, rel=0.1)
    clustered = 2 * (20 * 1e6 + CC3M) * 50_000 * 64 / 5e10 / 3600
    assert clustered < hours(many["time of one core"]) < 1.4 * clustered  # and the first centroids
    layout = Layout.find(tmp_path)
    features = {"model": {"backbone": "vit_small_patch16_224", "head": "pooled", "init": {"source": "path:vits"}}}
    sections = {"features": features, "semdedup": {"clusters": 1000}}
    known = section_costs(params_with(sections), layout, CC3M, 100)["semdedup"]
    assert known == semdedup_section(chosen, CC3M, 384)
    elsewhere = params_with({"semdedup": {"clusters": 1000, "vectors": "my/vectors"}})
    assert (
        "my/vectors are not there yet" in values(section_costs(elsewhere, layout, CC3M, 100)["semdedup"])["not counted"]
    )


def test_noise_says_how_many_texts_move():
    found = values(noise_section(NoiseParams(shares=[0.05, 0.3]), CC3M))
    assert found["moved"] == "165,916 at 0.05, 995,499 at 0.3" and found["sidecar"].startswith("26.5 MB")
    assert found["time of one core"] == "66 s" and found["memory"] == "2.0 GB"


def test_heads_are_counted_by_preset_factor_and_seed():
    params = TuneParams(recipes=["flame"], probed=["noise"], benchmark="cifar10", baselines=["clip"])
    towers = {"flame": (35.1e9, 768), "noise": (35.1e9, 768)}
    ((title, found),) = tune_section(params, CC3M, towers, 100).items()
    assert title == f"heads: {(1 + 1 + 4 + 4) * 3 + 3} on 10,000 pictures at most"
    assert hours(found["time of the towers"]) == pytest.approx(10_000 * 35.1e9 * (5 + 1) / 1e14 / 3600, rel=0.05)
    layers = 12 * 128 * 4 * 768**2  # forward and backward of a step's 128 rows
    steps = 27 * 30 * (ASSUMED_PICTURES // 64)
    assert hours(found["time of one core"]) > layers * steps / 5e10 / 3600
    assert found["not counted"] == "clip" and "assumed" in found["basis"]


def test_stored_features_are_a_pass_of_every_view():
    model = {"backbone": "tf_efficientnet_lite0", "image_size": 224, "head": "pooled", "init": {"source": "timm:x"}}
    params = FeaturesParams.model_validate({"model": model, "dtype": "int8"})
    shape = model_shape(params.model)
    assert shape.dims == 1280 and shape.flops == pytest.approx(2 * 0.39e9, rel=0.05)  # published: 0.39 G products
    found = values(features_section(params, CC3M, shape, 100))
    assert found["pictures through the tower"].startswith(f"{2 * CC3M:,} of ")
    assert gigabytes(found["vectors"]) == pytest.approx(2 * CC3M * 1280 / 1e9, abs=0.01)
    assert hours(found["time of the tower"]) == pytest.approx(2 * CC3M * shape.flops / 1e14 / 3600, rel=0.05)


def test_scores_are_a_pass_per_model_and_nothing_for_a_table(tmp_path: Path):
    scorers = {
        "own": {"kind": "tower", "recipe": "flame"},
        "clip": {"kind": "model", "source": f"transformers:{tiny_clip(tmp_path)}"},
        "beauty": {"kind": "head", "source": "timm:resnet18", "file": "head.safetensors"},
        "nsfw": {"kind": "classifier", "source": "transformers:somebody/elses", "label": "nsfw"},
        "given": {"kind": "table", "path": "scores.parquet", "column": "score"},
    }
    params = params_with({"scores": {"scorers": scorers}})
    assert params.scores is not None
    layout = Layout.find(tmp_path)
    shapes = scorer_shapes(params, params.scores, layout)
    assert list(shapes) == ["own", "clip", "beauty", "nsfw"]
    clip, beauty = shapes["clip"], shapes["beauty"]
    assert isinstance(clip, TowerShape) and (clip.patches, clip.dims) == (1 + 4, 32)  # CLS and 2 x 2 patches
    assert isinstance(beauty, TowerShape) and beauty.flops == pytest.approx(2 * 1.81e9, rel=0.02)  # published
    found = values(section_costs(params, layout, CC3M, 100)["scores"])
    assert found["not counted"] == "nsfw: transformers:somebody/elses is no folder on this machine"
    assert found["read from tables"] == "1" and "pictures through nsfw" not in found
    counted = sum(each.flops for each in shapes.values() if isinstance(each, TowerShape))
    assert hours(found["time of the models"]) == pytest.approx(CC3M * counted / 1e14 / 3600, abs=0.01)
    assert gigabytes(found["numbers"]) == pytest.approx(4 * 5 * CC3M / 1e9, abs=0.001)


def tiny_clip(folder: Path) -> Path:
    """A config is enough."""
    from transformers import CLIPConfig

    vision = {"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPConfig(vision_config=vision).save_pretrained(folder / "clip")
    return folder / "clip"


def test_a_model_whose_config_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "broken").mkdir()
    scorers = {"clip": {"kind": "model", "source": f"transformers:{tmp_path / 'broken'}"}}
    found = values(
        section_costs(params_with({"scores": {"scorers": scorers}}), Layout.find(tmp_path), CC3M, 100)["scores"]
    )
    assert found["not counted"].startswith(f"clip: {tmp_path / 'broken'} cannot be made from its config")
    assert time_of(found) == "not counted"


def params_with(sections: dict[str, Any]) -> Params:
    return parse_params(read_yaml(ROOT / "params.yaml") | sections, Path("params.yaml"), ROOT / "recipes")


def test_a_plan_and_a_status_have_them(tmp_path: Path):
    layout = Layout.find(tmp_path)
    sections = {"codes": CODES, "select": SELECT, "noise": {}, "tune": {"recipes": ["flame"]}}
    params = params_with(sections)
    found = section_costs(params, layout, CC3M, 100)
    assert list(found) == ["codes", "select", "noise", "tune"]
    shape = recipe_shape(params.train["flame"])
    size, patch = (params.train["flame"].model.backbone_options[name] for name in ("img_size", "patch_size"))
    assert shape.patches == (size // patch) ** 2
    whole = plan(params, layout, given(params, layout, CC3M, {}), 100, 1)
    assert {title for section in found.values() for title in section} <= whole.keys()
    plain = plan(params_with({}), layout, given(params, layout, CC3M, {}), 100, 1)
    assert len(whole) == len(plain) + 4


def test_a_tower_that_is_not_there_is_not_counted(tmp_path: Path):
    params = params_with({"codes": CODES | {"tower": {"path": "models/old"}}, "select": SELECT})
    found = section_costs(params, Layout.find(tmp_path), CC3M, 100)
    assert values(found["codes"]) == {"not counted": "the tower models/old is not there yet"}
    assert "time of one core" in values(found["select"])
