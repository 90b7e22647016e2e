import random

import pytest

from flame_core.text.row_plan import Row, plan_rows


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_rows_hold_every_sequence_once_within_the_budget(backend):
    lengths = [7, 30, 12, 90, 30, 5, 300, 41]
    rows = plan_rows(lengths, 128, backend)
    assert sorted(i for row in rows for i in row.members) == list(range(8))
    assert all(sum(lengths[i] for i in row.members) <= 128 or len(row.members) == 1 for row in rows)
    assert rows[0].members == (6,)
    if backend == "sdpa":
        assert [lengths[i] for row in rows for i in row.members] == sorted(lengths, reverse=True)
        assert all(row.length == sum(lengths[i] for i in row.members) for row in rows)


def test_a_row_of_a_gpu_ends_where_its_texts_end():
    """A last row of 700 tokens has length 1,024, not 16,384: the step is a sixteenth of the budget."""
    assert plan_rows([700], 16_384, "flex") == [Row((0,), 1024)]
    assert plan_rows([300], 2048, "flex") == [Row((0,), 384)]
    assert plan_rows([], 2048, "flex") == []


def test_a_shard_of_captions_has_few_pads_and_few_row_lengths():
    """1,000 pictures with raw, short and long captions: at most 3 % of the computed tokens are padding."""
    draw = random.Random(0)
    lengths = [
        facets + draw.randint(low, high)
        for _ in range(1000)
        for facets, low, high in ((25, 5, 30), (60, 5, 30), (110, 40, 250))
    ]
    rows = plan_rows(lengths, 16_384, "flex")
    assert sum(row.length for row in rows) <= 1.03 * sum(lengths)
    assert len({row.length for row in rows}) <= 16
