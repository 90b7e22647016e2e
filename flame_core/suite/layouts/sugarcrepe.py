"""SugarCrepe: seven JSON files of {number: {"filename", "caption", "negative_caption"}} over COCO val2017.

Each file is a separate group; a picture has one right and one wrong text.
"""

from __future__ import annotations

from pathlib import Path

from flame_core.suite.content import Picture, Question, Questions, Skips
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts.reading import existing, inside, read_json, value

GROUPS = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")
NO_PICTURE = "questions whose picture is missing"


def read(benchmark: Benchmark, folder: Path, split: str) -> Questions:
    """The questions of all seven groups; the data set has one split."""
    images = existing(folder / (benchmark.data.images or "val2017"))
    numbers: dict[str, int] = {}
    pictures: list[Picture] = []
    questions: list[Question] = []
    skips = Skips()
    for group in GROUPS:
        path = folder / (benchmark.data.annotations or ".") / f"{group}.json"
        for number, row in read_json(path, dict).items():
            place = f"{path}, {number}"
            name = value(row, "filename", place)
            if name not in numbers:
                image = inside(images, name, place)
                if not image.is_file():
                    skips.add(NO_PICTURE, f"{group} {number}")
                    continue
                numbers[name] = len(pictures)
                pictures.append(Picture(name, image))
            texts = (value(row, "caption", place), value(row, "negative_caption", place))
            questions.append(Question(f"{group} {number}", group, (numbers[name],), texts))
    return Questions(pictures, questions, skips)
