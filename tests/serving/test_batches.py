"""An answer depends on what is asked and not on what else is in the batch, and it stands in the row of its question."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from flame_core.errors import InputError
from flame_core.serving.predictor import LLM_VARIABLE, PATHS_VARIABLE, Predictor
from flame_core.serving.pyfunc_model import Answers, Refusal
from tests.data.drawings import drawing, encoded, png
from tests.measuring import world
from tests.serving.packages import FROZEN, OWN, llm_folder, package, project

NAMES = ["toys", "boats", "houses"]
TEXTS = ["a green boat", "ein rotes Haus mit einem sehr langen Satz dahinter", "a", "?", "a green boat"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer) -> dict[str, Path]:
    """{recipe: its package}, and the folder of the LLM as `llm`."""
    root = tmp_path_factory.mktemp("packages")
    (root / "project").mkdir()
    made = project(root / "project", byte_tokenizer)
    found = {recipe: package(made, recipe, root / recipe, NAMES) for recipe in (FROZEN, OWN)}
    return {**found, "llm": llm_folder(root / "llm", byte_tokenizer)}


@pytest.fixture(autouse=True)
def environment(packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    monkeypatch.setenv(LLM_VARIABLE, str(packages["llm"]))
    monkeypatch.delenv(PATHS_VARIABLE, raising=False)


@pytest.fixture
def model(packages: dict[str, Path]) -> Answers:
    answers = Answers()
    answers.load_context(SimpleNamespace(artifacts={"package": str(packages[FROZEN])}))
    return answers


def test_pictures_of_a_batch_are_those_of_single_questions(packages: dict[str, Path]) -> None:
    """More pictures than the tower takes at once, of different sizes and kinds."""
    predictor = Predictor(packages[FROZEN])
    pictures = [png(seed, (40 + seed % 50, 90 - seed % 40)) for seed in range(130)]
    pictures[7] = encoded(drawing(7), "JPEG")
    z = predictor.pictures(pictures)
    assert z.shape == (130, world.DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    for place in (0, 7, 127, 128, 129):
        np.testing.assert_allclose(predictor.pictures([pictures[place]])[0], z[place], atol=1e-5)
    np.testing.assert_allclose(predictor.pictures(pictures[::-1])[::-1], z, atol=1e-5)
    assert np.abs(z[0] - z[1]).max() > 1e-3  # other pictures, other vectors


@pytest.mark.parametrize("recipe", [FROZEN, OWN])
def test_texts_of_a_batch_are_those_of_single_questions(packages: dict[str, Path], recipe: str) -> None:
    predictor = Predictor(packages[recipe])
    t = predictor.texts(TEXTS)
    assert t.shape == (len(TEXTS), world.DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(t, axis=1), 1, atol=1e-5)
    for place, text in enumerate(TEXTS):
        np.testing.assert_allclose(predictor.texts([text])[0], t[place], atol=1e-5)
    np.testing.assert_array_equal(t[0], t[4])
    assert np.abs(t[0] - t[1]).max() > 1e-3


def test_answers_stand_in_the_rows_of_their_questions(model: Answers) -> None:
    rows = pd.DataFrame(
        {
            "image_bytes": [None, png(1), png(2), None, None],
            "text": ["a green boat", None, "a red house", None, float("nan")],
        }
    )
    found = model.predict(None, rows)
    z, t = model.predictor.pictures([png(1), png(2)]), model.predictor.texts(["a green boat", "a red house"])
    assert [vector is None for vector in found["image_embedding"]] == [True, False, False, True, True]
    assert [vector is None for vector in found["text_embedding"]] == [False, True, False, True, True]
    np.testing.assert_allclose(found["image_embedding"][1], z[0], atol=1e-6)
    np.testing.assert_allclose(found["image_embedding"][2], z[1], atol=1e-6)
    np.testing.assert_allclose(found["text_embedding"][0], t[0], atol=1e-6)
    np.testing.assert_allclose(found["text_embedding"][2], t[1], atol=1e-6)


def test_similarities_are_cosines_of_every_picture_with_every_text(model: Answers) -> None:
    rows = pd.DataFrame({"image_bytes": [png(1), png(2), None], "text": ["a", "a green boat", "a red house"]})
    found = model.predict(None, rows, {"task": "similarity"})
    z, t = model.predictor.pictures([png(1), png(2)]), model.predictor.texts(list(rows["text"]))
    np.testing.assert_allclose(np.array(found["similarities"][:2].tolist()), z @ t.T, atol=1e-6)  # [2, 3]
    assert len(found) == 3 and found["similarities"][2] is None


def test_labels_stand_in_the_rows_of_their_pictures(model: Answers) -> None:
    rows = pd.DataFrame({"image_bytes": [png(1), None, png(2)]}, index=[7, 8, 9])
    found = model.predict(None, rows, {"task": "classify", "top": 1})
    order, scores = model.predictor.labels(model.predictor.pictures([png(1), png(2)]), 1)
    (first,), (last,) = ([NAMES[i] for i in row] for row in order)
    assert found["labels"].tolist() == [[first], None, [last]]
    assert found["scores"].tolist() == [list(scores[0]), None, list(scores[1])]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image_bytes": b"x"}, "picture 2: image_unreadable"),
        ({"text": "   "}, "text 2 is empty"),
        ({"text": "x" * 20_001}, "text 2: 20,001 characters"),
        ({"text": 2024}, r"row 2: `text` is '2024' \(int\), not a text"),
        ({"image": 5.5}, r"row 2: `image` is '5.5' \(float\)"),
        ({"image_bytes": "aGVsbG8="}, r"row 2: `image_bytes` is 'aGVsbG8=' \(str\), not bytes: send base64 as `image`"),
        ({"image": "aGVsbG8=", "image_bytes": png(1)}, "row 2 has both `image` and `image_bytes`"),
    ],
)
def test_what_is_wrong_is_named_by_its_row(model: Answers, row: dict, said: str) -> None:
    rows = pd.DataFrame([{"text": "a green boat"}, {"image_bytes": png(1)}, row])
    with pytest.raises(Refusal, match=said):
        model.predict(None, rows)


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA, pd.NaT])
def test_any_sign_for_null_is_none(model: Answers, null: object) -> None:
    rows = pd.DataFrame({"image": [null], "image_bytes": [png(1)], "text": [null]}, dtype=object)
    assert list(model.predict(None, rows)) == ["image_embedding"]


def test_labels_come_with_their_cosines_the_best_first(model: Answers) -> None:
    found = model.predict(None, pd.DataFrame({"image_bytes": [png(1), png(2)]}), {"task": "classify"})
    for labels, scores in zip(found["labels"], found["scores"], strict=True):
        assert sorted(labels) == sorted(NAMES)  # `top` is 5, and there are three
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("task", ["similarity", "classify"])
def test_a_task_without_its_pictures_or_texts_is_refused(model: Answers, task: str) -> None:
    with pytest.raises(Refusal, match=f"{task} needs at least one picture"):
        model.predict(None, pd.DataFrame({"text": ["a"]}), {"task": task})


def test_similarity_without_a_text_is_refused(model: Answers) -> None:
    with pytest.raises(Refusal, match="similarity needs at least one picture and one text"):
        model.predict(None, pd.DataFrame({"image_bytes": [png(1)]}), {"task": "similarity"})


def test_a_request_without_rows_is_refused(model: Answers) -> None:
    for rows in (pd.DataFrame({"image_bytes": []}), pd.DataFrame(), pd.DataFrame({"text": [None]})):
        with pytest.raises(Refusal, match="no row holds a picture"):
            model.predict(None, rows)


@pytest.mark.parametrize("what", ["pictures", "texts"])
def test_an_empty_list_is_refused_by_name(packages: dict[str, Path], what: str) -> None:
    predictor = Predictor(packages[OWN])
    with pytest.raises(InputError, match=f"no {what} to embed"):
        getattr(predictor, what)([])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "picture 1: image_empty: zero bytes"),
        (b"<html>not a picture</html>", "picture 1: image_"),
        (png(1)[:-200], "picture 1: image_"),
        ("not base64!", "picture 1: 'not base64!' is no base64"),
        ("data:image/png;base64,", "picture 1: image_empty: zero bytes"),
        ("https://example.org/a.png", "picture 1: addresses are not fetched"),
    ],
)
def test_one_bad_picture_is_named_by_its_place(packages: dict[str, Path], image: str | bytes, said: str) -> None:
    with pytest.raises(InputError) as refused:
        Predictor(packages[FROZEN]).pictures([png(0), image])
    assert str(refused.value).startswith(said)
