"""A codebook: nearest codes by brute force, its files, and codes of words and of a timm tower."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.torch import save_file

from flame_core.clustering.sources import GRID
from flame_core.clustering.spherical import UNIT, fit_reduction, on_sphere
from flame_core.codes.codebook import ABOUT, CODEBOOK, Codebook, on_grid, read_codebook
from flame_core.codes.patch_tokens import TimmTower
from flame_core.errors import InputError
from flame_core.text.store import unit
from tests.data.drawings import drawing, encoded

ABOUT_IT = {"tower": {"weights": "abc"}, "tokens": 4, "cosine": 0.5}


@pytest.fixture
def book() -> Codebook:
    draw = np.random.default_rng(0)
    found = fit_reduction(on_grid(draw.normal(size=(300, 10)) + 2), 5)
    codes = on_sphere(draw.normal(size=(7, 5))).astype(np.int16)
    return Codebook(codes, found.mean.astype(np.int32), found.basis.astype(np.int32), ABOUT_IT)


def test_a_token_has_the_code_that_is_nearest_by_brute_force(book):
    tokens = np.random.default_rng(1).normal(size=(40, 10)).astype(np.float32) + 2
    codes, cosine = book.assign(tokens)
    space = unit((unit(tokens.astype(np.float64)) - book.mean / GRID) @ (book.basis / GRID))
    similar = space @ unit(book.codes.astype(np.float64)).T
    for token, (code, own) in enumerate(zip(codes, cosine, strict=True)):
        assert similar[token, code] == pytest.approx(similar[token].max(), abs=2e-3)
        assert own == pytest.approx(similar[token, code], abs=2e-3)
    assert codes.dtype == np.uint16
    by_picture, mean = book.assign_pictures(tokens.reshape(10, 4, 10))
    assert by_picture.ravel().tolist() == codes.tolist()
    assert mean[3] == pytest.approx(cosine[12:16].mean())


def test_lengths_of_tokens_do_not_matter_and_parts_change_nothing(book, monkeypatch):
    tokens = np.random.default_rng(1).normal(size=(40, 10)) + 2
    whole = book.assign(tokens)[0]
    assert (book.assign(tokens * 8)[0] == whole).all()  # a power of two: exactly the same directions
    monkeypatch.setattr("flame_core.codes.codebook._ROWS", 10)
    assert (book.assign(tokens)[0] == whole).all()


@pytest.mark.parametrize("with_basis", [True, False])
def test_a_codebook_is_read_as_it_was_written(book, tmp_path, with_basis):
    if not with_basis:
        codes = on_sphere(np.random.default_rng(2).normal(size=(7, 10))).astype(np.int16)
        book = dataclasses.replace(book, basis=None, codes=codes)
    (tmp_path / CODEBOOK).write_bytes(book.to_bytes())
    (tmp_path / ABOUT).write_text(json.dumps(book.about))
    found = read_codebook(tmp_path)
    assert found.digest == book.digest and found.to_bytes() == book.to_bytes()
    tokens = np.random.default_rng(1).normal(size=(9, 10))
    assert (found.assign(tokens)[0] == book.assign(tokens)[0]).all()
    assert np.abs(np.linalg.norm(found.reduced(tokens), axis=1) / UNIT - 1).max() < 2e-3


def test_damaged_and_missing_codebooks_are_refused(book, tmp_path):
    with pytest.raises(InputError, match="holds no codebook; name a folder that `flame codes` made"):
        read_codebook(tmp_path)
    (tmp_path / CODEBOOK).write_bytes(book.to_bytes()[:50])
    (tmp_path / ABOUT).write_text("{}")
    with pytest.raises(InputError, match="damaged codebook"):
        read_codebook(tmp_path)


def test_a_digest_is_of_the_arrays_and_of_the_tower(book):
    other = dataclasses.replace(book, about={**ABOUT_IT, "tower": {"weights": "abd"}})
    assert other.digest != book.digest
    assert dataclasses.replace(book, about={**ABOUT_IT, "cosine": 0.4}).digest == book.digest


def test_a_timm_backbone_gives_its_patch_tokens(tmp_path):
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False)  # with a classifier, as files of timm
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    tower = TimmTower("test_vit@w.safetensors", tmp_path / "w.safetensors", "cpu")
    jpegs = [encoded(drawing(i), "JPEG") for i in range(3)]
    tokens = tower.tokens(jpegs)
    side = model.patch_embed.grid_size[0]
    assert tokens.shape == (3, side * side, model.num_features)
    assert np.array_equal(tower.tokens(jpegs), tokens)
    assert json.loads(json.dumps(tower.identity)) == tower.identity
    with pytest.raises(InputError, match="timm no_such_model cannot be loaded"):
        TimmTower("no_such_model", tmp_path / "w.safetensors", "cpu")
    with pytest.raises(InputError, match="does not return tokens"):
        resnet = timm.create_model("test_resnet", pretrained=False, num_classes=0)
        save_file(resnet.state_dict(), tmp_path / "r.safetensors")
        TimmTower("test_resnet", tmp_path / "r.safetensors", "cpu")
