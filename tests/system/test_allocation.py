"""What a step frees is kept for the next; counted in pages, and what glibc is told."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from convolt.system.allocation import retain_freed_memory

PAGES = """
import resource, torch
from convolt.system.allocation import retain_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(48 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages())
with retain_freed_memory():
    for _ in range(5):  # the heap takes some rounds until what comes in between has found other places
        pages()
    print(min(pages() for _ in range(5)))
"""
"""How many pages the system has to clear for five buffers one after the other."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc")
def test_what_is_freed_is_kept_for_what_comes_next() -> None:
    told = ("MALLOC_MMAP", "MALLOC_TRIM", "GLIBC_TUNABLES")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    command = [sys.executable, "-c", PAGES]
    usual, inside = map(int, subprocess.check_output(command, env=environment, text=True).split())
    assert usual > 50  # some 61,000 of 4 KiB, or 120 of 2 MiB
    assert inside < usual / 4
    told_otherwise = environment | {"MALLOC_TRIM_THRESHOLD_": "131072"}
    assert int(subprocess.check_output(command, env=told_otherwise, text=True).split()[1]) > usual / 2


def test_glibc_is_told_before_and_after_and_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)
    told: list[tuple[int, ...]] = []
    library = SimpleNamespace(mallopt=lambda *what: told.append(what), malloc_trim=lambda *what: told.append(what))
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    with pytest.raises(KeyError), retain_freed_memory():
        raise KeyError
    assert [what[0] for what in told] == [-3, -1, -3, -1, 0]
    assert told[0][1] > told[2][1]
    assert told[1][1] > told[3][1]
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with retain_freed_memory():
        pass
