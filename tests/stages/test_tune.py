"""flame domains and flame tune: from folders to heads that classify, after kills and damage, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import flame_core
from flame_core import gates
from flame_core.cli import app
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.model.locate import model_of_run
from flame_core.params import DomainParams, IngestParams, Params, TuneParams
from flame_core.stages import domains, embed, train, tune
from flame_core.stages.domains import class_of
from flame_core.tuning.labelled import read_within
from flame_core.verification import verify
from tests.bits import flip
from tests.stages.pipeline import captioned_project, folder_source, tree
from tests.stages.units import computed_by, killed_after
from tests.training.world import recipe

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
TUNED = {"recipes": ["small"], "probed": ["other"], "domains": ["sketches"], "epochs": 25, "batch_size": 8,
         "seeds": [0, 1], "factors": [0.0, 1.0], "views": {"count": 2}, "validation": 0.2}  # fmt: skip


def paint(folder: Path, name: str, colour: str, number: int, suffix: str = "jpg") -> None:
    """A picture of a colour with noise, and its caption."""
    draw = np.random.default_rng([number, len(colour)])
    pixels = np.clip(np.array(COLOURS[colour]) + draw.normal(scale=30, size=(24, 24, 3)), 0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{name}.{suffix}")
    (folder / f"{name}.txt").write_text(f"{colour} picture {number}")


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Two trained recipes on pictures of three colours, and a folder of another domain."""
    root = tmp_path_factory.mktemp("tune")
    for number in range(48):
        colour = list(COLOURS)[number % 3]
        paint(root / "pairs" / colour, f"{number:03}", colour, number)
    paint(root / "pairs" / "rare", "only", "red", 999)
    for number in range(18):
        colour = list(COLOURS)[number % 3]
        paint(root / "sketches" / f"{colour}ish" / "big", f"s{number}", colour, 1000 + number, "png")
    paint(root / "sketches" / "unknown", "u", "red", 2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        patch.setenv("FLAME_TRACKING_URI", "off")
        params, layout = captioned_project(root, byte_tokenizer, 0)
        yield made(params, layout, root)


def made(params: Params, layout: Layout, root: Path) -> tuple[Params, Layout]:
    from flame_core.stages import caption, download, ingest

    small = recipe(gates={"max_loss_ratio": 100.0}, epochs=2)
    source = folder_source(root / "sketches", folders_are_categories=True)
    update = {
        "sources": params.model_validate(
            {**params.model_dump(), "sources": {"pairs": folder_source(root / "pairs", folders_are_categories=True)}}
        ).sources,
        "ingest": IngestParams(val_fraction=0.3, shard_samples=16, max_side=64, near_duplicate_distance=-1),
        "recipes": ["small", "other"],
        "train": {"small": small, "other": small.model_copy(update={"seed": 1})},
        "evaluate": params.evaluate.model_copy(update={"languages": []}),
        "domains": {
            "sketches": DomainParams.model_validate(
                {
                    "source": source,
                    "classes": {"redish": "red", "greenish": "green", "blueish/big": "blue", "absent": "gold"},
                    "per_class": 5,
                }
            )
        },
        "tune": TuneParams.model_validate(TUNED),
    }
    params = params.model_copy(update=update)
    for stage in (download, ingest, caption, embed):
        stage.run(params, layout)
    for name in params.recipes:
        train.run(params, layout, name)
    domains.run(params, layout)
    tune.run(params, layout)
    return params, layout


def tuning(params: Params, **values: Any) -> Params:
    return params.model_copy(update={"tune": TuneParams.model_validate(TUNED | values)})


def checks_of(out: Path) -> dict[str, gates.Check]:
    return {check.name: check for check in gates.read(out)}


def test_a_category_has_the_class_of_its_longest_beginning():
    classes = {"people": "people", "people/clothing": "clothes"}
    assert class_of("people/clothing/hats", classes) == "clothes" and class_of("people/cartoon", classes) == "people"
    assert class_of("peoples", classes) is None and class_of("animals/birds", None) == "animals"


def test_a_domain_holds_chosen_pictures_and_their_classes(world):
    params, layout = world
    folder = layout.domains / "sketches"
    rows = json.loads((folder / "labels.json").read_text())["pictures"]
    assert sorted(row["class"] for row in rows) == ["blue"] * 5 + ["green"] * 5 + ["red"] * 5
    for row in rows:
        with Image.open(folder / row["file"]) as image:
            assert image.format == "JPEG" and image.size == (24, 24)
    checks = checks_of(layout.domains)
    assert not checks["domain_classes/sketches"].passed and checks["domain_classes/sketches"].keys == ["gold"]
    assert checks["domain_readable/sketches"].passed
    first = tree(layout.domains)
    domains.run(params, layout)
    assert tree(layout.domains) == first
    verify({layout.domains: ["*"]})


def test_the_record_has_every_model_preset_and_part(world):
    params, layout = world
    record = json.loads((layout.heads / "heads.json").read_text())
    assert record["within"]["classes"] == ["blue", "green", "red"]
    assert "rare" in record["within"]["left_out"] and record["beyond"]["sketches"]["pictures"] == 15
    assert list(record["models"]["small"]["presets"]) == sorted(["lp", "mlp", "paper", "code"])
    assert list(record["models"]["other"]["presets"]) == ["lp"] and record["models"]["small"]["noise"] == 0.0
    within = read_within(params, params.tune, layout)
    assert set(within.train.pictures).isdisjoint(within.validation.pictures)
    held = np.bincount(within.validation.labels) / np.bincount(
        np.concatenate([within.train.labels, within.validation.labels])
    )
    assert (abs(held - 0.2) < 0.1).all()  # of each class
    for preset, found in record["models"]["small"]["presets"].items():
        assert found["seeds"] == [0, 1] and found["accuracy"].keys() == {"validation", "test", "sketches"}
        assert found["beyond"] == found["accuracy"]["sketches"]["mean"]
        assert found["accuracy"]["test"]["mean"] > 0.6, preset  # colours are easily told
        factors = [row["factor"] for row in found["factors"]]
        assert factors == ([0.0, 1.0] if preset in ("paper", "code") else [1.0]) and found["factor"] in factors
    checks = checks_of(layout.heads)
    assert checks["tune_spectra/small"].passed and checks["tune_learned/other"].passed
    assert checks["tune_svde_raised/small/paper"].value is None  # few validation pictures
    assert {"tune_terms_active/small/code", "tune_features_kept/small/code", "tune_lsvr_lowered/small/paper"} <= set(
        checks
    )
    page = (layout.heads / "heads.html").read_text("utf-8")
    assert "Heads of small" in page and "sketches" in page and page.count("<svg") == 2
    verify({layout.heads: ["*"]})


def test_a_killed_run_continues_and_ends_with_the_same_bytes(world):
    params, layout = world
    first = tree(layout.heads)
    assert computed_by(lambda: tune.run(params, layout)) == []
    shutil.rmtree(layout.work / "tune")
    shutil.rmtree(layout.heads)
    killed_after(5, lambda: tune.run(params, layout))
    assert not layout.heads.exists()
    tune.run(params, layout)
    assert tree(layout.heads) == first


def test_a_head_classifies_pictures_with_its_tower(world):
    params, layout = world
    model = model_of_run(params, layout, "small")
    head = flame_core.load_head(layout.heads / "small", model)
    files = [layout.root / "sketches/redish/big/s0.png", layout.root / "sketches/blueish/big/s2.png"]
    found = head.classify(files)
    assert [classes[0][0] for classes in found] == ["red", "blue"]
    assert sum(share for _, share in found[0]) == pytest.approx(1) and found[0][0][1] > found[0][1][1]
    assert head.scores(files[0]).shape == (1, 3)
    record = json.loads((layout.heads / "heads.json").read_text())["models"]["small"]
    within = read_within(params, params.tune, layout)
    chosen = head.scores([picture.read() for picture in within.test.pictures]).argmax(axis=1)
    accuracy = (chosen == within.test.labels).mean()
    best = record["presets"][record["best"]]["accuracy"]["test"]
    assert best["low"] - 1e-6 <= accuracy <= best["high"] + 1e-6  # of one of the seeds
    with pytest.raises(InputError, match="another tower than"):
        flame_core.load_head(layout.heads / "small", model_of_run(params, layout, "other"))
    with pytest.raises(InputError, match="holds no head"):
        flame_core.load_head(layout.heads / "nothing", model)
    file = layout.heads / "small/head.safetensors"
    flip(file, file.stat().st_size - 3, 2)
    try:
        with pytest.raises(InputError, match=r"head\.safetensors is damaged.*\n?.*flame tune"):
            flame_core.load_head(layout.heads / "small", model)
    finally:
        flip(file, file.stat().st_size - 3, 2)


def test_the_command_prints_classes(world, monkeypatch):
    params, layout = world
    monkeypatch.setattr("flame_core.params.load_params", lambda _: params)
    monkeypatch.setattr("flame_core.layout.Layout.find", classmethod(lambda cls, root=None: layout))
    done = CliRunner().invoke(app, ["classify", str(layout.root / "sketches/redish/big/s0.png"), "--top", "1"])
    assert done.exit_code == 0, done.output
    assert "red" in done.output and "%" in done.output
    done = CliRunner().invoke(app, ["classify", "x.png", "--recipe", "flame"])
    assert isinstance(done.exception, ParamsError) and "names no recipe flame" in str(done.exception)


def test_what_does_not_fit_is_refused(world):
    params, layout = world
    with pytest.raises(ParamsError, match="no section `tune`"):
        tune.run(params.model_copy(update={"tune": None}), layout)
    with pytest.raises(ParamsError, match="no section `domains`"):
        domains.run(params.model_copy(update={"domains": None}), layout)
    with pytest.raises(InputError, match=r"two classes with 400 training pictures.*has 0\. Left out: blue: \d+"):
        tune.run(tuning(params, min_pictures=400), layout)
    with pytest.raises(InputError, match="domains/elsewhere is missing: run `flame domains`"):
        tune.run(tuning(params, domains=["elsewhere"]), layout)
    with pytest.raises(ValueError, match="name a model"):
        TuneParams()
    with pytest.raises(ValueError, match="small stands more than once"):
        TuneParams(recipes=["small"], probed=["small"])
    for names in (["test"], ["sketches", "sketches"]):
        with pytest.raises(ValueError, match="domains and beyond need names of their own"):
            TuneParams(recipes=["small"], domains=names)
    assert params.domains is not None
    strange = params.domains["sketches"].model_copy(update={"classes": {"nothing": "red"}})
    with pytest.raises(InputError, match=r"none of its 19 pictures is of a class.*categories are .*ish/big"):
        domains.run(params.model_copy(update={"domains": {"sketches": strange}}), layout)
    whole = {**params.model_dump(mode="json"), "tune": {"recipes": ["nobody"], "domains": ["moon"]}}
    with pytest.raises(ValueError, match=r"tune\.recipes has nobody, which recipes does not list"):
        Params.model_validate(whole)
    with pytest.raises(ValueError, match=r"tune\.domains has moon, which domains does not list"):
        Params.model_validate(whole)


def test_benchmarks_may_be_the_domain_and_what_lies_beyond(world, tmp_path):
    params, layout = world
    for folder in ("colours/train", "colours/test", "painted/test"):
        for number in range(18):
            colour = list(COLOURS)[number % 3]
            paint(tmp_path / folder / colour, f"{number}", colour, 3000 + number)
    for name, kind in (("colours", "linear_probe"), ("painted", "classification")):
        (tmp_path / f"{name}.yaml").write_text(
            f"title: x\ntask: {{kind: {kind}}}\ndata: {{layout: image_folder, path: {name}, obtain: paint them}}\n"
        )
    benchmarks = params.evaluate.benchmarks.model_copy(update={"data": str(tmp_path)})
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"benchmarks": benchmarks})})
    chosen = TuneParams.model_validate(
        {"recipes": ["small"], "benchmark": f"{tmp_path}/colours.yaml", "beyond": [f"{tmp_path}/painted.yaml"]}
    )
    within = read_within(params, chosen, layout)
    assert within.classes == ["blue", "green", "red"] and not within.left_out
    assert (len(within.train), len(within.validation), len(within.test)) == (15, 3, 18)
    assert np.bincount(within.beyond["painted"].labels).tolist() == [6, 6, 6]  # by its name, not its path
    twice = chosen.model_copy(update={"beyond": [chosen.beyond[0], chosen.beyond[0]]})
    with pytest.raises(ParamsError, match="is called painted, as another test"):
        read_within(params, twice, layout)
    shutil.rmtree(tmp_path / "painted")
    with pytest.raises(InputError, match=r"painted\.yaml is not available: .*painted does not exist\. paint them"):
        read_within(params, chosen, layout)


def test_a_damaged_picture_of_a_domain_is_refused_and_made_again(world):
    params, layout = world
    file = layout.domains / "sketches/00003.jpg"
    before = file.read_bytes()
    flip(file, len(before) // 2, 0)
    with pytest.raises(InputError, match=r"00003\.jpg is damaged"):
        tune.run(params, layout)
    domains.run(params, layout)
    assert file.read_bytes() == before
    tune.run(params, layout)
