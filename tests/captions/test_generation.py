from __future__ import annotations

import json

import pytest
import torch

from flame_core.captions.captioner import Failure
from flame_core.captions.generation import (
    as_plain_text,
    caption_in_batches,
    clean,
    fill_prompt,
    load_model,
    model_identity,
    model_location,
    model_name,
    release_models,
)
from flame_core.errors import InputError, ResourceError
from flame_core.params import RewriteCaptioner, VLMCaptioner
from tests.captions.tiny_models import byte_tokenizer

SPEC = "path:model"


@pytest.mark.parametrize(
    ("written", "caption"),
    [
        ("A red bus.", "A red bus."),
        ("\n  A red\n bus.\t\n\nIt is large.\n", "A red bus."),
        ("assistant: A red bus.", "A red bus."),
        ("assistant:A red bus.", "A red bus."),
        ("Assistant\nA red bus.", "A red bus."),
        ("**Assistant:** A red bus.", "A red bus."),
        ("A red bus.\nUser: another\nAssistant: A tree.", "A red bus."),
        ('"A red bus."', "A red bus."),
        ("“A red bus.”", "A red bus."),
        ('A bus with "12" on it', 'A bus with "12" on it'),
        ('"12" is on the bus "A"', '"12" is on the bus "A"'),
        ("<think>Hm.\n\nA bus?</think>\n\nA red bus.", "A red bus."),
        ("<think>Hm, a bus", ""),
        ("Here is the caption:\n\nA red bus.", "A red bus."),
        ("Model trains on a shelf.", "Model trains on a shelf."),
        ("User manual: a page", "User manual: a page"),
        ("A red\x00 bus.\u2028", "A red bus."),
        (" \n\n ", ""),
        ("می\u200cخواهم", "می\u200cخواهم"),  # joiners are part of words
        ("\u200d", ""),
    ],
)
def test_cleaning(written, caption):
    assert clean(written) == caption


def test_the_caption_is_put_in_once_and_never_read_as_a_template():
    text = 'a {caption} "quoted" {0} %s \\1'
    prompt = fill_prompt("Rewrite {caption} {x}", {"captions": {"en": [text]}}, byte_tokenizer())
    assert prompt == f"Rewrite {text} {{x}}"


def test_the_english_caption_is_put_in_or_else_the_first_language():
    tokenizer = byte_tokenizer()
    assert fill_prompt("{caption}", {"captions": {"de": ["Hund"], "en": ["dog", "cat"]}}, tokenizer) == "dog"
    assert fill_prompt("{caption}", {"captions": {"fr": ["chien"], "de": ["Hund"]}}, tokenizer) == "Hund"
    assert isinstance(fill_prompt("{caption}", {"captions": {}}, tokenizer), Failure)
    assert fill_prompt("Describe.", {"captions": {}}, tokenizer) == "Describe."
    assert len(str(fill_prompt("{caption}", {"captions": {"en": ["x" * 100_000]}}, tokenizer))) == 4000


@pytest.mark.parametrize("text", ["a <image> b", "</s>", "<<image>image>", "<s><s>", "<image", "fine"])
def test_no_control_token_is_left_in_user_text(text):
    tokenizer = byte_tokenizer()
    special = set(tokenizer.all_special_ids)
    plain = as_plain_text(text, tokenizer)
    assert not special & set(tokenizer.encode(plain, add_special_tokens=False))
    assert plain.replace(" ", "") == text.replace(" ", "")
    assert (plain == text) == (text in ("<image", "fine"))


def test_batches_are_fixed_and_failures_stay_in_their_place():
    seen = []

    def write(batch):
        seen.append(batch)
        return [f"caption {item}" for item in batch]

    results = caption_in_batches([0, 1, Failure("no"), 3, 4], 2, write, SPEC)
    assert results == ["caption 0", "caption 1", Failure("no"), "caption 3", "caption 4"]
    assert seen == [[0, 1], [3], [4]]


def test_a_sample_that_raises_fails_alone_and_an_empty_text_is_a_failure():
    def write(batch):
        if "bad" in batch:
            raise ValueError("no such thing\nat all")
        return ["" if item == "silent" else item for item in batch]

    assert caption_in_batches(["a", "bad", "silent"], 3, write, SPEC) == [
        "a",
        Failure("ValueError: no such thing"),
        Failure("the model wrote no text"),
    ]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_is_a_clear_error_at_once(error):
    calls = []

    def write(batch):
        calls.append(batch)
        raise error

    with pytest.raises(ResourceError, match=r"path:model: out of memory.*batch_size"):
        caption_in_batches([1, 2, 3, 4], 2, write, SPEC)
    assert calls == [[1, 2]]


def test_locations(layout, llm):
    assert model_location("hub:org/name@abc", layout) == ("org/name", "abc")
    assert model_location(f"path:{llm}", layout) == (str(llm), None)
    (layout.project / "here").symlink_to(llm)
    assert model_location("path:here", layout) == (str(layout.project / "here"), None)
    assert (model_name("hub:org/name@abc"), model_name("path:/a/b/")) == ("org/name@abc", "b")


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_model_that_is_not_there_is_named(layout, make):
    make(layout.project / "model")
    with pytest.raises(InputError, match="model path:model: no"):
        model_location(SPEC, layout)


def test_identity_follows_the_bytes_and_not_the_place(layout):
    def make(name, weights):
        folder = layout.project / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(weights)
        return model_identity(f"path:{name}", layout)

    assert make("a", "1") == make("b", "1") != make("c", "2")
    assert model_identity("hub:x@1", layout) != model_identity("hub:x@2", layout)


def test_models_of_the_wrong_kind_are_refused(layout, llm, tmp_path):
    with pytest.raises(InputError, match=r"model path:.*: it has no processor"):
        load_model(VLMCaptioner(captioner="vlm", model=f"path:{llm}", prompt="Say."), layout)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match=r"model path:empty: it cannot be loaded"):
        load_model(RewriteCaptioner(captioner="rewrite", model="path:empty", prompt="{caption}"), layout)
    (empty / "config.json").write_text(json.dumps({"model_type": "no-such-architecture"}))
    with pytest.raises(InputError, match=r"model path:empty: it cannot be loaded"):
        load_model(VLMCaptioner(captioner="vlm", model="path:empty", prompt="{caption}"), layout)


def test_a_model_is_loaded_once_with_its_numeric_type(layout, llm):
    params = RewriteCaptioner(captioner="rewrite", model=f"path:{llm}", prompt="{caption}", dtype="bfloat16")
    loaded = load_model(params, layout)
    assert loaded.model.dtype == torch.bfloat16
    assert load_model(params.model_copy(update={"prompt": "Again {caption}"}), layout) is loaded
    release_models()
    assert load_model(params, layout) is not loaded
