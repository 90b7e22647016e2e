"""When a key can be read on its way."""

from __future__ import annotations

import pytest

from flame_core.captions.server.client import is_readable_on_the_way


@pytest.mark.parametrize(
    ("address", "readable"),
    [
        ("https://api.example.org/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://127.0.0.2:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://10.0.0.7:8000/v1", True),
        ("http://gpu-1:8000/v1", True),
    ],
)
def test_a_key_over_http_is_readable_except_on_this_machine(address, readable):
    assert is_readable_on_the_way(address) is readable
