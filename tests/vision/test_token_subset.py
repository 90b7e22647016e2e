"""A tower that sees some patches of each picture: those and no others, in pieces as in one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.objectives import term_classes
from flame_core.objectives.multi_positive_sigmoid import MultiPositiveSigmoid
from flame_core.training.loop import train
from flame_core.vision.token_subset import embedded
from tests.training.throw_away import past_recipe
from tests.training.world import samples_of, write_world
from tests.vision.test_facet_tokens import FACETS, pictures, tower

PATCHES = 16
READS = ("z", "cls", "patches")


@pytest.mark.parametrize("blocks", [None, 2])
def test_all_patches_kept_is_the_whole_picture(blocks):
    made = tower(blocks)
    everything = torch.arange(PATCHES).expand(3, PATCHES)
    whole, kept = made(pictures(), READS), made(pictures(), READS, everything)
    for name in READS:
        torch.testing.assert_close(kept[name], whole[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("blocks", [None, 2])
def test_what_is_left_out_is_not_seen(blocks):
    made = tower(blocks)
    keep = torch.tensor([[0, 5, 6], [3, 2, 1], [15, 0, 7]])
    seen = made(pictures(), READS, keep)
    other = pictures()
    other[0, :, :8, 8:16] += 3.0  # patch 1 of the first picture, which the second one keeps
    assert seen["patches"].shape == (3, 3, 24) and seen["z"].shape[1] == (1 + FACETS if blocks else 1)
    again = made(other, READS, keep)
    assert all(torch.equal(seen[name], again[name]) for name in READS)
    other[1, :, :8, 8:16] += 3.0
    assert not torch.equal(seen["z"][1], made(other, READS, keep)["z"][1])
    turned = made(pictures(), READS, keep.flip(1))["patches"].flip(1)
    torch.testing.assert_close(turned, seen["patches"], atol=1e-6, rtol=1e-5)


def test_recomputed_activations_give_the_same_gradient():
    keep = torch.tensor([[0, 5], [3, 2], [15, 7]])
    gradients = []
    for recompute in (False, True):
        made = tower(None, recompute)
        made(pictures(), ("z",), keep)["z"][:, 0, 0].sum().backward()
        gradients.append(made.backbone.blocks[0].mlp.fc1.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_backbone_that_is_no_plain_vit_is_refused():
    with pytest.raises(ParamsError, match=r"SimpleNamespace has no patch_embed.*plain ViT"):
        embedded(SimpleNamespace(), pictures(), torch.zeros(3, 1, dtype=torch.long))


class HalfSeen(MultiPositiveSigmoid):
    """Every picture by two of its four patches, those that its key says."""

    def prepare(self, batch, tower, at, ranks):
        return batch.keeping(torch.stack([batch.rows % 4, (batch.rows + 1) % 4], dim=-1)[:, None])


def test_pieces_of_a_batch_keep_their_own_patches(tmp_path, monkeypatch):
    write_world(tmp_path)
    whole = past_recipe(epochs=1).model_copy(update={"terms": []})
    plain = train(samples_of(tmp_path, whole), whole, tmp_path / "plain").metrics
    monkeypatch.setitem(term_classes(), "multi_positive_sigmoid", HalfSeen)
    one = train(samples_of(tmp_path, whole), whole, tmp_path / "one").metrics
    pieces = whole.model_copy(update={"micro_batch_size": 3})
    three = train(samples_of(tmp_path, pieces), pieces, tmp_path / "three").metrics
    for row, right in zip(three, one, strict=True):
        assert row == pytest.approx(right, rel=1e-5)
    assert one[0]["loss"] != plain[0]["loss"]
