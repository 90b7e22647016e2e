"""Every layout of benchmark data, on folders made here, and the messages for broken or missing data."""

from __future__ import annotations

import os

import numpy as np
import pytest

from flame_core.errors import InputError, ParamsError
from flame_core.suite.content import Labelled, Masked, NotAvailable, Questions
from flame_core.suite.layouts import read_content
from flame_core.suite.layouts.dci import dci_text
from tests.suite import datasets
from tests.suite.datasets import COLOURS, benchmark, captions_of, lines, picture, pictures, put


def test_clip_benchmark_captions_are_lines_and_pictures_are_read_from_the_tar(tmp_path):
    datasets.clip_benchmark_captions(tmp_path / "set")
    content = read_content(benchmark("retrieval", "clip_benchmark"), tmp_path)
    assert list(captions_of(content).values()) == [
        ["a red one", "the red one"], ["a green one"], ["blue", "very blue", "the blue one"],
    ]  # fmt: skip
    assert [each.read() for each in content.pictures] == [picture(colour, "PNG") for colour in COLOURS[:3]]


def test_clip_benchmark_classes(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "set")
    content = read_content(benchmark("classification", "clip_benchmark"), tmp_path)
    assert isinstance(content, Labelled)
    assert content.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert content.names == {"en": COLOURS}
    assert content.templates == {"en": ["a {c} thing", "a photo of {c}"]}
    assert content.pictures[9].read() == picture("black", size=(49, 32))


def test_clip_benchmark_with_samples_that_lack_something(tmp_path):
    folder = tmp_path / "set"
    datasets.clip_benchmark_captions(folder)
    datasets.tar(folder / "test/0.tar", [(name, b"x") for name in ("a.jpg", "b.txt", "./c.d/c.jpg", "./c.d/c.txt")])
    content = read_content(benchmark("retrieval", "clip_benchmark"), tmp_path)
    assert [each.name for each in content.pictures] == ["./c.d/c"]
    assert content.skips.counts == {"pictures without a caption": 1, "captions whose picture is missing": 1}
    assert content.skips.names == {"pictures without a caption": ["a"], "captions whose picture is missing": ["b"]}


def test_a_wrong_number_of_classes_is_refused(tmp_path):
    folder = tmp_path / "set"
    datasets.clip_benchmark_classes(folder)
    put(folder / "classnames.txt", "red\ngreen\n")
    with pytest.raises(InputError, match=r"classnames.txt: 2 class names, but a label is 5"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)
    datasets.clip_benchmark_classes(folder)
    put(folder / "names.json", {"en": COLOURS, "de": ["rot"]})
    task = {"kind": "classification", "class_names": "names.json"}
    with pytest.raises(InputError, match=r"names.json: 1 class names in 'de', but the labels are of 6 classes"):
        read_content(benchmark(task, "clip_benchmark", languages=["en", "de"]), tmp_path)
    with pytest.raises(InputError, match=r"no class names in fr \(it has de, en\)"):
        read_content(benchmark(task, "clip_benchmark", languages=["en", "fr"]), tmp_path)


def test_class_names_in_many_languages_bring_their_templates(tmp_path):
    folder = tmp_path / "set"
    datasets.clip_benchmark_classes(folder)
    german = {"names": ["rot", "grün", "blau", "gelb", "schwarz", "weiß"], "templates": ["ein Bild von {c}"]}
    put(folder / "names.json", {"en": COLOURS, "de": german})
    task = {"kind": "classification", "class_names": "names.json"}
    content = read_content(benchmark(task, "clip_benchmark", languages=["en", "de"]), tmp_path)
    assert content.names == {"en": COLOURS, "de": german["names"]}
    assert content.templates == {"de": german["templates"]}


def test_image_folders_by_class(tmp_path):
    pictures(tmp_path / "set/test/a_cat", ["1.jpg", "2.png"])
    pictures(tmp_path / "set/test/dog", ["1.jpg"])
    (tmp_path / "set/test/empty").mkdir()
    content = read_content(benchmark("classification", "image_folder"), tmp_path)
    assert content.names == {"en": ["a cat", "dog", "empty"]}
    assert content.labels.tolist() == [0, 0, 1]
    assert content.skips.names == {"classes without a picture": ["empty"]}
    put(tmp_path / "set/classnames.txt", "cat\ndog\n")
    with pytest.raises(InputError, match="2 class names in 'en', but the labels are of 3 classes"):
        read_content(benchmark("classification", "image_folder"), tmp_path)


