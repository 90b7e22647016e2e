"""flame domains: pictures of two folders, the same after a kill, one bit flipped, one picture more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flame_core import gates
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import DomainParams, Params
from flame_core.stages import domains
from flame_core.verification import verify
from tests.bits import flip
from tests.data.drawings import png
from tests.stages.pipeline import folder_source, pipeline_params, tree
from tests.stages.units import computed_by, killed_after

CLASSES, EACH = ("birds", "boats"), 4
UNITS = 4  # of each domain its listing and its pictures


def draw(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:03}.png").write_bytes(png(number))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    """Two domains, each a folder with a folder of drawings for each of two classes."""
    monkeypatch.setenv("FLAME_WORKERS", "1")
    chosen = {}
    for first, name in enumerate(("clipart", "sketches")):
        for number, label in enumerate(CLASSES):
            start = 100 * first + 10 * number
            draw(tmp_path / name / label, range(start, start + EACH))
        source = folder_source(tmp_path / name, folders_are_categories=True)
        chosen[name] = DomainParams.model_validate({"source": source})
    params = pipeline_params({"unused": folder_source(tmp_path / "clipart")})
    return params.model_copy(update={"domains": chosen}), Layout.find(tmp_path)


def labels(layout: Layout, name: str) -> list[dict[str, str]]:
    return json.loads((layout.domains / name / "labels.json").read_text())["pictures"]


def test_killed_after_any_unit_it_continues_and_ends_with_the_same_bytes(world: tuple[Params, Layout]):
    params, layout = world
    domains.run(params, layout)
    first = tree(layout.domains)
    assert {row["class"] for row in labels(layout, "clipart")} == set(CLASSES)
    assert len(labels(layout, "clipart")) == len(labels(layout, "sketches")) == EACH * len(CLASSES)
    for after in range(UNITS):
        shutil.rmtree(layout.work)
        shutil.rmtree(layout.domains)
        done = killed_after(after, lambda: domains.run(params, layout))
        assert len(done) == after and not layout.domains.exists()
        again = computed_by(lambda: domains.run(params, layout))
        assert len(again) == UNITS - after and not set(again) & set(done)
        assert tree(layout.domains) == first
    assert computed_by(lambda: domains.run(params, layout)) == []


def test_a_flipped_bit_in_the_work_cache_costs_one_unit(world: tuple[Params, Layout], caplog: pytest.LogCaptureFixture):
    params, layout = world
    domains.run(params, layout)
    first = tree(layout.domains)
    for stage, name in (("domains", "00005.jpg"), ("download", "pairs.parquet")):
        file = next((layout.work / stage).glob(f"*/{name}"))
        flip(file, file.stat().st_size // 2, 2)
        assert len(computed_by(lambda: domains.run(params, layout))) == 1
        assert "is damaged; computing it again" in caplog.text and tree(layout.domains) == first
        caplog.clear()


def test_a_flipped_bit_in_the_out_is_found_and_mended(world: tuple[Params, Layout]):
    params, layout = world
    domains.run(params, layout)
    first = tree(layout.domains)
    for name in ("sketches/00002.jpg", "clipart/labels.json"):
        flip(layout.domains / name, 20, 1)
        with pytest.raises(InputError, match=rf"{Path(name).name} is damaged.*\n?.*flame domains"):
            verify({layout.domains: ["*"]})
        domains.run(params, layout)
        assert tree(layout.domains) == first


def test_one_picture_more_is_added_and_the_other_domain_stays(world: tuple[Params, Layout]):
    params, layout = world
    domains.run(params, layout)
    before = {row["key"] for row in labels(layout, "sketches")}
    draw(layout.root / "sketches/boats", range(190, 191))
    assert len(computed_by(lambda: domains.run(params, layout))) == 2  # its listing and its pictures
    after = {row["key"] for row in labels(layout, "sketches")}
    assert len(after - before) == 1 and before < after
    assert len(labels(layout, "clipart")) == EACH * len(CLASSES)


def test_a_picture_of_no_wanted_class_prepares_nothing_again(world: tuple[Params, Layout]):
    params, layout = world
    chosen = {
        name: each.model_copy(update={"classes": {label: label for label in CLASSES}})
        for name, each in (params.domains or {}).items()
    }
    params = params.model_copy(update={"domains": chosen})
    domains.run(params, layout)
    first = tree(layout.domains)
    draw(layout.root / "sketches/trains", range(190, 192))
    assert len(computed_by(lambda: domains.run(params, layout))) == 1  # the listing
    assert tree(layout.domains) == first


def test_a_picture_that_cannot_be_read_is_counted_and_named(world: tuple[Params, Layout]):
    params, layout = world
    (layout.root / "sketches/boats/112.png").write_bytes(png(112)[:60])
    domains.run(params, layout)
    check = {each.name: each for each in gates.read(layout.domains)}["domain_readable/sketches"]
    assert not check.passed and check.value == 1 and check.keys is not None and "112" in check.keys[0]
    assert len(labels(layout, "sketches")) == EACH * len(CLASSES) - 1
