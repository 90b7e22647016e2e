"""flame codes: the nearest code of every patch, the same after a kill, only what is new, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import numpy as np
import pytest

from flame_core import gates
from flame_core.clustering.sources import GRID
from flame_core.clustering.spherical import UNIT
from flame_core.codes.code_files import read_codes
from flame_core.codes.codebook import read_codebook
from flame_core.data.shards import PictureReader, read_index
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import caption, codes, download, ingest
from flame_core.text.store import unit
from flame_core.verification import verify
from flame_core.vision.image_encoder import load_encoder
from flame_core.vision.tower import ImageTower
from tests.bits import flip
from tests.selections.coded_project import coded_project, coding, write_tower
from tests.stages.pipeline import tree, write_pairs
from tests.stages.units import computed_by, killed_after


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards of 40 drawings, and a tower."""
    root = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        yield coded_project(root, byte_tokenizer)


def all_codes(layout: Layout) -> dict[str, np.ndarray]:
    """{key: codes of its patches}."""
    found = [read_codes(path) for path in sorted((layout.codes / "train").glob("*.parquet"))]
    return {key: own for each in found for key, own in zip(each.keys, each.codes, strict=True)}


def test_each_patch_has_its_nearest_code_under_its_pictures_key(world):
    params, layout = world
    codes.run(coding(params), layout)
    book, found = read_codebook(layout.codes), all_codes(layout)
    index, reader = read_index(layout.shards, "train"), PictureReader(layout.shards)
    assert len(found) == len(index) and len(book) == 12
    tokens = load_encoder(layout.model("small"), "cpu").encode_with(
        ImageTower.patches, [reader.jpeg(row) for row in index]
    )  # in one batch, and by the plain formula
    reduced = unit((unit(tokens) - book.mean / GRID) @ (book.basis / GRID))
    similar = reduced @ (book.codes / UNIT).T  # [N, L, K]
    chosen = np.stack([found[row.key] for row in index]).astype(int)
    own = np.take_along_axis(similar, chosen[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(own, similar.max(axis=2), atol=3e-3)
    assert len(np.unique(chosen)) > 6
    verify({layout.codes: ["*"]})
    page = (layout.codes / "codes.html").read_text("utf-8")
    assert page.count("<article") == len(np.unique(chosen)) and page.count("data:image/jpeg") > 12


def test_killed_after_any_unit_it_continues_and_ends_with_the_same_bytes(world):
    params, layout = world
    codes.run(coding(params), layout)
    first = tree(layout.codes)
    units = sum(path.is_dir() for path in (layout.work / "codes").iterdir())
    assert units >= 8
    for after in range(0, units, 2):
        shutil.rmtree(layout.work / "codes")
        shutil.rmtree(layout.codes, ignore_errors=True)
        done = killed_after(after, lambda: codes.run(coding(params), layout))
        assert not layout.codes.exists()
        again = computed_by(lambda: codes.run(coding(params), layout))
        assert not set(again) & set(done) and len(again) + len(done) == units
        assert tree(layout.codes) == first


def test_a_flipped_byte_in_the_work_cache_costs_one_unit(world):
    params, layout = world
    codes.run(coding(params), layout)
    first = tree(layout.codes)
    file = next((layout.work / "codes").glob("*/codes.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()  # the out is a hard link
    file.write_bytes(bytes(content))
    again = computed_by(lambda: codes.run(coding(params), layout))
    assert len(again) == 1 and tree(layout.codes) == first


def test_a_damaged_shard_and_a_damaged_tower_are_refused(world):
    params, layout = world
    for file, offset in (
        (sorted((layout.shards / "train").glob("*.tar"))[0], 700),
        (layout.model("small") / "model.safetensors", 5000),
    ):
        before = file.read_bytes()
        file.unlink()
        file.write_bytes(before)
        flip(file, offset, 3)
        try:
            with pytest.raises(InputError, match="is damaged"):
                codes.run(coding(params), layout)
        finally:
            file.write_bytes(before)


def test_a_frozen_codebook_codes_new_pictures_only_and_tells_drift(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    params, layout = coded_project(tmp_path, byte_tokenizer)
    codes.run(coding(params), layout)
    shutil.copytree(layout.codes, tmp_path / "kept")
    before = all_codes(layout)
    write_pairs(tmp_path / "pairs", range(40, 44))
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    frozen = coding(params, frozen="kept")
    again = computed_by(lambda: codes.run(frozen, layout))
    shards = len(read_index(layout.shards, "train").shard_sizes())
    assert len(again) < shards + 1  # shards that did not change are found in the cache
    after = all_codes(layout)
    assert len(after) > len(before)
    assert all((after[key] == before[key]).all() for key in before.keys() & after.keys())
    for name in ("codebook.safetensors", "codebook.json"):
        assert (layout.codes / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()
    (steady,) = (check for check in gates.read(layout.codes) if check.name == "codes_steady")
    assert f"{len(after) - len(before)} new pictures" in steady.description and not steady.blocking
    codes.run(coding(params), layout)
    assert all(check.name != "codes_steady" for check in gates.read(layout.codes))


def test_a_codebook_of_another_tower_is_refused(world, tmp_path):
    params, layout = world
    codes.run(coding(params), layout)
    shutil.copytree(layout.codes, tmp_path / "kept")
    write_tower(tmp_path / "other", hidden=64, seed=1)
    other = coding(params, frozen=str(tmp_path / "kept"), tower={"path": str(tmp_path / "other")})
    with pytest.raises(InputError, match=r"a codebook of another tower than .*other(.|\n)*weights: the codebook has"):
        codes.run(other, layout)
    flip(tmp_path / "kept/codebook.safetensors", 400, 3)
    with pytest.raises(InputError, match=r"codebook\.safetensors is damaged"):
        codes.run(coding(params, frozen=str(tmp_path / "kept")), layout)
    with pytest.raises(InputError, match="holds no codebook"):
        codes.run(coding(params, frozen=str(tmp_path / "other")), layout)


def test_bad_values_are_refused_with_what_to_do(world, tmp_path):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `codes`"):
        codes.run(params, layout)
    with pytest.raises(InputError, match=r"codes\.codes is 5000, and there are \d+ patch tokens"):
        codes.run(coding(params, codes=5000), layout)
    with pytest.raises(InputError, match=r"codes\.dims 64: \d+ tokens of 24 dimensions have at most 24"):
        codes.run(coding(params, dims=64), layout)
    with pytest.raises(InputError, match=r"codes\.tower: .*nowhere does not exist"):
        codes.run(coding(params, tower={"path": str(tmp_path / "nowhere")}), layout)
    with pytest.raises(ValueError, match="name one tower"):
        coding(params, tower={"recipe": "small", "timm": "vit_tiny_patch16_224"})
    with pytest.raises(ValueError, match="which a timm backbone lacks"):
        coding(params, tower={"timm": "vit_tiny_patch16_224"}, codebook="words")


def test_checks_name_dead_codes(world):
    params, layout = world
    codes.run(coding(params, codes=200, gates={"min_perplexity": 0.99, "max_dead_fraction": 0.0}), layout)
    used, alive, repeatable = gates.read(layout.codes)
    counts = np.bincount(np.concatenate(list(all_codes(layout).values())), minlength=200)
    assert not used.passed and used.blocking
    assert not alive.passed and alive.keys == [f"code {code}" for code in np.flatnonzero(counts == 0)[:20]]
    assert repeatable.passed and repeatable.value == 1.0


def test_a_tower_that_answers_differently_each_time_is_found(world, monkeypatch):
    """As the released code did, which kept dropout and random crops on."""
    params, layout = world
    encode = ImageTower.patches
    draw = np.random.default_rng(0)
    monkeypatch.setattr(ImageTower, "patches", lambda self, x: encode(self, x + 0.5 * float(draw.normal())))
    shutil.rmtree(layout.work / "codes")
    codes.run(coding(params), layout)
    shutil.rmtree(layout.work / "codes")
    (repeatable,) = (check for check in gates.read(layout.codes) if check.name == "codes_repeatable")
    assert not repeatable.passed and repeatable.blocking and repeatable.value < 1


def test_the_origin_says_what_the_codebook_was_made_for(world):
    params, layout = world
    codes.run(coding(params), layout)
    about = json.loads((layout.codes / "codebook.json").read_text())
    assert about["tower"]["tokens"] == "patches" and about["tokens"] == 16 and 0 < about["cosine"] <= 1
    assert (
        json.loads((layout.codes / "manifest.json").read_text())["index"] == read_index(layout.shards, "train").digest()
    )