def test_karpathy_takes_the_split_and_all_sentences(tmp_path):
    rows = [
        {"filename": "1.jpg", "filepath": "val", "split": "test", "sentences": [{"raw": " one "}, {"raw": "uno"}]},
        {"filename": "2.jpg", "filepath": "val", "split": "train", "sentences": [{"raw": "two"}]},
        {"filename": "3.jpg", "split": "test", "sentences": [{"raw": "three"}]},
    ]
    put(tmp_path / "set/dataset.json", {"images": rows})
    pictures(tmp_path / "set/images", ["val/1.jpg", "val/2.jpg"])
    content = read_content(benchmark("retrieval", "karpathy"), tmp_path)
    assert captions_of(content) == {"val/1.jpg": ["one", "uno"]}
    assert content.skips.names == {
        "captions whose picture is missing": ["3.jpg"],
        "entries of other splits": ["val/2.jpg (train)"],
    }


def test_karpathy_has_a_file_per_language(tmp_path):
    for language, text in (("en", "a dog"), ("de", "ein Hund")):
        rows = [{"filename": "1.jpg", "split": "test", "sentences": [{"raw": text}]}]
        put(tmp_path / f"set/dataset_{language}.json", {"images": rows})
    pictures(tmp_path / "set/images", ["1.jpg"])
    one = benchmark("retrieval", "karpathy", languages=["en", "de"], data={"annotations": "dataset_{language}.json"})
    content = read_content(one, tmp_path)
    assert content.captions == {"en": [(0, "a dog")], "de": [(0, "ein Hund")]} and len(content.pictures) == 1
    with pytest.raises(InputError, match=r"dataset.json: Karpathy's JSON does not name its language; for en, de write"):
        read_content(benchmark("retrieval", "karpathy", languages=["en", "de"]), tmp_path)


def test_crossmodal3600_keeps_the_languages_of_the_benchmark(tmp_path):
    datasets.crossmodal(tmp_path / "set")
    content = read_content(benchmark("retrieval", "crossmodal3600", languages=["en", "zh"]), tmp_path)
    assert set(content.captions) == {"en", "zh"}
    assert captions_of(content, "zh")["000"] == ["red zh", "another red zh"]
    assert "005" not in captions_of(content, "zh")


def test_urban1k_reads_the_first_line_alone(tmp_path):
    pictures(tmp_path / "set/image", ["1.jpg", "2.jpg", "4.jpg"])
    put(tmp_path / "set/caption/1.txt", "A street.\nMore of it.\n")
    put(tmp_path / "set/caption/2.txt", "A park.")
    put(tmp_path / "set/caption/3.txt", "No picture.")
    content = read_content(benchmark("retrieval", "urban1k"), tmp_path)
    assert captions_of(content) == {"1": ["A street."], "2": ["A park."]}
    assert content.skips.counts == {"captions whose picture is missing": 1, "pictures without a caption": 1}


def test_dci_joins_short_and_extra_captions_of_every_split(tmp_path):
    assert dci_text("A cat. ", "It sleeps.\n\nOn a mat</s> indoors") == "A cat. It sleeps. On a mat. indoors"
    put(tmp_path / "set/splits.json", {"train": ["a.json"], "test": ["b.json"]})
    for name in ("a", "b"):
        entry = {"image": f"{name}.jpg", "short_caption": f"Short {name}", "extra_caption": "Extra."}
        put(tmp_path / f"set/annotations/{name}.json", entry)
    pictures(tmp_path / "set/photos", ["a.jpg", "b.jpg"])
    content = read_content(benchmark("retrieval", "dci"), tmp_path)
    assert captions_of(content) == {"a.json": ["Short a. Extra"], "b.json": ["Short b. Extra"]}


def test_docci_takes_its_split(tmp_path):
    rows = [
        {"split": "test", "image_file": "1.jpg", "description": "A\nB"},
        {"split": "train", "image_file": "2.jpg", "description": "C"},
    ]
    put(tmp_path / "set/docci_descriptions.jsonlines", lines(rows))
    pictures(tmp_path / "set/images", ["1.jpg", "2.jpg"])
    assert captions_of(read_content(benchmark("retrieval", "docci"), tmp_path)) == {"1.jpg": ["A B"]}


def test_sharegpt4v_takes_the_first_entries_and_the_second_turn(tmp_path):
    rows = [{"image": f"sam/{i}.jpg", "conversations": [{"value": "?"}, {"value": f"text\n{i}"}]} for i in range(3)]
    put(tmp_path / "set/file.json", rows)
    pictures(tmp_path / "set/sam", ["0.jpg", "1.jpg", "2.jpg"])
    definition = benchmark("retrieval", "sharegpt4v", data={"annotations": "file.json", "first": 2})
    assert captions_of(read_content(definition, tmp_path)) == {"sam/0.jpg": ["text 0"], "sam/1.jpg": ["text 1"]}


def test_sugarcrepe_has_seven_groups_and_each_picture_once(tmp_path):
    datasets.sugarcrepe(tmp_path / "set")
    content = read_content(benchmark("choice", "sugarcrepe"), tmp_path)
    assert isinstance(content, Questions)
    assert [each.name for each in content.pictures] == ["a.jpg", "b.jpg"]
    assert len(content.questions) == 14
    assert content.questions[1].pictures == (1,)
    assert content.questions[1].texts == ("add_obj right 1", "add_obj wrong 1")
    assert len({question.group for question in content.questions}) == 7


