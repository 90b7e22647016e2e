"""flame concept-fit: points from reports, the same bytes again, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.data.shards import read_index
from flame_core.digest import json_bytes, value_digest
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.measuring.estimates import OUTCOMES_SCHEMA
from flame_core.measuring.texts import read_validation_captions
from flame_core.params import ConceptFitParams, ConceptParams, Params
from flame_core.settings import settings
from flame_core.stages import concept_fit, concepts
from flame_core.work import gather
from tests.bits import flip
from tests.stages.pipeline import captioned_project, tree

RECALL = "retrieval/en/image_to_text/recall@10"


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Counted concepts of 40 drawings, and a report of the recipe `small` in which each second picture was found."""
    root = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        settings.cache_clear()
        params, layout = captioned_project(root, byte_tokenizer, 40)
        (root / "names.txt").write_text("drawing\nnumber\nzebra\n" + "\n".join(map(str, range(40))) + "\n")
        params = params.model_copy(update={"concepts": ConceptParams(file="names.txt")})
        concepts.run(params, layout)
        report(params, layout)
        yield params, layout


def keys_of(params: Params, layout: Layout) -> list[str]:
    captions = read_validation_captions(layout.captions, params.evaluate)
    return list(dict.fromkeys(caption.key for caption in captions))


def report(params: Params, layout: Layout, **changes: Any) -> None:
    """A report as `flame evaluate` writes it, as far as it is read."""
    keys = keys_of(params, layout)
    results = {
        "recipe": "small",
        "headline": [[RECALL, [RECALL]]],
        "pictures": len(keys),
        "split": value_digest(keys),
        "classification": {"names": ["drawing", "zoo_animals"], "confusion": [[3, 1], [0, 0]]},
        **changes,
    }
    rows = [
        {"measure": RECALL, "picture": number, "sum": float(number % 2), "queries": 1} for number in range(len(keys))
    ]
    outcomes = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=OUTCOMES_SCHEMA), outcomes)
    files = {
        "results.json": json_bytes(results),
        "metrics.json": json_bytes({RECALL: 0.5}),
        "outcomes.parquet": outcomes.getvalue().to_pybytes(),
        gates.CHECKS: gates.to_bytes([]),
    }
    gather(layout.report("small"), layout.state, {}, files)


def fitting(params: Params, **values: Any) -> Params:
    chosen = {"recipes": ["small"], "resamples": 20, "permutations": 20, "min_pictures": 1, "min_points": 1, **values}
    return params.model_copy(update={"concept_fit": ConceptFitParams.model_validate(chosen)})


def test_points_are_concepts_of_held_out_pictures_with_their_recall(world):
    params, layout = world
    concept_fit.run(fitting(params), layout)
    rows = {row["concept"]: row for row in pq.read_table(layout.concept_fit / "points.parquet").to_pylist()}
    keys = keys_of(params, layout)
    assert rows["drawing"]["pictures"] == len(keys)
    assert rows["drawing"]["score"] == pytest.approx(100 * sum(n % 2 for n in range(len(keys))) / len(keys))
    for number, key in enumerate(keys):  # each number is the concept of one picture, which training has never
        row = rows[str(int(key.rpartition("/")[2]))]
        assert (row["frequency"], row["score"], row["pictures"]) == (0, 100.0 * (number % 2), 1)
    assert "zebra" not in rows
    found = json.loads((layout.concept_fit / "fit.json").read_text())["recipes"]["small"]["retrieval"]
    assert found["points"] == len(keys) + 2 and found["zero"] == len(keys)
    page = (layout.concept_fit / "fit.html").read_text("utf-8")
    assert "recall of pictures with a concept" in page and str(layout.root) not in page
    first = tree(layout.concept_fit)
    shutil.rmtree(layout.concept_fit)
    concept_fit.run(fitting(params), layout)
    assert tree(layout.concept_fit) == first


def test_a_selection_is_what_its_recipe_has_seen(world):
    params, layout = world
    index = read_index(layout.shards, "train")
    few = [row.key for row in index][:3]
    pq.write_table(pa.table({"key": few}), layout.root / "few.parquet")
    trained = params.train["small"].model_copy(update={"selection": "few.parquet"})
    chosen = params.model_copy(update={"train": {**params.train, "small": trained}})
    concept_fit.run(fitting(chosen), layout)
    rows = {row["concept"]: row for row in pq.read_table(layout.concept_fit / "points.parquet").to_pylist()}
    assert rows["drawing"]["frequency"] == 3
    concept_fit.run(fitting(params), layout)
    rows = {row["concept"]: row for row in pq.read_table(layout.concept_fit / "points.parquet").to_pylist()}
    assert rows["drawing"]["frequency"] == len(index)


