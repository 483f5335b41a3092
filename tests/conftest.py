"""What several test files need."""

import gc
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import errors_table
import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from convolt.config.compose import compose
from convolt.system.cores import count_cores
from convolt.training.callbacks.pictures import Pictures
from convolt.training.run import run
from in_process import type_here

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two workers more than cores, since many tests wait for processes."""
    return count_cores() + 2


SLOW = (
    "test_benchmarks", "test_remote", "test_models_networks", "test_ddp", "test_command_line", "test_run",
    "test_segmentation", "test_determinism", "test_tuned_studies", "test_notebook", "test_kills", "test_wheel",
    "test_python_interface", "test_studies", "test_disk", "test_trackers", "test_trained", "test_trial", "test_errors",
    "test_extend", "test_config", "test_launcher", "test_candidates", "test_keep_checkpoints", "test_chunked",
    "test_documented_commands", "test_gpu_benchmark", "test_models_fcn", "test_validated_weights",
    "test_convolt_command", "test_figures", "test_resume", "test_plain_loop", "test_sweeper", "test_gpu_share",
    "test_rerun", "test_have", "test_fuzz",
)  # fmt: skip
"""Files that take long, the longest first: where each goes to one worker, none of them is left for the end."""

gc.disable()  # until all tests are known: passes over torch's objects take a second of each worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests share the machine; what depends on the number of threads says so itself."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def errors_in_drawings_show() -> None:
    """A run goes on when a picture cannot be drawn; a test does not."""
    Pictures.strict = True


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared datasets for the whole session."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .npz of 3 classes of 12x12 color images, told apart by their color: 90 for training, 30 for tests."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    arrays = {}
    for split, count in (("train", 90), ("test", 30)):
        labels = np.arange(count) % 3
        images = random.integers(0, 120, (count, 12, 12, 3))
        images[np.arange(count), :, :, labels] += 100
        arrays |= {f"x_{split}": images.astype(np.uint8), f"y_{split}": labels}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of three epochs on the digits, with all its pictures; to be read only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    options = ["trainer.threads=1", "trainer.max_epochs=3", "augmentation=[crop,rotate]", "data.eval_batch_size=100"]
    run(compose([f"data.root={data_root}", "trainer.precision=32-true", *options]), folder)
    return folder


@pytest.fixture
def settings(data_root: Path) -> Any:
    """Make a checked config of short runs on one thread: settings("optim=sgd", ...)."""

    def make(*overrides: str) -> DictConfig:
        usual = [f"data.root={data_root}", "trainer.threads=1", "trainer.max_epochs=2", "pictures.enabled=false"]
        return compose([*usual, *overrides])

    return make


@pytest.fixture
def train(settings: Any, tmp_path: Path) -> Any:
    """Run in this process: train("optim=sgd", ..., directory="a") returns what result.json holds."""

    def make(*overrides: str, directory: str = "run") -> dict[str, Any]:
        return run(settings(*overrides), tmp_path / directory)

    return make


@pytest.fixture
def command(data_root: Path, tmp_path: Path) -> Any:
    """Run `python train.py ...` as a user does, in an empty folder."""

    def make(*arguments: str, script: str = "train.py", env: dict[str, str] | None = None) -> Any:
        return subprocess.run(
            [sys.executable, ROOT / script, *_usual(arguments, data_root), *arguments],
            cwd=tmp_path,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return make


@pytest.fixture
def command_here(data_root: Path, tmp_path: Path) -> Any:
    """As `command`, in this process: where it does not matter how a process starts."""
    return lambda *arguments: type_here([*_usual(arguments, data_root), *arguments], tmp_path)


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Type a mistake into this process, in an empty folder: answer("optim=adm") returns the status and the line."""
    monkeypatch.chdir(tmp_path)
    return errors_table.answer


def _usual(arguments: Sequence[str], data_root: Path) -> list[str]:
    """Return what is typed before the arguments, where they take it."""
    if any(argument.startswith(("resume=", "rerun=", "--", "data.root=")) for argument in arguments):
        return []
    return [f"data.root={data_root}", "trainer.threads=1", "pictures.enabled=false"]
