from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from flame_core.files.regular_files import open_regular, size_and_sha256


def test_what_is_no_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpg"))
        for name, message in [("pipe.jpg", r"a pipe \(FIFO\)"), ("zero.jpg", "a device"), (".", "a folder")]:
            with pytest.raises(OSError, match=f"is {message}, not a file"):
                open_regular(tmp_path / name)
        with pytest.raises(OSError, match=r"s\.jpg"):
            open_regular(tmp_path / "s.jpg")


def test_size_and_digest(tmp_path: Path):
    content = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(content)
    assert size_and_sha256(tmp_path / "a", len(content)) == (len(content), hashlib.sha256(content).hexdigest())
    with pytest.raises(OSError, match=r"has 3,145,728 bytes, more than the 1,000 that are read"):
        size_and_sha256(tmp_path / "a", 1000)
