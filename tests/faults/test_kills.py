"""A small draw of the harness; the full one is `python tests/faults`, its figures are in docs/reliability.md."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
@pytest.mark.parametrize("draw", [("--runs", "2", "--studies", "0"), ("--runs", "0", "--studies", "1")])
def test_nothing_is_lost_when_a_run_is_killed_anywhere(draw: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests/faults", *draw, "--seed", "1"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost" in done.stdout


DEAF = """
import time
from convolt.system.signals import interrupt_on_signals
with interrupt_on_signals():
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        print("told", flush=True)
        time.sleep(30)
"""


def test_a_second_sigint_ends_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "told\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) in (-signal.SIGINT, 130)
    assert time.monotonic() - began < 2