def test_classes_are_points_of_their_own(world, monkeypatch):
    params, layout = world
    chosen = ConceptParams(file="names.txt", benchmarks=["held-out-classes"])
    monkeypatch.setattr(
        "flame_core.concepts.concept_sources.held_out_classes", lambda layout: ["drawing", "zoo animals"]
    )
    with_classes = params.model_copy(update={"concepts": chosen})
    try:
        concepts.run(with_classes, layout)
        concept_fit.run(fitting(with_classes), layout)
        rows = pq.read_table(layout.concept_fit / "points.parquet").to_pylist()
        (row,) = [row for row in rows if row["group"] == "classes"]
        assert (row["concept"], row["score"], row["pictures"]) == ("drawing", 75.0, 4)
        report(params, layout, classification={"skipped": "fewer than two categories"})
        with pytest.raises(InputError, match="no results per class of held-out-classes: fewer than two categories"):
            concept_fit.run(fitting(with_classes), layout)
        report(params, layout, classification={"names": ["horse"], "confusion": [[1]]})
        with pytest.raises(InputError, match="the class 'horse' of held-out-classes is not among the counted concepts"):
            concept_fit.run(fitting(with_classes), layout)
    finally:
        report(params, layout)
        concepts.run(params, layout)


def test_bad_input_is_refused(world):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `concept_fit`"):
        concept_fit.run(params, layout)
    with pytest.raises(InputError, match="no concept is both counted and measured"):
        concept_fit.run(fitting(params, retrieval=False), layout)
    report(params, layout, split="0")
    with pytest.raises(InputError, match="measured on other held-out pictures"):
        concept_fit.run(fitting(params), layout)
    report(params, layout)
    with pytest.raises(ValueError, match="recipes"):
        ConceptFitParams.model_validate({"recipes": []})


def test_a_flipped_byte_in_counts_or_a_report_is_refused(world):
    params, layout = world
    for file in (layout.concepts / "frequency.parquet", layout.report("small") / "outcomes.parquet"):
        before = file.read_bytes()
        flip(file, 60, 1)
        try:
            with pytest.raises(InputError, match=rf"{file.name} is damaged"):
                concept_fit.run(fitting(params), layout)
        finally:
            file.write_bytes(before)
    concept_fit.run(fitting(params), layout)


def test_a_killed_run_leaves_the_last_out_and_a_rerun_ends_with_the_same_bytes(world, monkeypatch):
    params, layout = world
    concept_fit.run(fitting(params), layout)
    first = tree(layout.concept_fit)

    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    for name in ("fit", "fit_page", "gather"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(concept_fit, name, killed)
            concept_fit.run(fitting(params, seed=7), layout)
        assert tree(layout.concept_fit) == first
    shutil.rmtree(layout.concept_fit)
    concept_fit.run(fitting(params), layout)
    assert tree(layout.concept_fit) == first


def test_few_points_warn(world):
    params, layout = world
    concept_fit.run(fitting(params, min_points=500), layout)
    (check,) = gates.read(layout.concept_fit)
    assert (check.name, check.passed, check.blocking) == ("concept_fit_points/small/retrieval", False, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"concept_fit": {"recipes": ["other"]}, "concepts": {"nouns": {}}}, "other is not among the recipes"),
        ({"concept_fit": {"recipes": ["small"]}}, "reads what the section concepts makes"),
        (
            {"concept_fit": {"recipes": ["small"], "frequency": "image"}, "concepts": {"nouns": {}}},
            "say in concepts.images how pictures are tagged",
        ),
        ({"concepts": {"benchmarks": ["cifar10"]}}, r"concepts\.benchmarks has \['cifar10'\]; known are"),
        (
            {"concepts": {"nouns": {}, "images": {"tagger": {"kind": "tower", "recipe": "x"}, "threshold": 0.1}}},
            "x is not among the recipes",
        ),
        ({"concepts": {"nouns": {}}, "evaluate": {"train_language": "de"}}, "in English captions only"),
        (
            {"concepts": {"nouns": {}, "kinds": ["long"]}, "caption": {"long": None}},
            r"concepts\.kinds has \['long'\], which the section caption",
        ),
        (
            {
                "concepts": {
                    "nouns": {},
                    "images": {"tagger": {"kind": "table", "path": "t"}, "threshold": 0, "floor": 1},
                }
            },
            "threshold 0 is below floor 1",
        ),
    ],
)
def test_params_that_do_not_fit_together_are_refused(world, changes, said):
    params, _ = world
    content = params.model_dump(mode="json") | {"concepts": None} | changes
    with pytest.raises(ValueError, match=said):
        Params.model_validate(content)


@pytest.mark.parametrize("language", ["en", "en-GB", "en_US"])
def test_nouns_are_found_in_english_of_every_region(world, language):
    params, _ = world
    content = params.model_dump(mode="json") | {"concepts": {"nouns": {}}}
    content["evaluate"] |= {"train_language": language}
    assert Params.model_validate(content).concepts is not None
