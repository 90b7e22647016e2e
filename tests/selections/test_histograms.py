"""Histograms of codes: their formula, and planted topics whose content moves (D4), whatever the codes are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from flame_core.clustering.sources import GRID
from flame_core.codes.code_files import Coded, read_codes, write_codes
from flame_core.data.shards import INDEX_SCHEMA, Index
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.params import SelectionParams, SelectParams
from flame_core.selections.groups import find_groups, make_groups
from flame_core.selections.histograms import Histograms, histograms, numbering_free
from flame_core.selections.selecting import select_all
from flame_core.work import WorkCache

TOPICS, CODES, PATCHES = 50, 1024, 196


def planted(samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n, L] of pictures of 50 topics with 12 codes each; 35 % of the patches are topical, anywhere."""
    draw = np.random.default_rng(seed)
    of_topic = np.stack([draw.choice(CODES, 12, replace=False) for _ in range(TOPICS)])
    truth = draw.integers(0, TOPICS, size=samples)
    codes = draw.integers(0, CODES, size=(samples, PATCHES))
    topical = draw.random(codes.shape) < 0.35
    own = of_topic[truth[:, None], draw.integers(0, 12, size=codes.shape)]
    return np.where(topical, own, codes).astype(np.uint16), truth


def index_of(sizes: list[int]) -> Index:
    rows = [
        {"key": f"s{shard}/{row:05}", "split": "train", "shard": f"train/{shard:05}.tar", "row": row}
        | {"offset": 0, "size": 1, "width": 1, "height": 1, "sha256": "", "captions": 1}
        for shard, count in enumerate(sizes)
        for row in range(count)
    ]
    return Index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


def written(folder: Path, codes: np.ndarray, sizes: list[int], count: int = CODES) -> tuple[Histograms, Index]:
    """The codes as `flame codes` writes them."""
    index, start = index_of(sizes), 0
    (folder / "train").mkdir(parents=True)
    for shard, size in enumerate(sizes):
        own = slice(start, start + size)
        keys = [f"s{shard}/{row:05}" for row in range(size)]
        write_codes(folder / f"train/{shard:05}.parquet", Coded(keys, codes[own], np.ones(size, np.float32)))
        start += size
    digests = {
        f"train/{shard:05}.parquet": file_sha256(folder / f"train/{shard:05}.parquet") for shard in range(len(sizes))
    }
    return Histograms(folder, count, index, digests), index


def test_a_histogram_by_hand():
    codes = np.array([[0, 0, 2, 0], [1, 1, 3, 3]], np.uint16)
    found = histograms(codes, 5)
    assert found[0].tolist() == [round(0.75**0.5 * GRID), 0, GRID / 2, 0, 0]
    assert found[1].tolist() == [0, round(0.5**0.5 * GRID), 0, round(0.5**0.5 * GRID), 0]
    assert np.linalg.norm(found, axis=1) / GRID == pytest.approx(1, abs=1e-4)


def test_the_order_of_dimensions_does_not_depend_on_how_codes_are_numbered():
    codes, _ = planted(40)
    renumbered = np.random.default_rng(5).permutation(CODES)
    keys = [f"k{i}" for i in range(40)]
    ones = np.ones(40, np.float32)
    first = numbering_free([Coded(keys[:25], codes[:25], ones), Coded(keys[25:], codes[25:], ones)], CODES)
    again = numbering_free([Coded(keys, renumbered[codes].astype(np.uint16), ones)], CODES)
    one = histograms(codes, CODES)[:, first]
    two = histograms(renumbered[codes], CODES)[:, again]
    assert np.array_equal(one, two)


@pytest.fixture(scope="module")
def chosen() -> SelectParams:
    selections = {"quarter": SelectionParams(share=0.25)}
    return SelectParams(clusters=TOPICS, dims=64, iterations=15, selections=selections)


