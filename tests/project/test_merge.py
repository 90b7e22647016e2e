"""Merging, against `git merge-file` on random edits, and at the places where it differs on purpose."""

from __future__ import annotations

import random
import subprocess

import pytest

from flame_core.project.merge import merge

BASE = "".join(f"{line}\n" for line in "abcdefghij")


def git(folder, base: str, ours: str, theirs: str) -> str | None:
    for name, text in (("base", base), ("ours", ours), ("theirs", theirs)):
        (folder / name).write_text(text)
    done = subprocess.run(
        ["git", "merge-file", "-p", "ours", "base", "theirs"], cwd=folder, capture_output=True, text=True
    )
    return done.stdout if done.returncode == 0 else None


def edited(text: str, rng: random.Random, word: str) -> str:
    lines = text.splitlines(keepends=True)
    for number in range(rng.randint(0, 3)):
        at = rng.randrange(len(lines))
        how = rng.choice(["replace", "delete"])
        lines[at : at + 1] = [f"{word}{number}\n"] if how == "replace" else []
    return "".join(lines)


@pytest.mark.parametrize("seed", range(40))
def test_edits_in_other_lines_are_merged_as_git_does(seed, tmp_path):
    rng = random.Random(seed)
    ours, theirs = edited(BASE, rng, "ours"), edited(BASE, rng, "theirs")
    merged = merge(BASE, ours, theirs)
    assert merged == git(tmp_path, BASE, ours, theirs)


def test_the_seeds_above_have_merges_and_conflicts():
    found = []
    for seed in range(40):
        rng = random.Random(seed)
        found.append(merge(BASE, edited(BASE, rng, "ours"), edited(BASE, rng, "theirs")) is None)
    assert 5 < sum(found) < 35


def test_lines_that_both_add_at_one_place_are_both_kept():
    assert merge("a\nb\n", "a\nb\nours\n", "a\nb\ntheirs\n") == "a\nb\nours\ntheirs\n"
    assert merge("a\nb\n", "a\nb\nsame\n", "a\nb\nsame\n") == "a\nb\nsame\n"


def test_a_missing_last_line_end_is_no_edit():
    assert merge("a\nb\n", "a\nb", "a\nc\n") == "a\nc\n"
