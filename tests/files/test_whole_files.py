"""Files that a user names are whole, or as they were."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from flame_core.errors import InputError, ResourceError
from flame_core.files.whole_files import clear_output_errors, put, write_output


def test_a_file_is_replaced_and_its_folders_are_made(tmp_path):
    path = tmp_path / "a/b.html"
    for text in ("first", "ü"):
        write_output(path, text, "--html")
        assert path.read_text("utf-8") == text and [*path.parent.iterdir()] == [path]


def test_what_a_killed_process_left_goes_with_the_next_file(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from flame_core.files.whole_files import put\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "put(Path(sys.argv[1]), b'new')"
    )
    path = tmp_path / "params.yaml"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    assert path.read_text() == "old" and len([*tmp_path.iterdir()]) == 2
    put(tmp_path / "another", b"text")
    assert {each.name for each in tmp_path.iterdir()} == {"params.yaml", "another"}


def test_a_file_keeps_its_mode_and_a_new_one_has_that_of_any(tmp_path):
    (tmp_path / "any").touch()
    put(tmp_path / "new", b"text")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "any").stat().st_mode
    (tmp_path / "new").chmod(0o660)
    put(tmp_path / "new", b"other text")
    assert ((tmp_path / "new").read_bytes(), (tmp_path / "new").stat().st_mode & 0o777) == (b"other text", 0o660)


def test_a_link_stays_one_and_a_device_stays_there(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "there")
    write_output(tmp_path / "link", "text", "--html")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").read_text() == "text"
    write_output(Path("/dev/null"), "text", "--html")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("path", ["file/x.html", ".", "x" * 300])
def test_what_cannot_be_a_file_is_refused_by_the_option(tmp_path, path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match=r"--html .* cannot be written"):
        write_output(tmp_path / path, "text", "--html")


def test_a_link_in_the_way_is_named_and_home_is_found(tmp_path, monkeypatch):
    (tmp_path / "lost").symlink_to("not/mounted")
    with pytest.raises(InputError, match=r"--out .*/lost/x cannot be written: .*/lost is a link to not/mounted"):  # noqa: SIM117
        with clear_output_errors(tmp_path / "lost/x", "--out"):
            (tmp_path / "lost").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    write_output(Path("~/page.html"), "text", "--html")
    assert (tmp_path / "page.html").read_text() == "text"


def test_on_a_full_disk_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match=r"page\.html: No space left on device"):
        write_output(path, "new", "--page")
    with pytest.raises(OSError, match="No space left") as refused:
        put(path, b"new")
    assert refused.value.filename == str(path)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
