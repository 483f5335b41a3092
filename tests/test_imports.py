"""Imports without the garbage collector: quicker, and nothing of it is left."""

import gc
import subprocess
import sys

import pytest

from convolt.imports import uncollected

PROGRAM = """
import gc, sys
from convolt.imports import uncollected

during = []
sys.meta_path.insert(0, type("Probe", (), {"find_spec": lambda self, *_: during.append(gc.isenabled())})())
with uncollected():
    import torch
print(any(during), gc.isenabled(), gc.get_freeze_count() > 1000)
"""


def test_nothing_is_collected_while_torch_is_imported_and_nothing_is_said_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
    assert done.stderr == ""


def test_where_torch_is_imported_already_nothing_changes() -> None:
    frozen = gc.get_freeze_count()
    with uncollected():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_a_failed_import_leaves_the_collector_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(ModuleNotFoundError), uncollected():
        import nowhere  # noqa: F401
    assert gc.isenabled()
