from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from flame_core import names

BAD_NAMES = [
    "",
    ".",
    "..",
    "-x",
    "--log",
    "a/b",
    "a\\b",
    "a b",
    "a\n",
    "a;b",
    "$(x)",
    "a'b",
    'a"b',
    "a*",
    "a\0",
    "x" * 101,
]
BAD_NAMES += ["<b>", "a`b", unicodedata.normalize("NFD", "ü")]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_name(name):
    for require in (names.require_name, names.require_dotted_name):
        with pytest.raises(ValueError, match="a name "):
            require(name)


@pytest.mark.parametrize("name", ["flame", "clip-sigmoid", "_x", "v2", "фото", "x" * 100])
def test_what_is_a_name(name):
    assert names.require_name(name) == names.require_dotted_name(name) == name


@pytest.mark.parametrize(
    ("name", "good"), [("a.b", True), ("1.5b-v0.2", True), (".a", False), ("a.", False), ("a..b", False)]
)
def test_dots_stand_inside(name, good):
    if good:
        assert names.require_dotted_name(name) == name
    else:
        with pytest.raises(ValueError, match="single dots inside"):
            names.require_dotted_name(name)
    with pytest.raises(ValueError, match="a name is made of"):
        names.require_name(name)


@pytest.mark.parametrize(
    "code", ["en", "de", "pt-BR", "zh_CN", "sr@latin", "ca@valencia", "zh-Hant-TW", "shs", "english"]
)
def test_language_codes_as_people_write_them(code):
    assert names.is_language_code(code)


@pytest.mark.parametrize(
    "code",
    ["", "x/../../../name", "..", "en/", "en\n", "en us", "e" * 9, "en-" * 20, "mean", "Mean", "<b>", "1", "日本語"],
)
def test_what_is_no_language_code(code):
    assert not names.is_language_code(code)


@pytest.mark.parametrize("model", ["../x", "/etc/x", "a/b/c", "-x", "a/../b", "", "a/", "file://x", "a b", "."])
def test_an_id_of_the_hub_is_no_path(model):
    with pytest.raises(ValueError, match="not a hub id"):
        names.require_hub_id(model)
    assert names.require_hub_id("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"


@pytest.mark.parametrize("revision", ["../../x", "/x", "", "a//b", "-x", "a b", "..", "x;y"])
def test_a_revision_is_no_path(revision):
    with pytest.raises(ValueError, match="not a revision"):
        names.require_revision(revision)
    assert names.require_revision("refs/pr/3") == "refs/pr/3"


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        *[(path, True) for path in ("a", "a/b.json", "a/..b")],
        *[(path, False) for path in ("../a", "a/../../b", "/a", "", "a//b", "./a", "a/", "a\0")],
    ],
)
def test_paths_that_stay_inside(path, inside):
    assert names.stays_inside(path) == inside


def test_folders_of_a_path():
    assert names.folders_of("a/b/c") == ["a/b", "a"]
    assert names.folders_of("a") == []


def test_a_long_text_keeps_both_of_its_ends():
    path = f"/home/{'a' * 100}/params.yaml"
    assert (
        len(names.shown(path)) == 82
        and names.shown(path).startswith("'/home/aaa")
        and names.shown(path).endswith("aaa/params.yaml'")
    )
    assert names.shown(path[-80:]) == repr(path[-80:]) and names.shown("a\n\x1b[1m") == r"'a\n\x1b[1m'"


def test_the_home_of_nobody_is_no_error():
    assert names.expanded("~/x") == Path.home() / "x"
    assert names.expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert names.expanded(Path("a bird")) == Path("a bird")


def test_a_name_that_is_like_a_known_one_is_asked_for():
    assert names.did_you_mean("evalute", ["embed", "evaluate", "train"]) == " did you mean 'evaluate'?"
    assert names.did_you_mean("xyz", ["embed", "evaluate", "train"]) == names.did_you_mean("a", []) == ""
