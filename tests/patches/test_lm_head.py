"""Words of vectors by the output matrix alone, read in blocks from one or several safetensors files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flame_core.errors import InputError
from flame_core.patches import lm_head
from flame_core.patches.lm_head import LMHead, word_tokens


class Tokenizer:
    """Nine tokens, five of which begin a word."""

    vocabulary = ("<s>", "Ġcat", "ing", "Ġdog", "Ġa", "▁Haus", "Ġ,,,", "ĠSnow", "Ġred")

    def get_vocab(self):
        return {token: index for index, token in enumerate(self.vocabulary)}

    def decode(self, ids):
        return self.vocabulary[ids[0]].replace("Ġ", " ").replace("▁", " ")


WORDS = {"cat", "dog", "haus", "snow", "red", "cats"}


def matrix(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(9, 16)).astype(np.float32))


def test_only_tokens_that_begin_a_word_are_read():
    assert word_tokens(Tokenizer()) == {1: "cat", 3: "dog", 5: "haus", 7: "snow", 8: "red"}


@pytest.mark.parametrize("rows", [2, 4, 100])
def test_the_largest_logits_whatever_the_block(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(lm_head, "_ROWS", rows)
    save_file({"lm_head.weight": matrix(), "model.embed_tokens.weight": matrix(1)}, tmp_path / "model.safetensors")
    vectors = np.random.default_rng(2).normal(size=(6, 16)).astype(np.float32)
    ids = np.array([1, 3, 5, 7, 8])
    order = np.argsort(-(vectors @ matrix().numpy()[ids].T), axis=1)[:, :3]
    words = np.array(["cat", "dog", "haus", "snow", "red"])
    assert LMHead(tmp_path, Tokenizer(), WORDS).top_words(vectors, 3) == words[order].tolist()


def test_rows_of_tokens_are_those_of_the_matrix(tmp_path):
    save_file({"lm_head.weight": matrix().bfloat16()}, tmp_path / "model.safetensors")
    found = LMHead(tmp_path, Tokenizer(), WORDS).vectors([7, 1])
    assert np.array_equal(found, matrix().bfloat16().float().numpy()[[7, 1]]) and found.dtype == np.float32


def test_words_that_are_not_in_the_vocabulary_are_never_said(tmp_path):
    save_file({"lm_head.weight": matrix()}, tmp_path / "model.safetensors")
    head = LMHead(tmp_path, Tokenizer(), {"snow", "red"})
    assert head.words == {7: "snow", 8: "red"}
    assert {word for row in head.top_words(matrix().numpy(), 1) for word in row} == {"snow", "red"}


def test_a_tied_model_reads_its_input_embeddings_from_the_file_that_the_index_names(tmp_path):
    save_file({"model.embed_tokens.weight": matrix().bfloat16()}, tmp_path / "model-00002.safetensors")
    save_file({"model.norm.weight": torch.ones(16)}, tmp_path / "model-00001.safetensors")
    index = {
        "weight_map": {
            "model.embed_tokens.weight": "model-00002.safetensors",
            "model.norm.weight": "model-00001.safetensors",
        }
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert LMHead(tmp_path, Tokenizer(), WORDS).top_words(matrix().numpy()[[3, 8]], 1) == [["dog"], ["red"]]


def test_a_folder_without_such_a_matrix_is_refused(tmp_path):
    save_file({"model.norm.weight": torch.ones(16)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no output matrix"):
        LMHead(tmp_path, Tokenizer(), WORDS)
