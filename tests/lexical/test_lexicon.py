"""The vocabulary's rule, the lexicon's files, and what it makes of a vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from flame_core.errors import InputError, ParamsError
from flame_core.lexical import LEXICON
from flame_core.lexical.lexicon import lexicon_of, read_lexicon
from flame_core.lexical.vocabulary import Vocabulary, Word, read_vocabulary
from flame_core.params import LexicalParams

TOKENS = ["<s>", "Ġdog", "dog", "ĠDog", "a", "ing", "Ġ12", "Ġ.", "ä", "ĠHünd", "Ġсобака", "er2", "Ġx"]


class Tokens:
    """A tokenizer of these tokens, as far as the rule uses one."""

    all_special_ids = (0,)

    def get_vocab(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(TOKENS)}

    def decode(self, ids: list[int]) -> str:
        return TOKENS[ids[0]].replace("Ġ", " ")


def words(rows: int = len(TOKENS), **rule) -> list[str]:
    found = read_vocabulary(Tokens(), rows, LexicalParams.model_validate({"top": 1, "rule": rule}))
    assert [word.token for word in found.words] == sorted(word.token for word in found.words)
    return [TOKENS[word.token] for word in found.words]


def test_words_are_tokens_of_letters_and_nothing_is_merged():
    assert words() == ["Ġdog", "dog", "ĠDog", "ing", "ĠHünd"]
    assert words(whole=True) == ["Ġdog", "ĠDog", "ĠHünd"]
    assert words(alphabet="any", min_letters=3) == ["Ġdog", "dog", "ĠDog", "ing", "ĠHünd", "Ġсобака"]
    assert words(rows=3) == ["Ġdog", "dog"]


def test_the_rule_may_not_leave_nothing_and_its_digest_tells_rules_apart():
    with pytest.raises(ParamsError, match=r"lexical.rule leaves none of the 13 tokens"):
        words(min_letters=9)
    rules = [LexicalParams.model_validate({"top": 1, "rule": {"whole": whole}}) for whole in (False, True)]
    first, second = (read_vocabulary(Tokens(), 13, rule) for rule in rules)
    assert first.digest != second.digest == read_vocabulary(Tokens(), 13, rules[1]).digest


def test_a_word_is_found_in_any_case_and_place():
    found = read_vocabulary(Tokens(), 13, LexicalParams(top=1))
    assert found.places(" DOG ") == [0, 1, 2] and found.places("cat") == []


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_llm_itself(tmp_path, tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    vocabulary = Vocabulary(tuple(Word(token, f"w{token}", True) for token in (3, 7, 49)))
    lexicon = lexicon_of(tmp_path, vocabulary)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.inference_mode():
        hidden = again.model(torch.tensor([[1, 2, 5]])).last_hidden_state[0, -1]
        expected = again.lm_head(hidden)[[3, 7, 49]].numpy()
    t = (hidden / hidden.norm()).numpy()[None]
    assert lexicon.length == pytest.approx(hidden.norm().item(), rel=1e-3)  # the norm adds an epsilon
    assert lexicon.logits(t)[0] == pytest.approx(expected, rel=2e-3, abs=1e-3)


def test_centring_subtracts_the_mean_logit_and_files_keep_everything(tmp_path):
    torch.manual_seed(0)
    rows = torch.randn(4, 3)
    (tmp_path / "config.json").write_text("{}")
    from safetensors.torch import save_file

    save_file({"lm_head.weight": rows, "model.norm.weight": torch.full((3,), 2.0)}, tmp_path / "model.safetensors")
    vocabulary = Vocabulary(tuple(Word(i, "abcd"[i], i > 1) for i in range(4)))
    lexicon = lexicon_of(tmp_path, vocabulary)
    t = np.random.default_rng(0).normal(size=(5, 3))
    centred = lexicon.centred(t.sum(axis=0), 5)
    assert centred.logits(t).mean(axis=0) == pytest.approx(0, abs=2e-3)
    assert centred.logits(t) == pytest.approx(12**0.5 * t @ rows.double().numpy().T - centred.mean, abs=1e-3)
    fewer = centred.only(np.array([3, 1]))
    assert [word.text for word in fewer.vocabulary.words] == ["b", "d"]
    for name, content in fewer.files().items():
        (tmp_path / name).write_bytes(content)
    read = read_lexicon(tmp_path)
    assert read.vocabulary == fewer.vocabulary and read.length == fewer.length
    assert torch.equal(read.rows, fewer.rows) and np.array_equal(read.mean, fewer.mean)
    assert read.digest == fewer.digest != centred.digest
    (tmp_path / LEXICON).write_bytes(b"no")
    with pytest.raises(InputError, match="its lexicon is damaged"):
        read_lexicon(tmp_path)
