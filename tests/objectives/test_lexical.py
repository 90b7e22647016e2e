"""LexVLA's terms against their formulas, and the head against a dense computation."""

from __future__ import annotations

import pytest
import torch

from flame_core.objectives.lexical import flops, overuse
from flame_core.vision import lexical_head
from flame_core.vision.lexical_head import LexicalHead, word_weights


def test_closed_forms():
    one_for_all = torch.eye(8)[:1].expand(4, 8).mean(dim=0)  # one word in all of 4 samples, V = 8
    assert (flops(one_for_all).item(), overuse(one_for_all).item()) == pytest.approx((1, 8))
    each_its_own = torch.eye(8)[:4].mean(dim=0)
    assert (flops(each_its_own).item(), overuse(each_its_own).item()) == pytest.approx((0.25, 0.5))


def test_overuse_is_never_below_flops_and_equal_for_equal_use():
    torch.manual_seed(0)
    for _ in range(50):
        use = torch.rand(20)
        assert overuse(use) > flops(use)
    same = torch.full((20,), 0.3)
    assert overuse(same).item() == pytest.approx(flops(same).item(), rel=1e-5)


def test_overuse_pushes_rare_words_up_unless_its_weights_are_detached():
    use = torch.tensor([0.9, 0.05, 0.05, 0.05], requires_grad=True)
    overuse(use).backward()
    a = use.detach()
    ratio = (a**3).sum() / a.sum()
    expected = 4 * (3 * a**2 - ratio) / a.sum()
    assert use.grad is not None and use.grad.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert use.grad[0] > 0 > use.grad[1]
    use.grad = None
    overuse(use, detach=True).backward()
    assert (use.grad > 0).all()


def test_the_maximum_over_patches_by_blocks_of_words_is_the_dense_one(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(lexical_head, "_BLOCK", 7)
    head = LexicalHead(width=16, dims=8, words=30)
    head.start_from(torch.randn(30, 8))
    patches = torch.randn(3, 5, 16, requires_grad=True)
    z = head(patches)
    direction = torch.randn_like(z)
    (z * direction).sum().backward()
    blocked, gradients = patches.grad, [p.grad for p in head.parameters()]
    patches.grad, head.codebook.grad = None, None
    head.zero_grad()
    y = head.layers(head.block(patches))
    dense = word_weights((y @ head.codebook.T).amax(dim=1))[:, None]
    (dense * direction).sum().backward()
    torch.testing.assert_close(z, dense, rtol=0, atol=1e-6)
    torch.testing.assert_close(blocked, patches.grad, rtol=1e-4, atol=1e-6)
    for found, parameter in zip(gradients, head.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 29, 30])
def test_sums_that_are_exact_give_the_same_bits_in_blocks_of_any_size(monkeypatch, block):
    draw = torch.Generator().manual_seed(0)
    head = LexicalHead(width=8, dims=8, words=30)
    head.block, head.layers = torch.nn.Identity(), torch.nn.Identity()
    head.start_from(torch.randint(-4, 5, (30, 8), generator=draw).float())
    patches = torch.randint(-4, 5, (3, 5, 8), generator=draw).float().requires_grad_()
    direction = torch.randn(3, 1, 30, generator=draw)
    dense = word_weights((patches @ head.codebook.T).amax(dim=1))[:, None]
    monkeypatch.setattr(lexical_head, "_BLOCK", block)
    assert torch.equal(head(patches), dense)
    chosen = (patches @ head.codebook.T).max(dim=1)  # as a maximum gives its gradient: to the first of equals
    (wanted,) = torch.autograd.grad((word_weights(chosen.values)[:, None] * direction).sum(), patches)
    (found,) = torch.autograd.grad((head(patches) * direction).sum(), patches)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def trained_on_a_planted_word(weight: float) -> tuple[float, float]:
    """(use of word 0, contrastive loss) after training with `overuse`; a constant feature excites word 0 everywhere."""
    samples, words = 24, 32
    draw = torch.Generator().manual_seed(0)
    own = torch.eye(words)[1 + torch.arange(samples)]  # each sample has a word of its own
    x = torch.cat([own + 0.1 * torch.randn(own.shape, generator=draw), torch.ones(samples, 1)], dim=1)
    texts = word_weights(6 * own)
    codebook = torch.cat([3 * torch.eye(words), 8 * torch.eye(words)[:, :1]], dim=1).requires_grad_()
    optimizer = torch.optim.Adam([codebook], lr=0.02)
    for _ in range(300):
        z = word_weights(x @ codebook.T)
        contrast = torch.nn.functional.cross_entropy(z @ texts.T / 0.07, torch.arange(samples))
        use = z.mean(dim=0)
        optimizer.zero_grad()
        (contrast + weight * overuse(use)).backward()
        optimizer.step()
    return float(use.detach()[0]), float(contrast.detach())


def test_the_penalty_frees_pictures_of_a_word_that_all_have_and_leaves_the_contrast():
    (used, alone), (penalised, beside) = trained_on_a_planted_word(0.0), trained_on_a_planted_word(0.05)
    assert penalised < 0.6 * used  # 0.26 and 0.50 when it was written
    assert beside < 1.05 * alone


def test_a_patch_that_is_a_row_of_the_codebook_is_its_word():
    head = LexicalHead(width=8, dims=8, words=8)
    head.start_from(torch.eye(8) * 9)
    head.block, head.layers = torch.nn.Identity(), torch.nn.Identity()
    patches = torch.eye(8)[None, [2, 5, 5]]
    assert head.of_patches(patches)[0].argmax(dim=-1).tolist() == [2, 5, 5]
    top = head(patches)[0, 0].topk(2).indices
    assert sorted(top.tolist()) == [2, 5]
    assert head(patches).norm(dim=-1).tolist() == [[pytest.approx(1)]]


def test_what_patches_give_to_a_word_is_at_most_its_weight_and_one_of_them_gives_it():
    torch.manual_seed(0)
    head = LexicalHead(width=16, dims=8, words=30)
    head.start_from(3 * torch.randn(30, 8))
    patches = torch.randn(2, 6, 16)
    z, words = head(patches)[:, 0], torch.tensor([4, 29, 0])
    given = head.by_patch(patches, words)
    assert given.shape == (2, 6, 3)
    torch.testing.assert_close(given.amax(dim=1), z[:, words], rtol=0, atol=1e-6)
    logits = head.layers(head.block(patches)) @ head.codebook.T
    assert torch.equal(given.argmax(dim=1), logits.argmax(dim=1)[:, words])
