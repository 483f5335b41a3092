"""What a run leaves in its directory: settings, state, log and result."""

import hashlib
import json
import logging
import os
import platform
import resource
import subprocess
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from convolt.errors import UserError
from convolt.files import read_json, remove_empty, write_json, write_text

PACKAGES = ("convolt", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")

NOT_HASHED = ("force", "summary", "overrides", "data.root")
"""Settings that cannot change a number."""

NOT_KNOWN_ONCE = ("pictures",)
"""Likewise, of sections that older runs do not have: left out altogether, so that their hashes stay valid."""


PREDICTIONS = "predictions.npz"
"""Probabilities, targets and stored indices of all test images."""

PREPROCESSING = "preprocessing.json"
"""Classes, and how an image becomes the network's input: all that is needed when the dataset is gone."""


class HeldError(UserError):
    """Another process is at work in a run's directory."""


class RunDirectory:
    """A run's directory, held by this process alone while it is entered.

    Args:
        path: The directory; made when it is not there.
        cfg: The run's settings.

    Raises:
        UserError: On entering, when the directory cannot be written.
        HeldError: On entering, when another process holds it.
    """

    def __init__(self, path: Path, cfg: DictConfig) -> None:
        self.path = path
        self.cfg = cfg
        self.hash = config_hash(cfg)
        self._lock = FileLock(path / ".lock")
        self._log: logging.Handler | None = None
        self._started = time.time()
        self._seconds_before = 0.0
        self._status: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Take the lock."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise HeldError(
                f"another process is at work in {self.path}: wait for it, or choose another directory"
            ) from None
        except OSError as error:
            raise UserError(f"cannot write to {self.path} ({error.strerror}): choose another hydra.run.dir") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write down how it ended, and let go."""
        if self._status and error is not None:
            interrupted = not isinstance(error, Exception)
            self.status(
                "interrupted" if interrupted else "failed",
                error=f"{type(error).__name__}: {error}",
                traceback=None if interrupted else "".join(traceback.format_exception(error)),
            )
        if self._log:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
        self._lock.release()
        if isinstance(error, UserError):
            self._clear_away()

    def _clear_away(self) -> None:
        """Leave nothing of a run that never began."""
        (self.path / ".lock").unlink(missing_ok=True)
        remove_empty(self.path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished run of the same settings, or None."""
        result = read_json(self.path / "result.json")
        return result if isinstance(result, dict) and result.get("config_hash") == self.hash else None

    def clear_for(self, *, force: bool) -> None:
        """Move what other settings (or `force`) left here aside, so that a run may begin or go on."""
        status = read_json(self.path / "status.json")
        if not status or (status.get("config_hash") == self.hash and not force):
            return
        aside = next(p for n in range(1, 10**6) if not (p := self.path.with_name(f"{self.path.name}.old{n}")).exists())
        aside.mkdir()
        # A launcher has opened output.log already.
        for entry in [entry for entry in self.path.iterdir() if entry.name not in (".lock", "output.log")]:
            entry.rename(aside / entry.name)

    def begin(self) -> None:
        """Write the settings, open the log and say that the run is under way."""
        hydra = self.path / ".hydra"
        hydra.mkdir(exist_ok=True)
        write_text(hydra / "config.yaml", OmegaConf.to_yaml(self.cfg))
        write_text(hydra / "overrides.yaml", OmegaConf.to_yaml(self.cfg.get("overrides", [])))
        previous = read_json(self.path / "status.json") or {}
        self._seconds_before = float(previous.get("seconds") or 0.0)
        self._log = logging.FileHandler(self.path / "run.log", encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self._log)
        self.status("running", epoch=0, max_epochs=None, metrics={}, seconds_left=None)

    def seconds(self) -> float:
        """Return the run's seconds so far, those before a continuation included."""
        return self._seconds_before + time.time() - self._started

    def status(self, state: str, **more: Any) -> None:
        """Write `status.json`: running, finished, failed or interrupted, and what is known besides."""
        self._status |= {
            "state": state,
            "config_hash": self.hash,
            "pid": os.getpid(),
            "host": platform.node(),
            "seconds": round(self.seconds(), 3),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        } | more
        write_json(self.path / "status.json", self._status)

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write `result.json` and, after it, that the run has finished."""
        result = result | {
            "seconds": round(self.seconds(), 3),
            "config_hash": self.hash,
            "git_commit": git_commit(),
            "versions": versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        write_json(self.path / "result.json", result)
        self.status("finished", error=None, traceback=None, seconds_left=0)
        return result


def config_hash(cfg: DictConfig) -> str:
    """Return a digest of what was asked, without what cannot change a number: 16 hexadecimal digits."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    asked = OmegaConf.create({key: value for key, value in plain.items() if key not in NOT_KNOWN_ONCE})
    for key in NOT_HASHED:
        OmegaConf.update(asked, key, None, force_add=True)
    text = json.dumps(OmegaConf.to_container(asked, resolve=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def per_class(matrix: NDArray[np.int64], classes: list[str]) -> list[dict[str, Any]]:
    """Compute each class's figures from a confusion matrix.

    Args:
        matrix: (K, K), counts; rows are true classes, columns predicted ones.
        classes: Names.

    Returns:
        For each class its name, accuracy (share of its images that are found, which is its recall), precision, recall,
        F1 and support; a rate over no images at all is 0.
    """
    hits, support, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    recall = hits / np.maximum(support, 1)
    precision = hits / np.maximum(predicted, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return [
        {
            "class": name,
            "accuracy": float(recall[k]),
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "f1": float(f1[k]),
            "support": int(support[k]),
        }
        for k, name in enumerate(classes)
    ]


def peak_memory(device: str) -> int:
    """Return the largest memory of this process in bytes: the GPU's where it trains on one, else resident memory."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def git_commit() -> str | None:
    """Return the commit of this code, with "-dirty" where it was changed since, or None where git knows nothing."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")
