"""Scorers on tiny models that the test saves: their numbers are those of the formula; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from flame_core.captions.table import Caption, write_captions
from flame_core.data.shards import IndexRow, PictureReader, read_index
from flame_core.errors import ComputationError, InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import ScoresParams
from flame_core.params.scores import ScoreRule
from flame_core.scoring.open_scorer import open_scorer, release_scorers
from flame_core.scoring.score_head import read_head
from flame_core.scoring.score_rules import meeting, selected_file
from flame_core.scoring.scorers import Scorer, checked_scores
from flame_core.suite.models.model import open_model
from flame_core.suite.models.picture_classifier import PictureClassifier
from tests.concepts.test_taggers import classifier
from tests.suite import tiny_clip
from tests.training.world import write_world

Rows = list[IndexRow]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Layout, Rows]:
    """Shards, whose first has seven samples or more, with one or two raw captions each."""
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    layout = Layout.find(tmp_path)
    write_world(layout.data)
    index = read_index(layout.shards, "train")
    rows = [row for row in index if row.shard == index[0].shard]
    captions = [
        Caption(row.row, row.key, "raw", f"picture {row.key} {number}", language, "source:x")
        for row in rows
        for number, language in enumerate(["en", "en", "de"] if row.row % 2 else ["en", "de"])
    ]
    path = layout.captions / Path(rows[0].shard).with_suffix(".parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_captions(path, captions)
    return layout, rows


def opened(layout: Layout, **values: object) -> Scorer:
    release_scorers()  # files may have changed
    chosen = ScoresParams.model_validate({"scorers": {"own": values}})
    return open_scorer("own", chosen.scorers["own"], layout, "en")


def jpegs(layout: Layout, rows: Rows) -> list[bytes]:
    reader = PictureReader(layout.shards)
    return [reader.jpeg(row) for row in rows]


def test_a_clip_scores_the_mean_cosine_with_the_captions_of_the_language(world, tmp_path, byte_tokenizer):
    layout, rows = world
    source = f"transformers:{tiny_clip.save(tmp_path / 'clip', byte_tokenizer)}"
    scorer = opened(layout, kind="model", source="transformers:clip")  # relative to the project
    found = checked_scores("own", scorer, rows)
    model = open_model("tiny", source, "cpu")
    for row, z, score in zip(rows, model.pictures(jpegs(layout, rows)), found, strict=True):
        texts = [f"picture {row.key} {number}" for number in range(2 if row.row % 2 else 1)]
        assert score == pytest.approx(float(np.mean(model.texts("raw", texts) @ z)), abs=1e-5)
    assert found.std() > 1e-4 and str(tmp_path) not in str(scorer.identity)
    without = open_scorer("own", ScoresParams.model_validate(
        {"scorers": {"own": {"kind": "model", "source": source}}}).scorers["own"], layout, "fr")  # fmt: skip
    with pytest.raises(InputError, match=rf"sample {rows[0].key} has no raw caption in 'fr'"):
        without.scores(rows)


@pytest.mark.parametrize(("features", "width"), [("projected", 24), ("pooled", 32)])
def test_a_linear_head_is_a_product_with_the_models_vectors(world, tmp_path, byte_tokenizer, features, width):
    layout, rows = world
    source = f"transformers:{tiny_clip.save(tmp_path / 'clip', byte_tokenizer)}"
    torch.manual_seed(1)
    weight, bias = torch.randn(1, width), torch.randn(1)
    save_file({"weight": weight, "bias": bias}, tmp_path / "linear.safetensors")
    asked = {"kind": "head", "source": "transformers:clip", "file": "linear.safetensors"}
    found = checked_scores("own", opened(layout, **asked, features=features), rows)
    model = open_model("tiny", source, "cpu")
    x = (model.pictures if features == "projected" else model.features)(jpegs(layout, rows))
    np.testing.assert_allclose(found, x @ weight.numpy()[0] + bias.numpy(), atol=1e-4)
    other = "pooled" if features == "projected" else "projected"
    with pytest.raises(InputError, match=rf"the head reads {width} numbers, and .* gives {56 - width} \({other}\)"):
        opened(layout, **asked, features=other)


def test_the_layers_of_an_mlp_are_applied_by_their_numbers(tmp_path):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4), *[torch.nn.Identity()] * 7, torch.nn.ReLU(),
        torch.nn.Linear(4, 1),
    )  # fmt: skip
    tensors = {f"layers.{name}": value.contiguous() for name, value in layers.state_dict().items()}
    assert {"layers.2.weight", "layers.11.weight"} < set(tensors)
    save_file(tensors, tmp_path / "mlp.safetensors")
    x = torch.randn(9, 6)
    head = read_head(tmp_path / "mlp.safetensors", "relu")
    assert head.width == 6
    torch.testing.assert_close(head(x).float(), layers(x)[:, 0])
    plain = read_head(tmp_path / "mlp.safetensors")  # as LAION's, which has no activations
    weights = [tensors[f"layers.{number}.weight"].double() for number in (0, 2, 11)]
    slope = plain(x) - plain(torch.zeros(9, 6))
    torch.testing.assert_close(slope, (x.double() @ weights[0].T @ weights[1].T @ weights[2].T)[:, 0])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": (2, 4)}, "the last layer gives 2 numbers"),
        ({"0.weight": (3, 4), "1.weight": (1, 5)}, "'0' gives 3 numbers, and '1' reads 5"),
        ({"bias": (1,)}, "a bias and no weight"),
        ({"weight": (1, 4), "bias": (2,)}, "has 2 numbers, and its weight 1 rows"),
        ({"weight": (1, 4), "running_mean": (4,)}, r"running_mean \[4\] is no part of a linear layer"),
        ({"weight": (1, 4, 3)}, r"weight \[1, 4, 3\] is no part"),
        ({}, "holds no tensor"),
    ],
)
def test_a_head_that_is_no_chain_of_linear_layers_is_refused(tmp_path, tensors, message):
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, tmp_path / "head.safetensors")
    with pytest.raises(InputError, match=message):
        read_head(tmp_path / "head.safetensors")


def test_a_missing_and_a_damaged_head_are_refused(tmp_path):
    with pytest.raises(InputError, match="is missing, the head of a scorer"):
        read_head(tmp_path / "none.safetensors")
    (tmp_path / "head.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_head(tmp_path / "head.safetensors")


def test_a_classifier_scores_the_probability_of_its_label(world, tmp_path):
    layout, rows = world
    source = str(classifier(tmp_path / "vit", several=False))
    found = checked_scores("own", opened(layout, kind="classifier", source="transformers:vit", label="dog"), rows)
    expected = PictureClassifier(source, "cpu").probabilities(jpegs(layout, rows))[:, 2]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ParamsError, match=r"own\.label: the classifier has no label 'nsfw'; it has Red_Foxes, tabby"):
        opened(layout, kind="classifier", source=f"transformers:{source}", label="nsfw")


def test_a_timm_backbone_has_no_projected_vectors(world, tmp_path):
    import timm

    layout, rows = world
    torch.manual_seed(0)
    backbone = timm.create_model("resnet10t", num_classes=0)
    save_file(backbone.state_dict(), tmp_path / "weights.safetensors")
    save_file({"weight": torch.ones(1, 512)}, tmp_path / "head.safetensors")
    source = f"timm:resnet10t@{tmp_path / 'weights.safetensors'}"
    asked = {"kind": "head", "source": source, "file": "head.safetensors"}
    with pytest.raises(ParamsError, match=r"scores\.scorers\.own\.features is projected, .* write pooled"):
        opened(layout, **asked)
    found = checked_scores("own", opened(layout, **asked, features="pooled"), rows[:3])
    expected = open_model("x", source, "cpu").features(jpegs(layout, rows[:3])).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def write_table(path: Path, keys: Sequence[str], values: Sequence[float | None], column: str = "aesthetic") -> None:
    pq.write_table(pa.table({"key": keys, column: values}), path)


def test_a_tables_column_is_read_by_key(world, tmp_path):
    layout, rows = world
    keys = [row.key for row in rows]
    write_table(tmp_path / "t.parquet", [*keys[::-1], "another"], [*map(float, range(len(keys))), -5.0])
    asked = {"kind": "table", "path": "t.parquet"}
    found = checked_scores("own", opened(layout, **asked, column="aesthetic"), rows)
    assert found.tolist() == list(map(float, range(len(keys))))[::-1]
    with pytest.raises(InputError, match="no column `beauty`; it has key, aesthetic"):
        opened(layout, **asked, column="beauty")
    for values, message in (
        ((keys[:-2], [0.5] * (len(keys) - 2)), f"no row for {keys[-2]} and 1 more"),
        (([*keys, keys[3]], [0.5] * (len(keys) + 1)), f"the key '{keys[3]}' is there more than once"),
        ((keys, [0.5, None] + [0.5] * (len(keys) - 2)), f"aesthetic of '{keys[1]}' is no finite number"),
    ):
        write_table(tmp_path / "other.parquet", *values)
        with pytest.raises(InputError, match=message):
            opened(layout, kind="table", path="other.parquet", column="aesthetic").scores(rows)


class Fixed:
    """A scorer that gives these values."""

    def __init__(self, values: list[float], bounds: tuple[float, float]) -> None:
        self.identity: dict[str, Any] = {}
        self.values, self.bounds = values, bounds

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        return np.array(self.values)


def test_scores_that_are_no_numbers_or_out_of_bounds_are_refused_by_key(world):
    _, rows = world
    with pytest.raises(ComputationError, match=rf"own: {rows[1].key} got nan, not a finite number"):
        checked_scores("own", Fixed([0.0, float("nan")], (-np.inf, np.inf)), rows[:2])
    with pytest.raises(ComputationError, match=rf"own: {rows[0].key} got 1.5, not a number from 0 to 1"):
        checked_scores("own", Fixed([1.5, 0.5], (0.0, 1.0)), rows[:2])
    assert checked_scores("own", Fixed([1.0 + 1e-7], (-1.0, 1.0)), rows[:1]).dtype == np.float32


def test_a_selection_holds_what_meets_all_rules(tmp_path):
    keys = [f"k{number}" for number in range(10)]
    scores = {"a": np.arange(10, dtype=np.float32), "b": np.arange(10, dtype=np.float32)[::-1]}
    rules = {"a": ScoreRule(min=3, max=8), "b": ScoreRule(top=0.5)}
    found = meeting("good", rules, scores, keys)
    assert np.flatnonzero(found).tolist() == [3, 4]
    (tmp_path / "x.parquet").write_bytes(selected_file(found, keys, scores))
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [
        {"key": "k3", "score_a": 3.0, "score_b": 6.0},
        {"key": "k4", "score_a": 4.0, "score_b": 5.0},
    ]
    tied = {"a": np.zeros(10, np.float32)}
    chosen = meeting("some", {"a": ScoreRule(top=0.25)}, tied, keys)
    assert chosen.sum() == 3 and (meeting("more", {"a": ScoreRule(top=0.5)}, tied, keys) | ~chosen).all()
    with pytest.raises(InputError, match=r"selections\.none keeps no sample: a keeps 0 of 10 \(.* from 0 to 9\)"):
        meeting("none", {"a": ScoreRule(min=9.5)}, scores, keys)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scorers": {}}, "at least 1"),
        ({"scorers": {"a": {"kind": "model", "source": "timm:x"}}}, "must be transformers:<...> or open_clip:<...>"),
        ({"scorers": {"a": {"kind": "classifier", "source": "x", "label": "y"}}}, "must be transformers:"),
        ({"selections": {"s": {"b": {"min": 1}}}}, "there is no scorer b; scorers has a"),
        ({"selections": {"s": {}}}, "selection s has no rule"),
        ({"selections": {"s": {"a": {}}}}, "write min, max or top"),
        ({"selections": {"s": {"a": {"min": 2, "max": 1}}}}, "min 2 is above max 1"),
        ({"selections": {"s": {"a": {"min": float("nan")}}}}, "finite"),
        ({"selections": {"s": {"a": {"top": 0}}}}, "greater than 0"),
    ],
)
def test_params_that_say_nothing_or_contradict_themselves_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ScoresParams.model_validate({"scorers": {"a": {"kind": "tower", "recipe": "flame"}}} | values)
