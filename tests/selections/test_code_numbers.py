"""Numbers of codes as a descriptor: what the released code sees, and what it cannot see (D4)."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from flame_core.clustering.sources import GRID
from flame_core.params import SelectionParams, SelectParams
from flame_core.selections.code_numbers import CodeNumbers
from flame_core.selections.groups import make_groups
from flame_core.work import WorkCache
from tests.selections.test_histograms import CODES, TOPICS, index_of, planted, written

CHOSEN = SelectParams(clusters=TOPICS, dims=64, iterations=10, selections={"quarter": SelectionParams(share=0.25)})


def groups(folder, codes: np.ndarray) -> np.ndarray:
    written(folder, codes, [len(codes)])
    index = index_of([len(codes)])
    source = CodeNumbers(folder, CODES, index, {"train/00000.parquet": "x"})
    return make_groups(CHOSEN, source, index, WorkCache(folder / "work", "select")).joined()[0]


def test_numbers_are_over_their_count_place_by_place(tmp_path):
    codes = np.array([[0, 256, 1023], [512, 1, 2]], np.uint16)
    written(tmp_path, codes, [2])
    source = CodeNumbers(tmp_path, CODES, index_of([2]), {"train/00000.parquet": "x"})
    source.sort()
    assert source.dims == 3 and source.read("train/00000.tar", [1, 0]).tolist() == [
        [GRID / 2, 16, 32],
        [0, GRID / 4, 1023 * GRID / 1024],
    ]


def test_content_that_moves_is_not_seen_and_another_numbering_gives_other_groups(tmp_path):
    codes, truth = planted(1500)
    found = groups(tmp_path / "a", codes)
    assert adjusted_mutual_info_score(truth, found) < 0.2
    renumbered = np.random.default_rng(5).permutation(CODES)[codes].astype(np.uint16)
    assert adjusted_rand_score(found, groups(tmp_path / "b", renumbered)) < 0.2


def test_templates_are_seen(tmp_path):
    """Each topic has a code for each place, which half of the patches copy."""
    draw = np.random.default_rng(0)
    template = draw.integers(0, CODES, size=(TOPICS, 49))
    truth = draw.integers(0, TOPICS, size=1500)
    codes = np.where(draw.random((1500, 49)) < 0.7, template[truth], draw.integers(0, CODES, size=(1500, 49)))
    chosen = CHOSEN.model_copy(update={"dims": 40})
    written(tmp_path, codes.astype(np.uint16), [1500])
    index = index_of([1500])
    source = CodeNumbers(tmp_path, CODES, index, {"train/00000.parquet": "x"})
    found = make_groups(chosen, source, index, WorkCache(tmp_path / "work", "select")).joined()[0]
    assert adjusted_mutual_info_score(truth, found) > 0.9
