"""Pictures in terminals: who gets them, and that they are the pictures."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from flame_core.errors import InputError
from flame_core.params import IngestParams
from flame_core.search.terminal_pictures import protocol, show_pictures
from tests.data.drawings import png


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def read(number: int) -> bytes:
    if number == 1:
        raise InputError("it was removed")
    return png(number)


@pytest.mark.parametrize(
    ("environment", "spoken"),
    [
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM_PROGRAM": "iTerm.app", "TMUX": "/tmp/tmux"}, None),
        ({"KITTY_WINDOW_ID": "1", "TERM": "screen-256color"}, None),
        ({"TERM": "xterm-256color"}, None),
    ],
)
def test_the_protocol_follows_from_the_terminal(environment: dict[str, str], spoken: str | None):
    assert protocol(environment) == spoken


def sent(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, **environment: str) -> str:
    for name in ("KITTY_WINDOW_ID", "TERM", "TERM_PROGRAM", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    show_pictures([(read, number) for number in range(3)], IngestParams(), out)
    return out.getvalue()


def test_kitty_gets_one_png_in_pieces(monkeypatch: pytest.MonkeyPatch):
    pieces = re.findall(
        r"\033_G(?:a=T,f=100,)?m=([01]);([A-Za-z0-9+/=]*)\033\\", sent(monkeypatch, Terminal(), TERM="xterm-kitty")
    )
    assert [more for more, _ in pieces] == ["1"] * (len(pieces) - 1) + ["0"] and all(len(p) <= 4096 for _, p in pieces)
    with Image.open(io.BytesIO(base64.b64decode("".join(piece for _, piece in pieces)))) as shown:
        assert shown.format == "PNG" and shown.width == 2 * 160 + 12  # the removed one is left out


def test_iterm2_gets_one_png(monkeypatch: pytest.MonkeyPatch):
    [content] = re.findall(
        r"\033\]1337;File=inline=1;size=\d+:(.*)\a", sent(monkeypatch, Terminal(), TERM_PROGRAM="WezTerm")
    )
    with Image.open(io.BytesIO(base64.b64decode(content))) as shown:
        assert shown.format == "PNG"


def test_other_terminals_and_files_get_nothing(monkeypatch: pytest.MonkeyPatch):
    assert sent(monkeypatch, Terminal(), TERM="xterm-256color") == ""
    assert sent(monkeypatch, io.StringIO(), TERM="xterm-kitty") == ""
