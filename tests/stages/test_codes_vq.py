"""flame codes with a codebook that is trained with a captioner: all that reads codebooks reads this one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.clustering.sources import GRID
from flame_core.clustering.spherical import UNIT
from flame_core.codes.code_files import read_codes
from flame_core.codes.codebook import read_codebook
from flame_core.data.shards import PictureReader, read_index
from flame_core.errors import InputError, Interrupted
from flame_core.graph.section_stages import SECTIONS
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.stages import caption, codes, download, ingest, select
from flame_core.stepping import stepwise
from flame_core.text.store import unit
from flame_core.vision.image_encoder import load_encoder
from flame_core.vision.tower import ImageTower
from flame_core.vq import fit as fitting
from tests.selections.coded_project import coded_project, coding, selecting
from tests.stages.pipeline import tree, write_pairs
from tests.stages.units import computed_by, killed_after

VQ = {"codebook": "vq", "vq": {"steps": 6, "batch_size": 8, "width": 32, "layers": 1}}


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    root = tmp_path_factory.mktemp("codes-vq")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        yield coded_project(root, byte_tokenizer)


def test_patches_have_the_nearest_codes_of_the_trained_space_and_pictures_are_selected_by_them(world):
    params, layout = world
    codes.run(coding(params, **VQ), layout)
    book, index, reader = read_codebook(layout.codes), read_index(layout.shards, "train"), PictureReader(layout.shards)
    assert len(book) == 12 and book.about["origin"]["vq"]["steps"] == 6 and "steps" not in book.about["origin"]
    found = {}
    for path in sorted((layout.codes / "train").glob("*.parquet")):
        own = read_codes(path)
        found |= dict(zip(own.keys, own.codes, strict=True))
    tokens = load_encoder(layout.model("small"), "cpu").encode_with(
        ImageTower.patches, [reader.jpeg(row) for row in index]
    )
    similar = unit((unit(tokens) - book.mean / GRID) @ (book.basis / GRID)) @ (book.codes / UNIT).T
    chosen = np.stack([found[row.key] for row in index]).astype(int)
    own = np.take_along_axis(similar, chosen[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(own, similar.max(axis=2), atol=3e-3)
    assert "Trained with a captioner" in (layout.codes / "codes.html").read_text("utf-8")
    (described,) = (check for check in gates.read(layout.codes) if check.name == "codes_describe")
    losses = book.about["captioner"]
    assert described.value == losses["loss_of_others"] - losses["loss"] and not described.blocking
    select.run(selecting(coding(params, **VQ)), layout)
    assert pq.read_table(layout.selections / "half.parquet").num_rows == round(len(index) / 2)


def test_killed_after_any_unit_it_continues_and_ends_with_the_same_bytes(world):
    params, layout = world
    wanted = coding(params, **VQ)
    codes.run(wanted, layout)
    first = tree(layout.codes)
    shutil.rmtree(layout.work / "codes")
    units = len(computed_by(lambda: codes.run(wanted, layout)))
    assert tree(layout.codes) == first
    for after in range(0, units, 2):
        shutil.rmtree(layout.work / "codes")
        done = killed_after(after, lambda: codes.run(wanted, layout))
        again = computed_by(lambda: codes.run(wanted, layout))
        assert not set(again) & set(done) and len(again) + len(done) == units
        assert tree(layout.codes) == first


def test_stopped_within_the_training_it_resumes_at_its_step(world, monkeypatch):
    params, layout = world
    wanted = coding(params, **VQ)
    codes.run(wanted, layout)
    first = tree(layout.codes)
    shutil.rmtree(layout.work / "codes")
    every_step = settings().model_copy(update={"checkpoint_seconds": 0.0})
    monkeypatch.setattr(stepwise, "settings", lambda: every_step)
    step, taken = fitting._step, list[int]()

    def stopping(*args):
        if len(taken) == 3:
            raise Interrupted("stopped")
        taken.append(args[-1])
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_step", stopping)
        with pytest.raises(Interrupted):
            codes.run(wanted, layout)
    monkeypatch.setattr(fitting, "_step", lambda *args: (taken.append(args[-1]), step(*args))[1])
    codes.run(wanted, layout)
    assert taken == [0, 1, 2, 3, 4, 5]
    assert tree(layout.codes) == first and not list((layout.work / "codes-checkpoints").iterdir())


def test_a_flipped_byte_costs_one_unit_and_kmeans_keeps_its_own(world):
    params, layout = world
    codes.run(coding(params, **VQ), layout)
    first = tree(layout.codes)
    file = next((layout.work / "codes").glob("*/codes.safetensors"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))
    assert len(computed_by(lambda: codes.run(coding(params, **VQ), layout))) == 1 and tree(layout.codes) == first
    codes.run(coding(params), layout)
    assert all(check.name != "codes_describe" for check in gates.read(layout.codes))
    assert computed_by(lambda: codes.run(coding(params, **VQ), layout)) == [] and tree(layout.codes) == first


def test_frozen_it_codes_new_pictures_only_and_reads_no_captions(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    params, layout = coded_project(tmp_path, byte_tokenizer)
    codes.run(coding(params, **VQ), layout)
    shutil.copytree(layout.codes, tmp_path / "kept")
    write_pairs(tmp_path / "pairs", range(40, 44))
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    frozen = coding(params, frozen="kept", **VQ)
    shutil.rmtree(layout.captions)
    again = computed_by(lambda: codes.run(frozen, layout))
    assert len(again) < len(read_index(layout.shards, "train").shard_sizes()) + 1
    assert (layout.codes / "codebook.json").read_bytes() == (tmp_path / "kept/codebook.json").read_bytes()
    assert {check.name for check in gates.read(layout.codes)} >= {"codes_steady", "codes_repeatable"}


def test_clear_errors(world):
    params, layout = world
    with pytest.raises(InputError, match=r"codes\.codes is 5000, and there are \d+ patch tokens: lower it"):
        codes.run(coding(params, codes=5000, **VQ), layout)
    wanted = coding(params, **VQ)
    other = wanted.evaluate.model_copy(update={"train_language": "fi"})
    with pytest.raises(InputError, match=r"0 of \d+ pictures have a caption, and a captioner needs 20"):
        codes.run(wanted.model_copy(update={"evaluate": other}), layout)
    with pytest.raises(ValueError, match="vq says how a codebook vq is trained, and codebook is kmeans"):
        coding(params, vq={"steps": 5})


def test_the_stage_depends_on_captions_only_while_the_codebook_is_made(world):
    params, layout = world
    made = {name: SECTIONS["codes"](layout, coding(params, **values).codes) for name, values in CASES.items()}
    captions = {name: "data/captions/train" in stage["deps"] for name, stage in made.items()}
    assert captions == {"kmeans": False, "vq": True, "frozen": False}
    assert "codes_describe" in made["vq"]["meta"]["dagster"]["checks"]
    assert "codes_describe" not in made["kmeans"]["meta"]["dagster"]["checks"]


CASES = {"kmeans": {}, "vq": VQ, "frozen": {**VQ, "frozen": "kept"}}
