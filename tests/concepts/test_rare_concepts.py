"""The rarest concepts, and a test set of gathered pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flame_core.concepts.concept_counts import Counts, Misalignment
from flame_core.concepts.concept_list import Given, concept_list
from flame_core.concepts.concept_out import Frequencies
from flame_core.concepts.gathered_test_set import ALIKE, NEAR, OUTLIER, SEVERAL, UNREADABLE, Rules, choose
from flame_core.concepts.rare_concepts import rarest, to_csv
from flame_core.errors import InputError
from flame_core.suite.layouts.reading import HIDDEN, OTHER_FILES
from tests.data.drawings import drawing, encoded, png


def counted(image: list[int]) -> Frequencies:
    concepts = concept_list([Given(name, "file", "x") for name in ("ape", "bee", "cat", "dog")], "en")
    text, seen = np.array([3, 0, 1, 3]), np.array(image)
    both = np.where(seen < 0, -1, np.minimum(text, seen))
    return Frequencies(concepts, [[]] * 4, Counts(text, text, seen, both, Misalignment(9)), "phrase")


def test_the_rarest_come_first_and_zeros_only_if_they_are_asked_for():
    found = counted([5, 2, -1, 0])
    assert [each.name for each in rarest(found, "text", 9, zero=False)] == ["cat", "ape", "dog"]
    assert [each.name for each in rarest(found, "text", 2, zero=True)] == ["bee", "cat"]
    assert [each.name for each in rarest(found, "image", 9, zero=False)] == ["bee", "ape"]
    assert to_csv(rarest(found, "text", 2, zero=False)) == "concept,text,image,both\ncat,1,,\nape,3,5,3\n"
    with pytest.raises(InputError, match="not counted in pictures"):
        rarest(counted([-1] * 4), "image", 9, zero=False)


def gather(folder: Path) -> None:
    """Ten owls, of which one is there a second time, scaled; eight foxes; one picture in both; two newts."""
    for name in ("owl", "fox", "newt"):
        (folder / name).mkdir(parents=True)
    for number in range(10):
        (folder / "owl" / f"{number}.png").write_bytes(png(number))
    larger = drawing(3).resize((192, 160), Image.Resampling.LANCZOS)
    (folder / "owl" / "again.jpg").write_bytes(encoded(larger, "JPEG", quality=90))
    for number in range(8):
        (folder / "fox" / f"{number}.png").write_bytes(png(100 + number))
    for name in ("owl", "fox"):
        (folder / name / "both.png").write_bytes(png(77))
    (folder / "fox" / "broken.png").write_bytes(png(1)[:90])
    for number in range(2):
        (folder / "newt" / f"{number}.png").write_bytes(png(200 + number))


def test_duplicates_go_small_classes_are_left_out_and_the_sample_is_seeded(tmp_path):
    gather(tmp_path)
    found = choose(tmp_path, Rules(least=8, sample=5))
    assert found.kept.keys() == {"owl", "fox"} and all(len(paths) == 5 for paths in found.kept.values())
    assert found.dropped["owl"] == {SEVERAL: 1, ALIKE: 1}
    assert found.dropped["fox"] == {UNREADABLE: 1, SEVERAL: 1} and found.small == {"newt": 2}
    assert choose(tmp_path, Rules(least=8, sample=5)).kept == found.kept
    other = choose(tmp_path, Rules(least=8, sample=5, seed=1)).kept
    assert other != found.kept
    (tmp_path / "fox" / "9.png").write_bytes(png(150))  # more of one class change no other
    assert choose(tmp_path, Rules(least=8, sample=5)).kept["owl"] == found.kept["owl"]
    everything = choose(tmp_path, Rules(least=8, sample=8)).kept["owl"]
    assert set(found.kept["owl"]) < set(everything)  # nested


def test_what_programs_left_behind_is_neither_a_class_nor_a_picture(tmp_path):
    gather(tmp_path)
    before = choose(tmp_path, Rules(least=8, sample=8))
    for hidden in (".ipynb_checkpoints", "__MACOSX/owl", "owl/.thumbnails", "fox/__MACOSX"):
        (tmp_path / hidden).mkdir(parents=True)
        for number in range(10):  # copies, because of which the owls would be in several classes
            (tmp_path / hidden / f"{number}.png").write_bytes(png(number))
    (tmp_path / "owl" / "._0.png").write_bytes(b"Mac OS X")
    (tmp_path / "owl" / "source.txt").write_text("where they are from")
    after = choose(tmp_path, Rules(least=8, sample=8))
    assert (after.kept, after.small) == (before.kept, before.small)
    assert after.dropped["owl"] == {**before.dropped["owl"], HIDDEN: 2, OTHER_FILES: 1}
    assert after.dropped["fox"] == {**before.dropped["fox"], HIDDEN: 1}


def test_outliers_are_those_far_from_the_others(tmp_path):
    gather(tmp_path)

    def encode(pictures):
        vectors = np.tile([1.0, 0.0], (len(pictures), 1))
        vectors[[content == png(4) for content in pictures]] = [0.0, 1.0]
        return vectors

    found = choose(tmp_path, Rules(least=8, sample=8, outliers=0.1), encode)
    assert found.dropped["owl"][OUTLIER] == 1 and tmp_path / "owl/4.png" not in found.kept["owl"]


def test_of_pictures_with_near_vectors_the_first_stays(tmp_path):
    gather(tmp_path)
    turned = {png(number): 0.1 * number for number in range(10)}  # owls, in radians

    def encode(pictures):
        angles = np.array([turned.get(content, 0.0) for content in pictures])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    # 0 stays and 1 goes, since the cosine of 0.1 is above the bound and that of 0.2 is not; 2 stays, as 1 is gone
    found = choose(tmp_path, Rules(least=5, sample=5, outliers=0.0, cosine=0.99), encode)
    assert found.dropped["owl"] == {SEVERAL: 1, ALIKE: 1, NEAR: 5}
    assert found.kept["owl"] == [tmp_path / f"owl/{number}.png" for number in (0, 2, 4, 6, 8)]
    assert found.small["fox"] == 1  # all alike
    assert choose(tmp_path, Rules(least=5, sample=5, outliers=0.0), encode).kept.keys() == {"owl", "fox"}


def test_bad_folders_and_rules_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no folder per class"):
        choose(tmp_path, Rules(1, 1))
    with pytest.raises(InputError, match="at least as many pictures as are drawn"):
        choose(tmp_path, Rules(least=3, sample=4))


def test_the_commands_write_a_list_and_a_benchmark(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from flame_core.cli import app
    from flame_core.concepts import concept_out

    gather(tmp_path / "gathered")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(concept_out, "read_frequencies", lambda folder: counted([5, 2, -1, 0]))
    done = CliRunner().invoke(app, ["concepts", "rare", "--top", "2", "--out", "rare.csv"])
    assert done.exit_code == 0 and (tmp_path / "rare.csv").read_text().splitlines()[1] == "cat,1,,"
    arguments = ["concepts", "test-set", "gathered", "--out", "wag", "--least", "8", "--sample", "5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "wag/classnames.txt").read_text() == "fox\nowl\n"
    assert len(list((tmp_path / "wag/test/owl").iterdir())) == 5
    record = json.loads((tmp_path / "wag/record.json").read_text())
    assert record["too_small"] == {"newt": 2} and str(tmp_path) not in json.dumps(record)
    done = CliRunner().invoke(app, [*arguments[:3], "--out", "other", "--cosine", "0.9"])
    assert isinstance(done.exception, InputError) and "name with --recipe the tower" in str(done.exception)
    done = CliRunner().invoke(app, [*arguments[:3], "--out", "other", "--least", "80"])
    assert isinstance(done.exception, InputError) and "no class has 80 pictures left" in str(done.exception)
