from __future__ import annotations

import re
import tarfile

import pytest

from flame_core.data.sources.keys import safe_key, words_of

NAMES = ["a b", "a_b", "a.b", "ä", "a", "", ".", "..", "/a", "a/", "a//b", "a/b", "日本", "x" * 300, "x" * 301]


def test_a_plain_name_is_its_own_key():
    assert safe_key("stamps/animals/birds/blue-jay_2") == "stamps/animals/birds/blue-jay_2"


def test_keys_are_plain_short_and_different():
    keys = [safe_key(name) for name in NAMES]
    assert all(re.fullmatch(r"[A-Za-z0-9_/-]{1,90}", key) for key in keys)
    assert len(set(keys)) == len(NAMES)
    assert all(not key.startswith("/") and "//" not in key for key in keys)


def test_keys_do_not_change_between_versions():
    assert safe_key("a b") == "a_b-c8687a08aa5d"


@pytest.mark.parametrize("name", NAMES)
def test_a_key_fits_into_a_tar_header(name):
    info = tarfile.TarInfo(f"{safe_key(name)}.json")
    assert len(info.tobuf(tarfile.USTAR_FORMAT)) == tarfile.BLOCKSIZE


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("iso_fire-engine_02", "iso fire engine"),
        ("025quarter", "quarter"),
        ("1984", "1984"),
        ("Äpfel_rot", "Äpfel rot"),
    ],
)
def test_words_of_a_file_name(name, words):
    assert words_of(name) == words
