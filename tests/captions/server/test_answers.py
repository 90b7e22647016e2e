from __future__ import annotations

import tracemalloc
from contextlib import closing
from pathlib import Path

from flame_core.captions.server.answers import Answer, Answers


def answer(text: str) -> Answer:
    return Answer(None, text, 200, "", "m", "", "stop", 1, 1, 1)


def test_unwanted_answers_are_found_and_removed(tmp_path: Path):
    with closing(Answers(tmp_path / "answers.sqlite")) as answers:
        for number in range(500):
            answers.put(f"{number:03d}", answer(f"text {number}"))
        for delete in (False, True):
            assert answers.remove(lambda text: text.endswith("7"), delete=delete) == 50
        assert answers.remove(lambda text: text.endswith("7"), delete=True) == 0
        kept = [number for number in range(500) if answers.get(f"{number:03d}") is not None]
        assert kept == [number for number in range(500) if number % 10 != 7]


def test_answers_are_looked_through_one_by_one(tmp_path: Path):
    with closing(Answers(tmp_path / "answers.sqlite")) as answers:
        for number in range(300):
            answers.put(str(number), answer(f"{number} " + "x" * 10_000))
        tracemalloc.start()
        try:
            assert answers.remove(lambda text: text.startswith("77 "), delete=True) == 1
            assert tracemalloc.get_traced_memory()[1] < 300_000  # all are 3 MB
        finally:
            tracemalloc.stop()
