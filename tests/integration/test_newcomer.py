"""Someone with a folder of pictures and the installed wheel: to a model that finds them, with no file edited.

Each sentence of this test is what the last command said to do next.
"""

from __future__ import annotations

import csv
import resource
from pathlib import Path

import pytest

from flame_core.data.sources import RawPair
from tests.wheel import Installed

MOST = 5 * 60  # seconds of a processor, which an idle machine with two cores needs no longer for


def spent() -> float:
    """Seconds that all ended processes of this test have used a processor; others on the machine do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def with_table(folder: Path, pairs: list[RawPair]) -> None:
    """Pictures with one table, whose columns have names of its own."""
    rows = [("file", "what it shows")]
    for number, pair in enumerate(pairs):
        name = f"{number:03d}{pair.image.path.suffix}"
        (folder / name).write_bytes(pair.image.read())
        rows.append((name, pair.captions["en"][0]))
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def with_texts(folder: Path, pairs: list[RawPair]) -> None:
    """Pictures with a text beside each."""
    for number, pair in enumerate(pairs):
        (folder / f"{number:03d}{pair.image.path.suffix}").write_bytes(pair.image.read())
        (folder / f"{number:03d}.txt").write_text(pair.captions["en"][0] + "\n", "utf-8")


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.parametrize(("write", "count"), [(with_table, 60), (with_texts, 20)], ids=["60-table", "20-texts"])
def test_from_a_folder_of_pictures_to_a_model_that_finds_them(
    write, count, stamps, installed: Installed, tmp_path, record_property
):
    spoken = [pair for pair in stamps if pair.image and "en" in pair.captions]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write(pictures, spoken[:: len(spoken) // count][:count])
    start = spent()

    said = installed.flame("init", "mine", "--images", "pictures", "--device", "cpu", cwd=tmp_path)
    assert f"pictures with captions  {count}" in said
    project = tmp_path / "mine"
    assert "is valid" in installed.flame("params", "check", cwd=project)
    installed.flame("run", cwd=project)
    assert (project / "data/reports/flame/report.html").is_file()
    hits = installed.flame("query", "a bird", "--index", "all", "--top", "3", cwd=project)
    assert str(pictures) in hits or "pictures/" in hits
    installed.flame("export", "flame", "--format", "timm", "--out", "exported", cwd=project)
    assert (project / "exported/README.md").is_file()
    installed.flame("status", cwd=project)  # all is up to date

    record_property(f"newcomer with {count} pictures, processor minutes", f"{(spent() - start) / 60:.1f}")
    assert spent() - start < MOST
