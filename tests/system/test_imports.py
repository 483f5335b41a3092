"""Imports in less time, and nothing of how that is done is left."""

import gc
import subprocess
import sys

import pytest

from convolt.system.imports import fast_imports

PROGRAM = """
import gc, sys
from convolt.system.imports import fast_imports

during = []
sys.meta_path.insert(0, type("Probe", (), {"find_spec": lambda self, *_: during.append(gc.isenabled())})())
with fast_imports():
    import pytorch_lightning
print(any(during), gc.isenabled(), gc.get_freeze_count() > 1000)
import scipy
print("scipy.signal" in sys.modules, "scipy.signal.windows" in sys.modules, scipy.signal.windows.hamming(3)[1])
"""

PLOTS = """
import sys
from convolt.system.imports import fast_imports

with fast_imports():
    import pytorch_lightning, torch.utils.tensorboard
    from tensorboard.compat.tensorflow_stub.io import gfile
print(len({"matplotlib", "boto3", "botocore"} & set(sys.modules)))
import torch, torchmetrics
accuracy = torchmetrics.Accuracy("binary")
accuracy.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
print(type(accuracy.plot()[0]).__name__)
if gfile.S3_ENABLED:
    import boto3, botocore.exceptions
    assert gfile.boto3.client is boto3.client
    assert gfile.botocore.exceptions.ClientError is botocore.exceptions.ClientError
"""


def test_what_is_left_out_of_the_imports_is_there_afterwards_and_nothing_is_said_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "False", "False", "1.0"]
    assert done.stderr == ""


def test_plots_and_folders_on_s3_are_imported_when_somebody_wants_them() -> None:
    done = subprocess.run([sys.executable, "-c", PLOTS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "Figure"]
    assert done.stderr == ""


SOUND = """
import sys
from convolt.system.imports import fast_imports

with fast_imports():
    import scipy.signal
    assert hasattr(scipy.signal, "hamming") and "scipy.signal._filter_design" not in sys.modules
    import scipy.signal as kept
    from scipy.signal import resample_poly
    import scipy.signal.windows
    from scipy.signal.windows import hann
import scipy.signal
print(kept.resample_poly is resample_poly is scipy.signal.resample_poly, scipy.signal.windows.hann is hann)
"""
"""What packages of sound do when torchmetrics finds and imports them."""


def test_whoever_needs_scipys_signals_meanwhile_gets_them() -> None:
    done = subprocess.run([sys.executable, "-c", SOUND], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    assert done.stderr == ""


def test_where_torch_is_imported_already_nothing_changes() -> None:
    frozen = gc.get_freeze_count()
    with fast_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_a_failed_import_leaves_the_collector_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(ModuleNotFoundError), fast_imports():
        import nowhere  # noqa: F401
    assert gc.isenabled()
