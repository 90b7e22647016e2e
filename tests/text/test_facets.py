"""Templates, normalisation and truncation, against the rules written out."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.params import LLMParams, TextParams, read_yaml
from flame_core.text.caption_tokens import printable
from flame_core.text.facets import FacetTokenizer, normalise_sentence
from flame_core.text.llm import load_tokenizer
from tests.conftest import PREFIX, text_params
from tests.stages.pipeline import ROOT

# FLAME's own texts, word for word (arXiv 2411.11927; the released code writes them with underscores)
PAPER_PREFIX = 'Image description : "A cat." . After thinking step by step ,'
PAPER_FACETS = [
    '<s> this image description means in just one word:"',
    ' the category of the main object in this image means in just one word:"',
    ' the prominent characteristic or pattern of the main object in this image means in just one word:"',
    ' the category of the minor object in this image means in just one word:"',
    ' the prominent characteristic or pattern of the minor object in this image means in just one word:"',
    ' the primary action or event taking place in this image means in just one word:"',
    ' the overall atmosphere or emotion of this image means in just one word:"',
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat", "A cat."),
        ("A cat.", "A cat."),
        ("A cat!", "A cat!."),
        ("A cat?", "A cat."),
        ('He says "stop"', "He says 'stop'"),
        ("", ""),
        ("  two\nlines\x00here ", "two lines here."),
    ],
)
def test_flame_normalisation(text, expected):
    assert normalise_sentence(text, "flame") == expected


def test_normalisation_can_be_left_out():
    assert normalise_sentence('A "cat"?', "none") == 'A "cat"?'


def test_segments_positions_and_readout(byte_tokenizer):
    sequence = FacetTokenizer(byte_tokenizer, text_params()).encode("short", "A cat")
    prefix = sequence.segment.count(0)
    text = 'Image description : "A cat." . After thinking step by step ,'
    assert prefix == 1 + len(text)  # BOS, and one token a byte
    lengths = [sequence.segment.count(j) for j in (1, 2, 3)]
    assert sequence.segment == [0] * prefix + [1] * lengths[0] + [2] * lengths[1] + [3] * lengths[2]
    assert sequence.position == [*range(prefix)] + [prefix + i for n in lengths for i in range(n)]
    assert sequence.readout == [prefix + sum(lengths[: j + 1]) - 1 for j in range(3)]
    assert byte_tokenizer.decode([sequence.ids[i] for i in sequence.readout]) == '"""'
    assert sequence.ids[prefix] == byte_tokenizer.bos_token_id  # {bos} opens facet 1


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_templates_that_ship_are_those_of_the_paper(path: Path, byte_tokenizer):
    params = TextParams.model_validate(read_yaml(path)["text"])
    facets = FacetTokenizer(byte_tokenizer, params)
    long = PAPER_PREFIX.replace("Image", "Detailed Image", 1), PAPER_FACETS
    short = PAPER_PREFIX, PAPER_FACETS[:3]
    raw = PAPER_PREFIX, [PAPER_FACETS[0].removeprefix("<s>")]
    paper = {"long": long, "short": short, "raw": raw if "short" in params.template else short}
    for kind in params.template:
        sequence = facets.encode(kind, "A cat")
        parts = [_decoded(byte_tokenizer, sequence, j) for j in range(max(sequence.segment) + 1)]
        assert (parts[0].removeprefix("<s>"), parts[1:]) == paper[kind]


def test_the_template_of_a_new_project_is_that_of_the_paper():
    written = (ROOT / "flame_core/project/params.yaml.j2").read_text("utf-8").splitlines()
    facets = [facet.replace("<s>", " {bos}") for facet in PAPER_FACETS[:3]]
    assert [line.strip() for line in written if "in just one word" in line] == [f"- '{facet}'" for facet in facets]
    assert any(line.strip() == f"prefix: '{PAPER_PREFIX.replace('A cat.', '{caption}')}'" for line in written)


def _decoded(tokenizer, sequence, segment: int) -> str:
    """The tokens of a segment as text."""
    return tokenizer.decode([i for i, own in zip(sequence.ids, sequence.segment, strict=True) if own == segment])


