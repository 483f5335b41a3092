"""Drives a headless Chromium, for tests of what a person sees."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None or sys.platform == "win32", reason="there is no Chromium")


class Browser:
    """Chromium on a pipe, as the DevTools protocol describes it: JSON objects that end with a null byte."""

    def __init__(self, folder: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def as_three_and_four() -> None:
            os.dup2(to_read, 13)
            os.dup2(to_write, 14)
            os.dup2(13, 3)
            os.dup2(14, 4)

        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]
        self.process = subprocess.Popen(
            [str(CHROMIUM), *options],
            preexec_fn=as_three_and_four,  # noqa: PLW1509 (Chromium wants its pipe there; nothing is locked here)
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._number = 0
        self._rest = b""
        self._events: list[tuple[str | None, str | None]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._events.append((answer.get("method"), answer.get("sessionId")))
        assert "result" in answer, answer
        return answer["result"]

    def _receive(self) -> Any:
        while b"\0" not in self._rest:
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "Chromium has gone"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _load(self, session: str, method: str, **params: Any) -> None:
        """Call what loads a page, and wait until that has happened."""
        self._events.clear()
        self.call(method, session, **params)
        while ("Page.loadEventFired", session) not in self._events:
            answer = self._receive()
            self._events.append((answer.get("method"), answer.get("sessionId")))

    def open(self, url: str, width: int = 1280, scheme: str = "light", scripts: bool = True) -> str:
        """Open a page in a window of a width in pixels; return the session that later calls name."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = str(self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        self.call("Page.enable", session)
        self._load(session, "Page.navigate", url=url)
        # A page may come with a process of its own, which knows no settings from before.
        size: Any = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        self.set_media(session, scheme)
        self.call("Emulation.setScriptExecutionDisabled", session, value=not scripts)
        self._load(session, "Page.reload")
        return session

    def set_media(self, session: str, scheme: str, media: str = "") -> None:
        """Set the color scheme that the system prefers, and the medium: "screen" or "print"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", session, media=media, features=features)

    def evaluate(self, session: str, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", session, expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        self.process.terminate()
        self.process.wait(20)
