from __future__ import annotations

from pathlib import Path

from flame_core.data.forgotten import ForgottenSample, read_forgotten, write_forgotten


def test_two_processes_do_not_write_to_one_file(tmp_path: Path):
    """Each writes beside the file under a name of its own."""
    rows = (ForgottenSample("s/a", ("ab" * 32,), None, (), "2026-01-01", "asked", ("d",)),)
    (tmp_path / ".opt_out.parquet").write_text("of another process")
    write_forgotten(tmp_path / "opt_out.parquet", rows, "salt")
    found = read_forgotten(tmp_path / "opt_out.parquet")
    assert (found.rows, found.salt) == (rows, "salt")
    assert {path.name for path in tmp_path.iterdir()} == {".opt_out.parquet", "opt_out.parquet"}