def test_planted_topics_are_found_and_renumbering_the_codes_changes_no_group_and_no_selection(tmp_path, chosen):
    """AMI above 0.9, and exactly the same after renumbering; raw ids, which the released code clusters, fail."""
    codes, truth = planted(3000)
    source, index = written(tmp_path / "a", codes, [1000, 1200, 800])
    found = make_groups(chosen, source, index, WorkCache(tmp_path / "work-a", "select"))
    groups, _ = found.joined()
    assert adjusted_mutual_info_score(truth, groups) > 0.9
    renumbered = np.random.default_rng(5).permutation(CODES)
    other, _ = written(tmp_path / "b", renumbered[codes].astype(np.uint16), [1000, 1200, 800])
    again = make_groups(chosen, other, index, WorkCache(tmp_path / "work-b", "select"))
    assert np.array_equal(again.joined()[0], groups) and np.array_equal(again.joined()[1], found.joined()[1])
    assert np.array_equal(again.centres.centroids, found.centres.centroids)
    assert np.array_equal(again.centres.basis[renumbered], found.centres.basis)
    keys = index.table.column("key").to_pylist()
    picked = [select_all(chosen.selections, keys, each.joined()[0], TOPICS)[0].picked for each in (found, again)]
    assert np.array_equal(picked[0].places, picked[1].places)

    from sklearn.cluster import MiniBatchKMeans

    raw = MiniBatchKMeans(TOPICS, n_init=1, random_state=0).fit_predict(codes.astype(np.float32))
    assert adjusted_mutual_info_score(truth, raw) < 0.2


def test_frozen_centres_give_the_same_groups_and_an_old_picture_never_moves(tmp_path, chosen):
    codes, _ = planted(700)
    source, index = written(tmp_path / "a", codes[:600], [300, 300])
    first = make_groups(chosen, source, index, WorkCache(tmp_path / "work", "select"))
    source.order = np.arange(CODES)
    same = find_groups(first.centres, source, index, WorkCache(tmp_path / "work", "select"))
    assert np.array_equal(same.joined()[0], first.joined()[0])
    assert np.array_equal(same.joined()[1], first.joined()[1])
    more, larger = written(tmp_path / "b", codes, [300, 300, 100])
    grown = find_groups(first.centres, more, larger, WorkCache(tmp_path / "work", "select"))
    assert np.array_equal(grown.joined()[0][:600], first.joined()[0])


def test_codes_are_joined_by_key_never_by_position(tmp_path):
    codes, _ = planted(20)
    source, _ = written(tmp_path / "a", codes, [20])
    expected = source.read("train/00000.tar", range(20))
    path = tmp_path / "a/train/00000.parquet"
    found = read_codes(path)
    order = np.random.default_rng(0).permutation(20)
    write_codes(path, Coded([found.keys[i] for i in order], found.codes[order], found.cosine[order]))
    index = index_of([20])
    shuffled = Histograms(tmp_path / "a", CODES, index, {"train/00000.parquet": "x"})
    assert np.array_equal(shuffled.read("train/00000.tar", range(20)), expected)
    write_codes(path, Coded(["other", *found.keys[1:]], found.codes, found.cosine))
    with pytest.raises(InputError, match="no codes of the training sample s0/00000"):
        Histograms(tmp_path / "a", CODES, index, {}).codes("train/00000.tar")
    write_codes(path, Coded(found.keys, found.codes, found.cosine))
    with pytest.raises(InputError, match=r"a code is \d+, and there are 100"):
        Histograms(tmp_path / "a", 100, index, {}).codes("train/00000.tar")


def test_a_cap_keeps_unique_pictures_where_near_duplicates_abound(tmp_path):
    """90 % of the pictures are near-duplicates of ten prototypes, 10 % are unique; a quarter is selected."""
    draw = np.random.default_rng(0)
    prototypes = draw.integers(0, CODES, size=(10, PATCHES))
    codes = np.concatenate([prototypes[np.arange(900) % 10], draw.integers(0, CODES, size=(100, PATCHES))])
    changed = (draw.random(codes.shape) < 0.05) & (np.arange(1000) < 900)[:, None]
    codes = np.where(changed, draw.integers(0, CODES, size=codes.shape), codes)
    order = draw.permutation(1000)
    source, index = written(tmp_path / "a", codes[order].astype(np.uint16), [600, 400])
    selections = {
        "capped": SelectionParams(share=0.25, mode="capped"),
        "chance": SelectionParams(share=0.25, mode="random"),
    }
    chosen = SelectParams(clusters=40, dims=64, selections=selections)
    found = make_groups(chosen, source, index, WorkCache(tmp_path / "work", "select"))
    keys = index.table.column("key").to_pylist()
    capped, chance = select_all(selections, keys, found.joined()[0], 40)
    unique = order >= 900
    assert unique[capped.picked.places].sum() == 100
    assert 12 <= unique[chance.picked.places].sum() <= 40  # 25 expected