def test_winoground_counts_questions_without_their_pictures(tmp_path):
    datasets.winoground(tmp_path / "set")
    (tmp_path / "set/images/1_1.png").unlink()
    content = read_content(benchmark("choice", "winoground"), tmp_path)
    assert [q.pictures for q in content.questions] == [(0, 1), (2, 3)]
    assert [q.texts for q in content.questions] == [("q0 x", "q0 y"), ("q2 x", "q2 y")]
    assert content.skips.names == {"questions whose picture is missing": ["1"]}


def test_captions_jsonl_counts_and_names_what_does_not_fit_together(tmp_path):
    rows = [
        {"image": "a.jpg", "captions": ["one", " "], "lang": "en"},
        {"image": "a.jpg", "captions": "eins", "lang": "de"},
        {"image": "gone.jpg", "captions": "nothing", "lang": "en"},
        {"image": "b.jpg", "captions": [], "lang": "en"},
    ]
    put(tmp_path / "set/captions.jsonl", lines(rows))
    pictures(tmp_path / "set/images", ["a.jpg", "b.jpg", "stray.jpg"])
    content = read_content(benchmark("retrieval", "captions_jsonl", languages=["en", "de", "fr"]), tmp_path)
    assert content.captions == {"en": [(0, "one")], "de": [(0, "eins")], "fr": []}
    assert content.skips.counts == {"captions whose picture is missing": 1, "pictures without a caption": 2}
    assert content.skips.names["pictures without a caption"] == ["b.jpg", "stray.jpg"]


def test_masks_go_with_their_pictures(tmp_path):
    datasets.masks(tmp_path / "set")
    pictures(tmp_path / "set/images", ["lonely.jpg"])
    content = read_content(benchmark("segmentation", "masks"), tmp_path)
    assert isinstance(content, Masked)
    assert [(a.name, b.name) for a, b in zip(content.pictures, content.masks, strict=True)] == [
        ("0.png", "0.png"), ("1.png", "1.png"),
    ]  # fmt: skip
    assert content.skips.names == {"pictures without a mask": ["lonely.jpg"]}


def test_data_that_are_not_there_are_not_available(tmp_path):
    with pytest.raises(NotAvailable, match="set does not exist"):
        read_content(benchmark("retrieval", "urban1k"), tmp_path)
    (tmp_path / "set").mkdir()
    for layout in ("urban1k", "karpathy", "docci", "crossmodal3600", "captions_jsonl", "clip_benchmark", "dci"):
        with pytest.raises(NotAvailable, match="does not exist"):
            read_content(benchmark("retrieval", layout), tmp_path)


def test_broken_files_are_named_with_their_row(tmp_path):
    pictures(tmp_path / "set/images", ["a.jpg"])
    file = put(tmp_path / "set/captions.jsonl", '{"image": "a.jpg", "captions": ["x"]}\n{"image": \n')
    definition = benchmark("retrieval", "captions_jsonl")
    with pytest.raises(InputError, match=r"captions.jsonl, line 2: not valid JSON"):
        read_content(definition, tmp_path)
    put(file, '{"image": "a.jpg", "captions": 5}\n')
    with pytest.raises(InputError, match=r"line 1: captions must be a text or a list of texts"):
        read_content(definition, tmp_path)
    put(file, '{"captions": ["x"]}\n')
    with pytest.raises(InputError, match=r"line 1: 'image' is missing or of the wrong type"):
        read_content(definition, tmp_path)


def test_a_layout_that_does_not_hold_what_the_task_needs_is_refused(tmp_path):
    pictures(tmp_path / "set/test/cat", ["1.jpg"])
    pictures(tmp_path / "set/test/dog", ["1.jpg"])
    with pytest.raises(ParamsError, match="task retrieval needs pictures with captions, not layout image_folder"):
        read_content(benchmark("retrieval", "image_folder"), tmp_path)


def test_the_digest_sees_texts_labels_and_pictures(tmp_path):
    datasets.crossmodal(tmp_path / "set")
    definition = benchmark("retrieval", "crossmodal3600", languages=["en", "de"])
    first = read_content(definition, tmp_path).digest()
    assert read_content(definition, tmp_path).digest() == first
    put(tmp_path / "set/images/000.jpg", picture("red") + b" ")
    assert read_content(definition, tmp_path).digest() != first
    content = Labelled([], np.array([0, 1]), {"en": ["a", "b"]})
    assert content.digest() != Labelled([], np.array([1, 0]), {"en": ["a", "b"]}).digest()


def test_the_digest_sees_another_picture_of_the_same_size(tmp_path):
    datasets.crossmodal(tmp_path / "set")
    definition = benchmark("retrieval", "crossmodal3600")
    first = read_content(definition, tmp_path).digest()
    path = tmp_path / "set/images/000.jpg"
    about, content = path.stat(), bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert read_content(definition, tmp_path).digest() != first
