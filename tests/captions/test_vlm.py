from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from flame_core.captions.captioner import Failure
from flame_core.captions.vlm import VLMCaptioner
from flame_core.data.shards import Sample
from flame_core.params import VLMCaptioner as Params
from tests.captions.pictures import box, disc, noise, sample
from tests.captions.tiny_models import save_llava, say_nothing


def params(folder, **changes):
    given = {"captioner": "vlm", "model": f"path:{folder}", "prompt": "Say {caption}", "max_new_tokens": 10}
    return Params.model_validate({**given, "batch_size": 2, **changes})


def samples():
    return [
        sample("disc", disc("red"), captions={"en": ["a <image> of </s> {caption}"]}),
        sample("wide", box("blue", size=(300, 90)), captions={"en": ["x"]}),
        sample("noise", noise(size=(80, 160)), captions={"en": ["x"]}),
    ]


def plain(text):
    return text.replace("<image>", "< image>").replace("</s>", "< /s>")


def test_batches_write_what_the_plain_model_writes_for_each_picture_alone(vlm, layout):
    """The oracle is `generate` on one picture, with the processor's own chat template in one step."""
    written = VLMCaptioner(params(vlm), layout).captions(samples())
    processor = AutoProcessor.from_pretrained(vlm)
    model = AutoModelForImageTextToText.from_pretrained(vlm, dtype=torch.float32)
    for one, result in zip(samples(), written, strict=True):
        content = [
            {"type": "image", "image": Image.open(io.BytesIO(one.jpeg)).convert("RGB")},
            {"type": "text", "text": "Say " + plain(one.meta["captions"]["en"][0])},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=10)[0, inputs["input_ids"].shape[1] :]
        assert result == " ".join(processor.decode(ids).split())


def test_the_picture_is_seen(vlm, layout):
    same_text = [sample(name, picture, captions={"en": ["x"]}) for name, picture in
                 (("a", disc("red")), ("b", noise(1)), ("c", box("black")))]  # fmt: skip
    assert len(set(map(str, VLMCaptioner(params(vlm), layout).captions(same_text)))) > 1


def test_a_damaged_picture_fails_alone(vlm, layout):
    good = samples()
    whole = VLMCaptioner(params(vlm, batch_size=1), layout).captions(good)
    with_bad = [good[0], Sample("bad", good[1].jpeg[:200], good[1].meta), *good[1:]]
    written = VLMCaptioner(params(vlm, batch_size=1), layout).captions(with_bad)
    assert written == [whole[0], Failure("the picture cannot be decoded (OSError)"), *whole[1:]]


def test_a_processor_without_a_chat_template_gets_the_image_token_before_the_prompt(layout, tmp_path):
    folder = save_llava(tmp_path / "plain", chat=None)
    (written,) = VLMCaptioner(params(folder, prompt="Say."), layout).captions(samples()[1:2])
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    picture = Image.open(io.BytesIO(samples()[1].jpeg)).convert("RGB")
    inputs = processor(text="<image>\nSay.", images=picture, return_tensors="pt")
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=10)[0, inputs["input_ids"].shape[1] :]
    assert written == " ".join(processor.decode(ids).split())


def test_a_model_that_says_nothing_fails_each_sample(layout, tmp_path):
    silent = save_llava(tmp_path / "silent", speak=say_nothing)
    results = VLMCaptioner(params(silent), layout).captions(samples())
    assert results == [Failure("the model wrote no text")] * 3
    assert VLMCaptioner(params(silent), layout).provenance == "vlm:silent"


def test_remote_code_needs_a_model_with_its_revision():
    with pytest.raises(ValueError, match="hub:<id>@<revision>"):
        params("model", trust_remote_code=True)
    with pytest.raises(ValueError, match="model"):
        params("", model="hub:org/name", trust_remote_code=True)
    assert params("", model="hub:org/name@1", trust_remote_code=True).trust_remote_code
