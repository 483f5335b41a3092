"""What a user sees of a run in TensorBoard, by headless Chromium; skipped where that is missing."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from headless_chromium import Browser, needs_chromium

pytestmark = needs_chromium

ALL_TEXT = """(function text(node) {
  return [...node.childNodes].map(child => child.nodeType === 3 ? child.data :
    ['STYLE', 'SCRIPT'].includes(child.tagName) ? '' : text(child)).join(' ')
    + (node.shadowRoot ? text(node.shadowRoot) : '')
    + [...(node.tagName === 'IFRAME' && node.contentDocument ? [node.contentDocument.body] : [])].map(text).join(' ');
})(document.body)"""
"""All text of a page, that of custom elements and frames included."""


def wait_for(browser: Browser, url: str, *texts: str) -> None:
    """Open a page and wait until all texts stand there; TensorBoard shows what it had read when the page was
    opened, so the page is opened anew every ten seconds."""
    missing, found = list(texts), ""
    for _ in range(12):
        target = browser.call("Target.createTarget", url=url)["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        reopened = time.monotonic() + 10
        while missing and time.monotonic() < reopened:
            time.sleep(0.5)
            answer = browser.call("Runtime.evaluate", session, expression=ALL_TEXT, returnByValue=True)["result"]
            found = str(answer.get("value"))
            missing = [text for text in texts if text not in found]
        browser.call("Target.closeTarget", targetId=target)
        if not missing:
            return
    raise AssertionError(f"{url} does not show {', '.join(missing)}; it shows:\n{' '.join(found.split())}")


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
    wait_for(browser, f"{page}?tagFilter=val%2Faccuracy#timeseries", "val/accuracy")
    wait_for(browser, f"{page}?tagFilter=figures%2Fmistakes#timeseries", "figures/mistakes")
    wait_for(browser, f"{page}#hparams", "Trial ID", "batch_size", "test/accuracy")
