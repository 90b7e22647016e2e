"""The captioner: its words, and that it sees codes as a bag and of the caption only what came before."""

from __future__ import annotations

import torch

from flame_core.vq.decoder import END, OTHER, PAD, START, CaptionDecoder, Vocabulary, padded, words_of


def test_the_most_frequent_words_have_numbers_and_captions_are_cut():
    words = Vocabulary.of(["A red dog", "a Dog, and a cat!", "the cat's dog 2"], 3)
    assert words.words == ["a", "dog", "cat"] and len(words) == 7
    assert words.ids("A cat saw the dog", 30) == [START, 4, 6, OTHER, OTHER, 5, END]
    assert words.ids("dog dog dog", 2) == [START, 5, 5, END]
    assert words_of("一只狗 runs") == ["一", "只", "狗", "runs"]
    assert padded([[1, 2], [1, 4, 2]]).tolist() == [[1, 2, PAD], [1, 4, 2]]


def test_a_word_sees_the_words_before_it_and_codes_in_any_order():
    torch.manual_seed(0)
    decoder = CaptionDecoder(5, 11, 32, 2, 6).eval()
    codes, ids = torch.randn(2, 7, 5), torch.tensor([[START, 4, 5, 6, END], [START, 7, END, PAD, PAD]])
    losses = decoder.losses(codes, ids)
    assert losses.shape == (2, 4) and (losses[1, 2:] == 0).all() and (losses[0] > 0).all()
    assert decoder.loss(codes, ids).item() == torch.cat([losses[0], losses[1, :2]]).mean().item()
    torch.testing.assert_close(decoder.losses(codes[:, torch.randperm(7)], ids), losses)
    later = ids.clone()
    later[0, 3] = 9
    torch.testing.assert_close(decoder.losses(codes, later)[0, :2], losses[0, :2])
    assert not torch.allclose(decoder.losses(codes.roll(1, dims=0), ids), losses)
