"""Vector quantisation: nearest codes by brute force, gradients, both terms by hand, and codes that are restarted."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from flame_core.vq.quantizer import VectorQuantizer, VqTerms, straight_through, vq_terms


def test_a_token_becomes_the_code_that_is_nearest_by_brute_force():
    torch.manual_seed(0)
    codes, tokens = torch.randn(7, 5), torch.randn(3, 4, 5)
    layer = VectorQuantizer(codes)
    with torch.no_grad():
        layer.turn.copy_(torch.randn(5, 5))
    found = layer(tokens)
    for place, token in enumerate(tokens.reshape(12, 5)):
        z = layer.turn.detach() @ token
        distances = [float((z / z.norm() - code / code.norm()).square().sum()) for code in codes]
        nearest = distances.index(min(distances))
        assert int(found.numbers[place]) == nearest
        torch.testing.assert_close(found.passed.reshape(12, 5)[place], normalize(codes[nearest], dim=0))
        assert float(found.cosine[place]) == pytest.approx(1 - min(distances) / 2, abs=1e-5)
    assert found.passed.shape == tokens.shape


def test_the_gradient_passes_straight_through():
    z, e, weight = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    passed = straight_through(z, e)
    torch.testing.assert_close(passed, e)
    (passed * weight).sum().backward()
    assert z.grad is not None and torch.equal(z.grad, weight) and e.grad is None


def test_both_terms_by_hand_corrected_and_legacy():
    """Tokens (1, 0), (0, 1) with the codes (0.6, 0.8), (0, 1): squared distances 0.16 + 0.64 and 0."""
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    e = torch.tensor([[0.6, 0.8], [0.0, 1.0]], requires_grad=True)
    terms = vq_terms(z, e)
    assert [float(term.detach()) for term in terms] == pytest.approx([0.4, 0.4])
    halves = VqTerms(torch.tensor(2.0), torch.tensor(3.0))
    assert float(halves.loss(0.25, "corrected")) == 2.75 and float(halves.loss(0.25, "legacy")) == 3.5
    terms.loss(0.25, "corrected").backward()
    assert z.grad is not None and e.grad is not None
    assert z.grad[0].tolist() == pytest.approx([0.25 * 0.4, 0.25 * -0.8])  # beta 2 (z - e) / n
    assert e.grad[0].tolist() == pytest.approx([-0.4, 0.8])
    z.grad = e.grad = None
    vq_terms(z, e).loss(0.25, "legacy").backward()
    assert z.grad is not None and e.grad is not None
    assert z.grad[0].tolist() == pytest.approx([0.4, -0.8])
    assert e.grad[0].tolist() == pytest.approx([0.25 * -0.4, 0.25 * 0.8])


def test_a_code_without_tokens_lately_moves_to_a_token_that_is_least_similar_to_its_code():
    layer = VectorQuantizer(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    tokens = torch.tensor([[[2.0, 0.0], [2.0, 0.2]], [[2.0, 0.4], [1.0, 1.0]]])
    needed = math.ceil(math.log(0.5) / math.log(0.95))  # steps until a count of one has halved
    for step in range(needed):
        moved = layer.restart(tokens, layer(tokens))
        assert moved.tolist() == ([] if step < needed - 1 else [1])
    torch.testing.assert_close(layer.codes[1].detach(), torch.tensor([math.sqrt(0.5), math.sqrt(0.5)]))
    assert layer(tokens).numbers.tolist() == [0, 0, 0, 1]
    assert layer.restart(tokens, layer(tokens)).tolist() == []
