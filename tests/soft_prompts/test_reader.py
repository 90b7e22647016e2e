"""The frozen LLM behind soft prompts: labels, the loss by hand, gradients to the prompts only, and what it writes."""

from __future__ import annotations

import pytest
import torch

from flame_core.errors import InputError, ParamsError
from flame_core.soft_prompts.frozen_llm import FrozenLLM, load_frozen
from flame_core.soft_prompts.reader import IGNORED, caption_ids, caption_loss, labels, token_losses, write
from tests.soft_prompts.toy import PARAMS, toy_folder, toy_llm, toy_model

TEXTS = ["a dog", "two red kites", "x"]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def llm(request, tmp_path_factory, byte_tokenizer) -> FrozenLLM:
    return toy_llm(tmp_path_factory.mktemp("toy") / "llm", byte_tokenizer, tied=request.param)


def prompts(llm: FrozenLLM, count: int = 3, n: int = 4) -> torch.Tensor:
    return torch.randn(count, n, llm.hidden, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_ids_end_with_the_end_token_and_pads_have_no_label(llm):
    captions = caption_ids(llm, TEXTS, 5)
    assert captions.mask.sum(dim=1).tolist() == [6, 6, 2]  # bytes, cut at 5, and the end
    assert [captions.ids[i, n].item() for i, n in ((0, 5), (1, 5), (2, 1))] == [1, 1, 1]
    found = labels(captions, 4)
    assert found.shape == (3, 10) and (found[:, :4] == IGNORED).all()
    assert found[2].tolist() == [IGNORED] * 4 + captions.ids[2, :2].tolist() + [IGNORED] * 4


def test_the_loss_is_the_cross_entropy_of_each_token_by_hand(llm):
    p, captions = prompts(llm).detach(), caption_ids(llm, TEXTS, 9)
    found = token_losses(llm, p, captions)
    table = llm.model.get_input_embeddings().weight
    expected = torch.zeros_like(found)
    for row in range(3):
        ids = captions.ids[row][captions.mask[row]]  # alone, without padding
        x = torch.cat([table[0][None], p[row], table[ids]])  # the tokenizer's BOS first
        logits = llm.model(inputs_embeds=x[None]).logits[0]
        for place, token in enumerate(ids):
            scores = logits[4 + place]  # after BOS and four prompts, less one
            expected[row, place] = torch.logsumexp(scores, 0) - scores[token]
    assert found.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-5)
    assert not found[2, 2:].any()
    assert float(caption_loss(llm, p, captions)) == pytest.approx(float(expected.sum()) / 18, abs=1e-5)


def test_text_of_the_template_stands_around_the_prompts(llm):
    framed = FrozenLLM.of(llm.model, llm.tokenizer, "toy", "0", "say {prompts}: {caption}")
    encoded = llm.tokenizer("say ", add_special_tokens=False).input_ids
    assert framed.before == (0, *encoded) and len(framed.between) == 2
    p, captions = prompts(llm), caption_ids(llm, TEXTS, 9)
    table = llm.model.get_input_embeddings().weight
    head = [table[torch.tensor(framed.before)], p[0], table[torch.tensor(framed.between)]]
    logits = llm.model(inputs_embeds=torch.cat(head)[None]).logits[0, -1]
    first = torch.logsumexp(logits, 0) - logits[captions.ids[0, 0]]
    assert float(token_losses(framed, p, captions)[0, 0]) == pytest.approx(float(first), abs=1e-5)


def test_only_prompts_get_gradients_and_the_llm_keeps_its_bytes_and_mode(llm):
    before = {name: w.clone() for name, w in llm.model.state_dict().items()}
    p = prompts(llm)
    optimizer = torch.optim.AdamW([p], lr=0.1)
    losses = []
    for _ in range(20):
        loss = caption_loss(llm, p, caption_ids(llm, TEXTS, 9))
        optimizer.zero_grad()
        loss.backward()
        assert p.grad is not None and (p.grad.flatten(1).norm(dim=1) > 0).all()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 1
    assert not llm.model.training
    assert all(w.grad is None and not w.requires_grad for w in llm.model.parameters())
    after = llm.model.state_dict()
    assert all(torch.equal(w, after[name]) for name, w in before.items())


def test_it_writes_what_each_next_token_is_most_likely(llm):
    p = prompts(llm).detach()
    found = write(llm, p, max_new_tokens=5)
    table = llm.model.get_input_embeddings().weight
    for row in range(3):
        x, ids = torch.cat([table[0][None], p[row]]), []
        for _ in range(5):
            ids.append(int(llm.model(inputs_embeds=x[None]).logits[0, -1].argmax()))
            if ids[-1] == llm.end:
                break
            x = torch.cat([x, table[ids[-1]][None]])
        assert found[row] == llm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert write(llm, p, max_new_tokens=5) == found
    torch.manual_seed(0)
    assert write(llm, p, max_new_tokens=5, do_sample=True, temperature=3.0) != found


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "qwen3"])
def test_rows_are_embedded_as_the_first_layer_reads_them(family, byte_tokenizer):
    """Also where an architecture multiplies its input embeddings."""
    model = toy_model(family)
    llm = FrozenLLM.of(model, byte_tokenizer, "toy", "0")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.allclose(model(inputs_embeds=llm.embedded(ids)).logits, model(ids).logits, atol=1e-5)
    rows = llm.embedded(torch.arange(300))
    assert llm.row_scale == pytest.approx(float(rows.square().mean().sqrt()), rel=1e-5)


def test_what_cannot_write_is_refused(tmp_path, byte_tokenizer):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ParamsError, match=r"must hold \{prompts\} once, and end with"):
        toy_llm(tmp_path / "a", byte_tokenizer, "{caption} {prompts}")
    folder = toy_folder(tmp_path / "b", byte_tokenizer, tied=False)
    weights = load_file(folder / "model.safetensors")
    save_file({k: w for k, w in weights.items() if "lm_head" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"its weights lack lm_head\.weight, so it cannot write"):
        load_frozen(folder, PARAMS, torch.float32, "cpu")
    with pytest.raises(InputError, match=r"source\.json is missing"):
        load_frozen(tmp_path, PARAMS, torch.float32, "cpu")
