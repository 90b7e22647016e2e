"""What clients read of messages that name files."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.web_search.messages import without_folders


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("the LLM is not in /home/me/p/data/llm/tiny: run it", "the LLM is not in data/llm/tiny: run it"),
        ("'/var/lib/x.tar' is damaged (/etc/hosts, too)", "'…/x.tar' is damaged (…/hosts, too)"),
        ("run `flame embed` for models:/flame@champion", "run `flame embed` for models:/flame@champion"),
        ("see https://example.org/a/b and data/llm/tiny", "see https://example.org/a/b and data/llm/tiny"),
        ("and/or, 3/4, 1 / 2", "and/or, 3/4, 1 / 2"),
    ],
)
def test_folders_outside_of_the_project_are_left_out(message: str, expected: str):
    assert without_folders(message, Path("/home/me/p")) == expected