def test_bos_is_empty_where_the_tokenizer_adds_none(smollm2):
    tokenizer = load_tokenizer(smollm2, LLMParams(name="smollm2", source="path:x"))
    sequence = FacetTokenizer(tokenizer, text_params()).encode("short", "A cat")
    assert tokenizer.bos_token_id not in sequence.ids
    assert tokenizer.decode(sequence.ids[sequence.segment.count(0) :]).startswith(" this image description means")


def test_words_of_the_template_and_special_tokens_in_a_caption_stay_plain_text(smollm2):
    tokenizer = load_tokenizer(smollm2, LLMParams(name="smollm2", source="path:x"))
    facets = FacetTokenizer(tokenizer, text_params(normalise="none"))
    caption = 'A {caption} and {bos} with <|im_start|> and a "quote"'
    sequence = facets.encode("raw", caption)
    assert not set(tokenizer.all_special_ids) & set(sequence.ids)
    assert caption in tokenizer.decode(sequence.ids)


ODD = [
    "",
    " ",
    "\x00",
    "a",
    "<s></s>",
    "<|im_start|>user\n<|endoftext|>",
    "\u2028é🙂",
    "  lead",
    "﷽ﷺ",
    "word " * 90,
    "a" * 5000,
]


@pytest.mark.parametrize("kind", ["raw", "short@reference", "sentence"])
def test_texts_are_tokenised_together_and_read_as_each_by_itself(kind, smollm2, monkeypatch):
    tokenizer = load_tokenizer(smollm2, LLMParams(name="smollm2", source="path:x"))
    params = text_params(max_caption_tokens=20, normalise="none", sentence={"prompt": "Say {caption}"})
    tokens = FacetTokenizer(tokenizer, params)
    texts = ODD + [f"picture number {number}" for number in range(300)]
    whole, calls = type(tokenizer).__call__, []
    monkeypatch.setattr(
        type(tokenizer), "__call__", lambda *given, **how: calls.append(given[1]) or whole(*given, **how)
    )
    found = list(tokens.encode_all(kind, texts))
    assert max(map(len, calls)) <= 256  # bounds the memory
    assert len(calls) == 4  # of each part its captions, which are cut, and its prompts
    assert tokens.count(kind, texts * 2) == sum(map(len, found))
    assert len(calls) == 8
    before, after = ("Say ", "") if kind == "sentence" else PREFIX.split("{caption}")
    for text, sequence in zip(texts, found, strict=True):
        alone = tokenizer(text[:640], add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        places = alone["offset_mapping"]
        caption = printable(text[:640] if len(places) <= 20 else text[: places[19][1]])
        prompt = tokenizer(before + caption + after, add_special_tokens=False, split_special_tokens=True).input_ids
        assert sequence.ids[: sequence.segment.count(0)] == prompt
        assert sequence == tokens.encode(kind, text)


def test_truncation_cuts_the_text_itself(byte_tokenizer):
    facets = FacetTokenizer(byte_tokenizer, text_params(max_caption_tokens=5, normalise="none"))
    sequence = facets.encode("raw", "abcdefghij" * 10_000)
    assert '"abcde"' in byte_tokenizer.decode(sequence.ids)


def test_a_caption_is_cut_from_its_first_token_beyond_the_limit(byte_tokenizer):
    facets = FacetTokenizer(byte_tokenizer, text_params(max_caption_tokens=5, normalise="none"))
    assert [facets.is_cut(text) for text in ("", "abcde", "abcdef", "abcd ", "aé€", "aé€b")] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


def test_truncation_keeps_whole_characters(byte_tokenizer):
    facets = FacetTokenizer(byte_tokenizer, text_params(max_caption_tokens=4, normalise="none"))
    decoded = byte_tokenizer.decode(facets.encode("raw", "aéé€€").ids)
    assert "�" not in decoded


def test_the_template_hash_follows_everything_that_makes_ids(byte_tokenizer, smollm2):
    base = FacetTokenizer(byte_tokenizer, text_params()).template_hash
    other = load_tokenizer(smollm2, LLMParams(name="smollm2", source="path:x"))
    hashes = {
        base,
        FacetTokenizer(byte_tokenizer, text_params(normalise="none")).template_hash,
        FacetTokenizer(byte_tokenizer, text_params(max_caption_tokens=9)).template_hash,
        FacetTokenizer(other, text_params()).template_hash,
    }
    assert len(hashes) == 4
    assert FacetTokenizer(byte_tokenizer, text_params(layer=7)).template_hash == base
