"""A headless Chromium, driven over its DevTools protocol: just enough to click through a page and take a picture."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from websockets.sync.client import connect


def find() -> str | None:
    """Chromium's program, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Left(Exception):
    """The page was left for another one while it was asked."""


class Browser:
    """One page of a headless Chromium with a profile of its own."""

    def __init__(self, program: str, width: int = 1600, height: int = 1000) -> None:
        self._profile = tempfile.mkdtemp(prefix="browser-")
        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._profile}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        port = self._port()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            page = next(page for page in json.load(answer) if page["type"] == "page")
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(page["webSocketDebuggerUrl"], max_size=None))
        self._number = 0
        self._call("Page.enable")

    def _port(self) -> int:
        path = Path(self._profile) / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_text().strip()):
            assert time.monotonic() < deadline, "Chromium did not start"
            time.sleep(0.1)
        return int(path.read_text().split()[0])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise Left(answer["error"]["message"])
                assert "error" not in answer, answer
                return answer["result"]

    def shows_on(self, width: int, height: int) -> None:
        """Show pages as a phone of this size in CSS pixels does; a window cannot be so narrow."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self) -> str:
        """What can be read on the page."""
        return self.run("document.body ? document.body.innerText : ''")

    def wait(self, condition: str, seconds: float = 60.0) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(Left):
                if value := self.run(condition):
                    return value
                if time.monotonic() > deadline:
                    raise AssertionError(f"{condition} did not come true; the page reads:\n{self.text()[:2000]}")
            time.sleep(0.25)

    def wait_for_text(self, text: str, seconds: float = 60.0) -> None:
        self.wait(f"document.body && document.body.innerText.includes({json.dumps(text)})", seconds)

    def click(self, text: str, selector: str = "button, a") -> None:
        """Click the first visible element of `selector` that reads `text`."""
        find = (
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            f".find(e => e.offsetParent && e.innerText.trim().startsWith({json.dumps(text)}))"
        )
        self.wait(f"!!{find}")
        self.run(f"{find}.click()")

    def close(self) -> None:
        with suppress(Exception):
            self._call("Browser.close")
            self._open.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)
