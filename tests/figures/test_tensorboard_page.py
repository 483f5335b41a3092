"""What a user sees of a run in TensorBoard, by headless Chromium; skipped where that is missing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None or sys.platform == "win32", reason="there is no Chromium")

ALL_TEXT = """(function text(node) {
  return [...node.childNodes].map(child => child.nodeType === 3 ? child.data :
    ['STYLE', 'SCRIPT'].includes(child.tagName) ? '' : text(child)).join(' ')
    + (node.shadowRoot ? text(node.shadowRoot) : '')
    + [...(node.tagName === 'IFRAME' && node.contentDocument ? [node.contentDocument.body] : [])].map(text).join(' ');
})(document.body)"""
"""All text of a page, that of custom elements and frames included."""


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

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                chunk = os.read(self._read, 1 << 16)
                assert chunk, "Chromium has gone"
                self._rest += chunk
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "result" in answer, answer
                return answer["result"]

    def wait_for(self, url: str, *texts: str) -> None:
        """Open a page and wait until all texts stand there; TensorBoard shows what it had read when the page was
        opened, so the page is opened anew every ten seconds."""
        missing, found = list(texts), ""
        for _ in range(12):
            target = self.call("Target.createTarget", url=url)["targetId"]
            session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            reopened = time.monotonic() + 10
            while missing and time.monotonic() < reopened:
                time.sleep(0.5)
                answer = self.call("Runtime.evaluate", session, expression=ALL_TEXT, returnByValue=True)["result"]
                found = str(answer.get("value"))
                missing = [text for text in texts if text not in found]
            self.call("Target.closeTarget", targetId=target)
            if not missing:
                return
        raise AssertionError(f"{url} does not show {', '.join(missing)}; it shows:\n{' '.join(found.split())}")

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path / "browser")
    yield opened
    opened.close()


@pytest.fixture
def page(finished: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={finished}", f"--port={port}", "--host=127.0.0.1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(240):  # until TensorBoard has read the images, which come last in a run's file
        try:
            with urllib.request.urlopen(f"{url}data/plugin/images/tags", timeout=5) as answer:
                if b"figures/mistakes" in answer.read():
                    break
        except OSError:
            pass
        time.sleep(0.5)
    yield url
    server.terminate()
    server.wait(20)


def test_curves_pictures_and_hyperparameters_are_there(browser: Browser, page: str) -> None:
    browser.wait_for(f"{page}?tagFilter=val%2Faccuracy#timeseries", "val/accuracy")
    browser.wait_for(f"{page}?tagFilter=figures%2Fmistakes#timeseries", "figures/mistakes")
    browser.wait_for(f"{page}#hparams", "Trial ID", "batch_size", "test/accuracy")
