"""Settings that more than one way of writing means, and those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from flame_core.settings import Settings


@pytest.mark.parametrize(
    ("device", "cores", "ranks", "expected"),
    [("cpu", 16, 1, 0), ("cuda", 16, 1, 14), ("cuda", 16, 4, 3), ("cuda", 2, 1, 1), ("cuda", 1, 8, 1)],
)
def test_decoding_processes(monkeypatch, device, cores, ranks, expected):
    monkeypatch.setattr(Settings, "torch_device", lambda self: device)
    monkeypatch.setattr("flame_core.settings.usable_cores", lambda: cores)
    assert Settings().decoding_processes(ranks) == expected
    for chosen in (0, 5):
        assert Settings(loader_workers=chosen).decoding_processes(ranks) == chosen


def test_a_home_is_expanded_and_nothing_is_the_default(monkeypatch):
    usual = Settings().cache_dir
    for written, expected in ((" ~/x ", Path.home() / "x"), ("", usual), ("~nobody-of-this-name/x", None)):
        monkeypatch.setenv("FLAME_CACHE_DIR", written)
        assert Settings().cache_dir == (Path(written) if expected is None else expected)
    monkeypatch.setenv("FLAME_STAGE_DIR", "")
    assert Settings().stage_dir is None


def test_blanks_and_case_do_not_matter(monkeypatch):
    for name, written in (("TRACKING_URI", " OFF"), ("UI_HOST", " 127.0.0.1 "), ("TIMEZONE", "UTC ")):
        monkeypatch.setenv(f"FLAME_{name}", written)
    found = Settings()
    assert (found.tracking_uri, found.ui_host, found.timezone) == ("off", "127.0.0.1", "UTC")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("timezone", "Nowhere/There", "'Nowhere/There' is no time zone: write one such as Europe/Berlin"),
        ("timezone", "../etc/passwd", "is no time zone"),
        ("alert_url", "http://[", "it must be ASCII and name a host"),
        ("alert_url", "http://127.0.0.1:9/ü", "it must be ASCII"),
        ("alert_url", f"http://{'x' * 64}.de", "name a host"),
        ("alert_url", "http://a:b/", "name a host"),
    ],
)
def test_what_cannot_be_used_is_refused(name, value, said):
    with pytest.raises(ValidationError, match=said):
        Settings(**{name: value})
