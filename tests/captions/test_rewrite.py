from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flame_core.captions.captioner import Failure
from flame_core.captions.rewrite import RewriteCaptioner
from flame_core.params import RewriteCaptioner as Params
from tests.captions.pictures import sample
from tests.captions.tiny_models import save_llm, say_nothing

CAPTIONS = ['A "red" bus', "</s> {caption} <s>", "", "A cat on a mat beside a large dog", "x"]


def params(folder, **changes):
    given = {"captioner": "rewrite", "model": f"path:{folder}", "prompt": "Rewrite: {caption}", "max_new_tokens": 10}
    return Params.model_validate({**given, "batch_size": 2, **changes})


def samples():
    return [sample(f"{i}", captions={"en": [text]} if text else {}) for i, text in enumerate(CAPTIONS)]


@pytest.mark.parametrize("chat", [True, False])
def test_batches_write_what_the_plain_model_writes_for_each_caption_alone(chat, llm, layout, tmp_path):
    """The oracle is `generate` on one unpadded prompt."""
    folder = llm if chat else save_llm(tmp_path / "plain", chat=None)
    written = RewriteCaptioner(params(folder), layout).captions(samples())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for text, result in zip(CAPTIONS, written, strict=True):
        if not text:
            assert result == Failure("no raw caption to put into the prompt")
            continue
        prompt = "Rewrite: " + text.replace("</s>", "< /s>").replace("<s>", "< s>")
        prompt = f"user: {prompt}\nassistant: " if chat else prompt
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=not chat)["input_ids"]
        expected = tokenizer.decode(model.generate(ids, do_sample=False, max_new_tokens=10)[0, ids.shape[1] :])
        assert result == " ".join(expected.split())
    assert len({str(result) for result in written}) == len(CAPTIONS)  # the captions were read


def test_a_model_that_says_nothing_fails_each_sample(layout, tmp_path):
    silent = save_llm(tmp_path / "silent", speak=say_nothing)
    results = RewriteCaptioner(params(silent), layout).captions(samples()[:2])
    assert results == [Failure("the model wrote no text")] * 2


def test_provenance_names_the_model_without_its_place(layout, llm):
    assert RewriteCaptioner(params(llm), layout).provenance == "rewrite:llm"
    hub = params(llm, model="hub:org/name@0123")
    assert RewriteCaptioner(hub, layout).provenance == "rewrite:org/name@0123"


def test_a_prompt_without_a_place_for_the_caption_is_refused(llm):
    with pytest.raises(ValueError, match="caption"):
        params(llm, prompt="Rewrite it.")
