"""Texts in shared memory are the same texts, and a worker is handed no copy of them."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import pyarrow as pa
import pytest
import torch.multiprocessing  # noqa: F401  (teaches the pickler to hand tensors over as handles)

from flame_core.text.shared_texts import SharedTexts

TEXTS = ["", "a boat", "é🙂", "", "two\nlines", "ﷺ"]


@pytest.mark.parametrize(
    "texts",
    [
        pa.chunked_array([TEXTS]),
        pa.chunked_array([TEXTS[:2], [], TEXTS[2:]]),
        pa.chunked_array([["x", *TEXTS, "y"]], pa.large_string()).slice(1, 6),
    ],
)
def test_texts_by_number(texts):
    shared = SharedTexts(texts)
    assert [shared[number] for number in range(len(shared))] == TEXTS
    for number in (-1, 6):
        with pytest.raises(IndexError, match=f"no text {number} among 6"):
            shared[number]


def test_no_texts():
    assert len(SharedTexts(pa.chunked_array([], pa.string()))) == 0


def test_a_worker_is_handed_the_memory_and_no_copy_of_it():
    sizes = []
    for count in (1, 9000):
        shared = SharedTexts(pa.chunked_array([["a boat"] * count]))
        assert shared[count - 1] == "a boat"
        sizes.append(len(ForkingPickler.dumps(shared)))
    assert sizes[1] < sizes[0] + 100
