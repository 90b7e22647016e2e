"""Pairs of captions of one picture: their languages, their draws, and which are held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from flame_core.adapting.pairs import CaptionPairs, read_pairs, said_again
from flame_core.captions.table import Caption, write_captions
from flame_core.data.captions_text import same_text
from flame_core.errors import InputError
from flame_core.params import AdaptLLMParams

LANGUAGES = ["de", "fr", "en_GB"]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """60 pictures, two of which say the same; the British caption is the English one in other letters."""
    (tmp_path / "train").mkdir()
    for shard in range(2):
        rows = []
        for row in range(30):
            number = max(30 * shard + row, 1)
            texts = {"en": f"thing {number}", "de": f"Ding {number}", "fr": f"chose {number}"}
            rows += [Caption(row, str(row), "raw", text, name, "") for name, text in texts.items()]
            rows.append(Caption(row, str(row), "raw", f"Thing {number}!", "en_GB", ""))
            rows.append(Caption(row, str(row), "short", f"a thing like {number}", "en", ""))
        write_captions(tmp_path / f"train/{shard:05}.parquet", rows)
    return tmp_path


def pairs(folder: Path, **values) -> CaptionPairs:
    own = {"batch_size": 8, "languages": LANGUAGES, "held_out": 0.2, **values}
    return read_pairs(AdaptLLMParams.model_validate(own), folder, "en")


def test_an_epoch_has_every_learned_picture_once_each_with_two_captions_of_its_own(captions):
    found = pairs(captions)
    batches = [found.batch(step) for step in range(len(found.learned) // 8)]
    drawn = [pair for batch in batches for pair in batch]
    numbers = [text.rpartition(" ")[2].strip("!") for (_, text), _ in drawn]
    assert (max(Counter(numbers).values()) <= 2 and Counter(numbers)["1"] in (0, 2)) or Counter(numbers)["1"] == 1
    for (kind, first), (other_kind, second) in drawn:
        assert first.rpartition(" ")[2].strip("!") == second.rpartition(" ")[2].strip("!")
        assert same_text(first) != same_text(second)
        assert first.startswith(("thing", "a thing"))  # in the language of training
        assert {kind, other_kind} <= {"raw", "short"}
    assert found.batch(0) == batches[0] and found.batch(1) != batches[0]
    assert found.batch(len(batches)) != batches[0]  # another order in the next epoch


def test_the_draws_of_a_step_follow_from_the_seed_and_its_number(captions):
    one, two = pairs(captions), pairs(captions, seed=1)
    for step in [0, 1, 7, 0, 8, 2]:
        for found, seed in ((one, 0), (two, 1)):  # by turns, so the order that is kept is another's
            epoch, place = divmod(step, len(found.learned) // 8)
            draws = [torch.Generator().manual_seed(seed * 1_000_003 + n) for n in (epoch, 1_000_003 // 2 + step)]
            order = torch.randperm(len(found.learned), generator=draws[0]).tolist()[place * 8 : (place + 1) * 8]
            assert found.batch(step) == [found.pictures[found.learned[i]].pair(draws[1]) for i in order]


def test_languages_are_equally_likely(captions):
    found = pairs(captions, languages=["de", "fr"], kinds=["raw"])
    seconds = [second for step in range(60) for _, (_, second) in found.batch(step)]
    starts = Counter(text.partition(" ")[0] for text in seconds)
    assert set(starts) == {"Ding", "chose"} and abs(starts["Ding"] - 240) < 45
    assert {"Ding", "chose"} < {t.partition(" ")[0] for p in pairs(captions, languages="all").test for _, t in p}


def test_pictures_with_the_same_caption_are_on_the_same_side(captions):
    for seed in range(3):
        found = pairs(captions, seed=seed)
        learned = {same_text(found.pictures[i].own[0][1]) for i in found.learned}
        assert not learned & {same_text(found.pictures[i].own[0][1]) for i in found.held_out}
        assert len(found.learned) + len(found.held_out) == 60
    assert pairs(captions).test == pairs(captions).test and len(pairs(captions, tested=3).test) == 3


def test_pairs_that_share_a_text_are_no_wrong_answers(captions):
    a, b, c = (("raw", "red"), ("raw", "rot")), (("raw", "blue"), ("raw", "Rot!")), (("raw", "green"), ("raw", "vert"))
    expected = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert torch.equal(said_again([a, b, c]), expected)
    drawn = [pair for step in range(20) for pair in pairs(captions).batch(step)]
    sets = [{same_text(text) for _, text in pair} for pair in drawn]
    assert torch.equal(said_again(drawn), torch.tensor([[bool(one & other) for other in sets] for one in sets]))


def test_a_language_that_no_caption_is_in_is_refused(captions):
    with pytest.raises(InputError, match=r"languages has xx, and the raw training captions are in de, en, en_GB, fr: "):
        pairs(captions, languages=["de", "xx"])


def test_pictures_with_one_caption_are_left_out_and_too_few_are_refused(captions):
    with pytest.raises(InputError, match=r"of 0 pictures with two different captions .* name more kinds or languages"):
        pairs(captions, kinds=["raw"], languages=["en_GB"])
    with pytest.raises(InputError, match=r"a batch needs 100"):
        pairs(captions, batch_size=100)


def test_held_out_pictures_that_all_say_the_same_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    rows = []
    for number in range(30):  # of these texts, only that of the pictures 0 to 2 is held out
        same = "a drawing 1757" if number < 3 else f"thing {number}"
        texts = [("raw", same), ("short", f"{same}, in ink")]
        rows += [Caption(number, str(number), kind, text, "en", "") for kind, text in texts]
    write_captions(tmp_path / "train/00000.parquet", rows)
    with pytest.raises(InputError, match=r"3 held out, of which 2 that say different things are needed"):
        pairs(tmp_path, languages=[], held_out=0.01)
