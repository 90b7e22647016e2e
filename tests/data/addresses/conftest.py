"""The server that the tests of lists of addresses share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data.addresses.web import Web, running


@pytest.fixture
def web() -> Iterator[Web]:
    with running() as server:
        yield server
