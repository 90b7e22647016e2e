"""flame scores: sidecars and selections of planted scores, the same after a kill, and only what is new."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flame_core import gates
from flame_core.absent_outs import making
from flame_core.codes.patch_tokens import TrainedTower
from flame_core.data.key_selection import select
from flame_core.data.shards import PictureReader, read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import GateError, InputError, ParamsError
from flame_core.graph.section_stages import section_stages
from flame_core.layout import Layout
from flame_core.params import Params, ScoresParams
from flame_core.selections.filters import read_scores
from flame_core.stages import scores
from flame_core.stages.scores import ScoreTask, score_shard
from flame_core.text.store import Drawn, TrainStore, unit
from flame_core.verification import verify
from flame_core.work import WorkCache
from tests.concepts.test_taggers import classifier
from tests.selections.coded_project import coded_project
from tests.stages.pipeline import tree
from tests.stages.units import computed_by, killed_after


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout, dict[str, float]]]:
    """Shards of 40 drawings with a tower, a classifier, and a table of scores from 0 to 1; {key: score}."""
    root = tmp_path_factory.mktemp("scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = coded_project(root, byte_tokenizer)
        keys = [row.key for row in read_index(layout.shards, "train")]
        draw = np.random.default_rng(0).permutation(len(keys)) / (len(keys) - 1)
        planted = dict(zip(keys, draw.tolist(), strict=True))
        pq.write_table(pa.table({"key": keys, "beauty": list(planted.values())}), root / "table.parquet")
        classifier(root / "vit", several=False)
        yield params, layout, planted


def scoring(world: tuple[Params, Layout, dict[str, float]], **values: Any) -> Params:
    """Params with a section `scores`: a table, a tower and a classifier, and selections by them."""
    params, layout, _ = world
    scorers = {
        "beauty": {"kind": "table", "path": "table.parquet", "column": "beauty"},
        "ours": {"kind": "tower", "recipe": "small"},
        "cats": {"kind": "classifier", "source": f"transformers:{layout.root / 'vit'}", "label": "cat"},
    }
    selections = {"good": {"beauty": {"min": 0.5}}, "both": {"beauty": {"min": 0.2}, "ours": {"top": 0.5}}}
    own = ScoresParams.model_validate({"scorers": scorers, "selections": selections} | values)
    return params.model_copy(update={"scores": own})


def keys_of(path: Path) -> set[str]:
    return set(pq.read_table(path).column("key").to_pylist())


def test_planted_scores_become_sidecars_and_selections(world):
    _, layout, planted = world
    scores.run(scoring(world), layout)
    good = layout.scores / "good.parquet"
    assert keys_of(good) == {key for key, score in planted.items() if np.float32(score) >= 0.5}
    index = read_index(layout.shards, "train")
    assert len(select(index, good, layout.shards)) == len(keys_of(good)) > 5
    stored = read_scores(layout.score("beauty"), index, index)  # as a filter of `select` reads them
    np.testing.assert_allclose(stored, [planted[row.key] for row in index], rtol=1e-6)
    ours = read_scores(layout.score("ours"), index, index)
    tower, store = TrainedTower("small", layout.model("small"), "cpu", in_words=False), TrainStore(layout.embeddings)
    reader = PictureReader(layout.shards)
    z = tower.vectors([reader.jpeg(row) for row in index]).astype(float)
    raw = [slot for slot, name in enumerate(store.facets) if name.startswith("raw/")]
    t = store.read([Drawn(row.shard, row.row, raw) for row in index]).double().numpy().mean(axis=1)
    np.testing.assert_allclose(ours, (unit(z) * unit(t)).sum(axis=1), atol=1e-5)
    best = np.sort(ours)[::-1][: -(-len(ours) // 2)].min()
    by_hand = {row.key for row, own in zip(index, ours, strict=True) if own >= best and planted[row.key] >= 0.2}
    assert keys_of(layout.scores / "both.parquet") == by_hand
    verify({folder: ["*"] for folder in (layout.scores, layout.score("ours"), layout.score("cats"))})
    assert making(layout.score("ours")) == making(layout.scores) == "flame scores"


def test_the_manifest_has_digests_of_weights_and_the_page_both_ends(world):
    _, layout, planted = world
    scores.run(scoring(world), layout)
    about = json.loads((layout.scores / "scores.json").read_text())
    assert len(about["scorers"]["cats"]["model"]["model.safetensors"]) == 64
    assert about["scorers"]["cats"]["label"] == "cat" and about["samples"] == len(planted)
    assert Sidecar(layout.score("cats")).manifest.origin["scorer"]["model"] == about["scorers"]["cats"]["model"]
    assert about["selections"]["both"]["rules"] == "beauty >= 0.2, the top 50.0% of ours"
    page = (layout.scores / "scores.html").read_text("utf-8")
    shown = re.findall(r"alt=\"(drawing number \d+)\"[^>]*><span>([\d.-]+)</span>", page)
    assert len(shown) == 3 * 2 * 12 and shown[0][1] == "0.000" and shown[12][1] == "1.000"
    assert str(layout.root) not in page + json.dumps(about)


def test_killed_after_any_unit_it_ends_with_the_same_bytes(world):
    _, layout, _ = world
    outs = [layout.scores, *(layout.score(name) for name in ("beauty", "ours", "cats"))]
    scores.run(scoring(world), layout)
    first = [tree(out) for out in outs]
    units = sum(path.is_dir() for path in (layout.work / "scores").iterdir())
    for after in (0, units // 2, units - 1):
        shutil.rmtree(layout.work / "scores")
        for out in outs:
            shutil.rmtree(out, ignore_errors=True)
        killed_after(after, lambda: scores.run(scoring(world), layout))
        assert not any(out.exists() for out in outs)
        assert len(computed_by(lambda: scores.run(scoring(world), layout))) == units - after
        assert [tree(out) for out in outs] == first


def test_a_shard_can_be_scored_in_another_process(world):
    """A task and its result travel, as to a worker of Ray, and are small."""
    params, layout, _ = world
    scores.run(scoring(world), layout)
    chosen, work = scoring(world).scores, WorkCache(layout.work, "scores")
    assert chosen is not None
    index = read_index(layout.shards, "train")
    rows = index.by_shard()[index[0].shard]
    task = ScoreTask("ours", chosen.scorers["ours"], rows, params.evaluate.train_language, layout, "another", work)
    sent = pickle.dumps(task)
    unit = pickle.loads(pickle.dumps(score_shard(pickle.loads(sent))))
    stored = (layout.score("ours") / "00000.safetensors").read_bytes()
    assert unit.file("score-ours.safetensors").read_bytes() == stored and len(sent) < 10_000
    work.remove("another")


def test_another_rule_scores_nothing_again_and_another_scorer_only_itself(world):
    _, layout, _ = world
    scores.run(scoring(world), layout)
    assert computed_by(lambda: scores.run(scoring(world, selections={"few": {"ours": {"top": 0.1}}}), layout)) == []
    assert not (layout.scores / "good.parquet").exists()
    chosen = scoring(world).scores
    assert chosen is not None
    foxes = {"kind": "classifier", "source": f"transformers:{layout.root / 'vit'}", "label": "Red_Foxes"}
    more = scoring(world, scorers={**chosen.model_dump()["scorers"], "foxes": foxes})
    shards = len(read_index(layout.shards, "train").shard_sizes())
    assert len(computed_by(lambda: scores.run(more, layout))) == shards


def test_thresholds_that_leave_nothing_or_little_are_refused(world):
    _, layout, _ = world
    with pytest.raises(InputError, match=r"scores\.selections\.none keeps no sample: beauty keeps 0 of"):
        scores.run(scoring(world, selections={"none": {"beauty": {"min": 1.5}}}), layout)
    few = {"selections": {"few": {"beauty": {"min": 0.97}}}}
    scores.run(scoring(world, **few, gates={"min_kept": 0.2}), layout)
    with pytest.raises(GateError, match=r"(?s)scores_kept.*scores\.gates\.min_kept"):
        gates.require(layout.scores)


def test_a_scorer_that_tells_nothing_apart_warns(world):
    _, layout, planted = world
    pq.write_table(pa.table({"key": list(planted), "one": [1.0] * len(planted)}), layout.root / "ones.parquet")
    ones = {"ones": {"kind": "table", "path": "ones.parquet", "column": "one"}}
    scores.run(scoring(world, scorers=ones, selections={}), layout)
    (differ, kept) = gates.read(layout.scores)
    assert (differ.name, differ.passed, differ.blocking) == (
        "scores_differ",
        False,
        False,
    ) and "ones" in differ.description
    assert kept.passed and kept.value is None


def test_the_stage_and_what_it_refuses(world):
    params, layout, _ = world
    stage = section_stages(layout, scoring(world))["scores"]
    assert stage["deps"] == [
        "data/captions/train", "data/embeddings/train", "data/models/small", "data/shards", "table.parquet"
    ]  # fmt: skip
    assert stage["outs"] == [
        "data/scores", "data/sidecars/score-beauty", "data/sidecars/score-cats", "data/sidecars/score-ours"
    ]  # fmt: skip
    with pytest.raises(ParamsError, match="no section `scores`"):
        scores.run(params, layout)
    raw = yaml.safe_load(json.dumps(scoring(world).model_dump(mode="json")))
    with pytest.raises(ValueError, match="trained by these scores, so neither can be first"):
        Params.model_validate(
            {**raw, "train": {"small": {**raw["train"]["small"], "selection": "data/scores/good.parquet"}}}
        )
    with pytest.raises(ValueError, match="other is not among the recipes"):
        raw["scores"]["scorers"]["ours"]["recipe"] = "other"
        Params.model_validate(raw)
