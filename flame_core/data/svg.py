"""Renders SVG pictures with resvg in a separate process.

A few bytes of SVG can overflow resvg's stack, and a damaged or hostile file must cost only one sample, not the run. So
a helper process renders, with limits on memory and processor time, and is restarted if it dies. It cannot open files,
so that a picture depends only on its own bytes: SVGs that refer to files are refused, and no fonts are read (text in an
SVG is not drawn, which also makes the pixels the same on every machine).
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from functools import cache
from typing import IO
from xml.parsers import expat

_REQUEST = struct.Struct(">IQ")  # longer side in pixels, bytes of SVG
_REPLY = struct.Struct(">?Q")  # success, then bytes of the PNG, or of a reason, a newline and a message
_SECONDS = 60.0  # wall-clock time, in case the renderer hangs
_PROCESSOR_SECONDS = 10  # independent of the machine's load
_MEMORY = 4 << 30
_ENCODING = re.compile(rb"""(?:\xef\xbb\xbf)?<\?xml[^>]*?encoding=["']([\w.-]+)["']""")
_START = re.compile(rb"<(?:\w+:)?svg[\s>]")


class SvgError(ValueError):
    """The picture cannot be rendered.

    `reason` is `image_unreadable`, `image_too_costly` (time, memory, depth), `image_entity_bomb` or
    `image_external_reference`.
    """

    def __init__(self, message: str, reason: str = "image_unreadable") -> None:
        super().__init__(message)
        self.reason = reason


def is_svg(content: bytes) -> bool:
    """Whether `content` looks like an SVG: markup with an `svg` element near its start."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and bool(_START.search(content[:65536]))


def render(content: bytes, side: int) -> bytes:
    """A PNG with transparency, its longer side `side` pixels.

    Raises:
        SvgError: it cannot be rendered; gives the reason.
    """
    return _renderer().render(content, side)


@cache
def _renderer() -> Renderer:
    renderer = Renderer()
    atexit.register(renderer.close)
    return renderer


class Renderer:
    """The helper process, started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, content: bytes, side: int) -> bytes:
        """See `render` above."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        limit = threading.Timer(_SECONDS, process.kill)
        limit.start()
        try:
            process.stdin.write(_REQUEST.pack(side, len(content)) + content)
            process.stdin.flush()
            good, size = _REPLY.unpack(_exactly(process.stdout, _REPLY.size))
            answer = _exactly(process.stdout, size)
        except (EOFError, BrokenPipeError):
            slow = process.wait() in (-signal.SIGXCPU, -signal.SIGKILL)
            self.close()
            what = "takes too much time" if slow else "crashes the renderer, or takes too much memory"
            raise SvgError(f"it {what}", "image_too_costly") from None
        finally:
            limit.cancel()
        if not good:
            reason, _, message = answer.decode("utf-8", "replace").partition("\n")
            raise SvgError(message, reason)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", __file__]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError
    return content


def _serve() -> None:
    """The main loop of the helper process: renders one picture per request until the input ends."""
    import resource

    import resvg_py

    def draw(content: bytes, side: int) -> bytes:
        _refuse_references(content)
        declared = _ENCODING.match(content)
        text = content.decode(declared[1].decode() if declared else "utf-8-sig").lstrip("\ufeff")
        return bytes(resvg_py.svg_to_bytes(svg_string=text, width=side, height=side, dpi=96, skip_system_fonts=True))

    draw(
        b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>', 1
    )  # opens everything that resvg opens lazily
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # stdin, stdout and stderr only; nothing else can be opened
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while header := requests.read(_REQUEST.size):
        side, size = _REQUEST.unpack(header)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + _PROCESSOR_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        try:
            good, answer = True, draw(requests.read(size), side)
        except Exception as error:  # resvg and the parser raise many kinds of errors for a broken file
            good, answer = False, f"{_reason(error)}\n{error}".encode()
        replies.write(_REPLY.pack(good, len(answer)) + answer)
        replies.flush()


def _reason(error: Exception) -> str:
    """The reason code for an error from the parser, resvg or this module."""
    if isinstance(error, SvgError):
        return error.reason
    message = str(error)
    if "nodes limit" in message:
        return "image_too_costly"
    if any(sign in message for sign in ("amplification", "recursive entity", "entity reference loop")):
        return "image_entity_bomb"
    return "image_unreadable"


def _refuse_references(content: bytes) -> None:
    """Refuse a picture that shows other files: they would be missing here, and differ between machines."""
    parser = expat.ParserCreate()

    def element(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] in ("image", "feImage"):
            for attribute, value in attributes.items():
                if attribute.rpartition(":")[2] == "href" and not value.lstrip().startswith(("data:", "#")):
                    raise SvgError(f"it refers to another file: {value[:80]}", "image_external_reference")

    def external(_context: str, _base: str | None, system: str | None, _public: str | None) -> int:
        raise SvgError(f"it refers to another file: {(system or '')[:80]}", "image_external_reference")

    parser.StartElementHandler = element
    parser.ExternalEntityRefHandler = external
    parser.Parse(content, True)


if __name__ == "__main__":
    os.environ.clear()
    _serve()
