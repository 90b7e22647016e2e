"""Small benchmark folders in every layout, of pictures in one colour."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from flame_core.suite.collection import Collected
from flame_core.suite.content import Captioned, Content
from flame_core.suite.definition import Benchmark
from flame_core.suite.layouts import read_content
from flame_core.suite.tasks import TASKS

COLOURS = ["red", "green", "blue", "yellow", "black", "white"]


def picture(colour: str, kind: str = "JPEG", size: tuple[int, int] = (40, 32), **options: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **options)
    return file.getvalue()


def put(path: Path, content: bytes | str | list | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list | dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pictures(folder: Path, names: list[str]) -> None:
    for index, name in enumerate(names):
        put(folder / name, picture(COLOURS[index % len(COLOURS)], "PNG" if name.endswith("png") else "JPEG"))


def lines(rows: list[dict]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


def benchmark(task: dict | str, layout: str, path: str = "set", data: dict | None = None, **rest) -> Benchmark:
    task = {"kind": task} if isinstance(task, str) else task
    where = {"layout": layout, "path": path, "obtain": "make it", **(data or {})}
    return Benchmark.model_validate({"name": "made", "title": "Made", "task": task, "data": where, **rest})


def collected(definition: Benchmark, folder: Path) -> Collected:
    content = read_content(definition, folder)
    split = TASKS[definition.task.kind].training_split(definition.task)
    return Collected(definition, content, read_content(definition, folder, split) if split else None)


def definition_file(path: Path, task: dict, layout: str, folder: str, **rest) -> Path:
    where = {"layout": layout, "path": folder, "obtain": "make it"}
    return put(path, yaml.safe_dump({"title": path.stem, "task": task, "data": where, **rest}))


def tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def captions_of(content: Content, language: str = "en") -> dict[str, list[str]]:
    """{picture name: texts}."""
    assert isinstance(content, Captioned)
    found: dict[str, list[str]] = {}
    for index, text in content.captions[language]:
        found.setdefault(content.pictures[index].name, []).append(text)
    return found


def clip_benchmark_classes(folder: Path, per_class: int = 2, split: str = "test") -> None:
    """Six classes, one colour each, in two tars."""
    put(folder / "classnames.txt", "\n".join(COLOURS) + "\n")
    put(folder / "zeroshot_classification_templates.txt", "a {c} thing\na photo of {c}\n")
    put(folder / split / "nshards.txt", "2\n")
    labels = [label for label in range(len(COLOURS)) for _ in range(per_class)]
    members = [
        [(f"s{i:07}.jpg", picture(COLOURS[label], size=(40 + i, 32))), (f"s{i:07}.cls", str(label).encode())]
        for i, label in enumerate(labels)
    ]
    half = len(members) // 2
    for number, part in enumerate((members[:half], members[half:])):
        tar(folder / split / f"{number}.tar", [member for sample in part for member in sample])


def clip_benchmark_captions(folder: Path) -> None:
    """Three pictures with two, one and three captions."""
    put(folder / "dataset_type.txt", "retrieval\n")
    put(folder / "test" / "nshards.txt", "1\n")
    texts = ["a red one\nthe red one", "a green one", "blue\nvery blue\nthe blue one\n"]
    members = [
        member
        for i, text in enumerate(texts)
        for member in [(f"s{i:07}.png", picture(COLOURS[i], "PNG")), (f"s{i:07}.txt", text.encode())]
    ]
    tar(folder / "test" / "0.tar", members)


def crossmodal(folder: Path, languages: tuple[str, ...] = ("en", "de", "zh")) -> None:
    """Six pictures with two captions in each language; the last has none in the last language."""
    rows = []
    for index, colour in enumerate(COLOURS):
        row: dict = {"image/key": f"{index:03}"}
        for language in languages:
            if (index, language) != (len(COLOURS) - 1, languages[-1]):
                row[language] = {"caption": [f"{colour} {language}", f"another {colour} {language}"]}
        rows.append(row)
    put(folder / "captions.jsonl", lines(rows))
    pictures(folder / "images", [f"{index:03}.jpg" for index in range(len(COLOURS))])


def sugarcrepe(folder: Path) -> None:
    """Two questions in each of the seven groups over two pictures."""
    from flame_core.suite.layouts.sugarcrepe import GROUPS

    pictures(folder / "val2017", ["a.jpg", "b.jpg"])
    for group in GROUPS:
        rows = {
            str(7 * number): {
                "filename": name,
                "caption": f"{group} right {number}",
                "negative_caption": f"{group} wrong {number}",
            }
            for number, name in enumerate(("a.jpg", "b.jpg"))
        }
        put(folder / f"{group}.json", rows)


def winoground(folder: Path, count: int = 3) -> None:
    """Questions of two pictures and two texts."""
    rows = []
    for i in range(count):
        rows.append({"id": i, "image_0": f"{i}_0", "image_1": f"{i}_1", "caption_0": f"q{i} x", "caption_1": f"q{i} y"})
        put(folder / "images" / f"{i}_0.png", picture(COLOURS[i], "PNG"))
        put(folder / "images" / f"{i}_1.png", picture(COLOURS[i + 1], "PNG"))
    put(folder / "examples.jsonl", lines(rows))


def masks(folder: Path) -> None:
    """Two pictures, half red and half green, with masks; 255 is not counted."""
    put(folder / "classnames.txt", "red\ngreen\nblue\n")
    for index in range(2):
        shown = np.zeros((32, 32, 3), np.uint8)
        shown[:, :16, 0] = shown[:, 16:, 1] = 200 + index
        mask = np.zeros((32, 32), np.uint8)
        mask[:, 16:] = 1
        mask[:4] = 255
        for name, array in ((f"images/{index}.png", shown), (f"masks/{index}.png", mask)):
            file = io.BytesIO()
            Image.fromarray(array).save(file, "PNG")
            put(folder / name, file.getvalue())


def vectors(count: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def captioned(counts: list[int], languages: tuple[str, ...] = ("en",)) -> Captioned:
    """Content without files: a number of captions for each picture in each language."""
    rows = {
        language: [(i, f"{language} {i} {j}") for i, count in enumerate(counts) for j in range(count)]
        for language in languages
    }
    return Captioned([], rows)
