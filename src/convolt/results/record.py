"""What a run leaves in its directory: settings, state, log and result."""

import hashlib
import json
import logging
import os
import platform
import subprocess
import time
import traceback
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from convolt.errors import RunError, UserError
from convolt.files import clear_unfinished, read_json, remove_empty, signed, write_json, write_text
from convolt.locks import has_no_locks, lock

PACKAGES = ("convolt", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")

NOT_HASHED = ("force", "summary", "overrides", "pictures", "data.root")
"""Settings that cannot change a number."""

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
        self._lock = lock(path / ".lock")
        self._log: logging.Handler | None = None
        self._started = time.monotonic()  # the clock may be set back
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
        except (OSError, NotImplementedError) as error:
            if has_no_locks(error):
                raise UserError(
                    f"{self.path} is on a file system without locks: choose a hydra.run.dir on a local disk"
                ) from None
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot write to {self.path} ({reason}): choose another hydra.run.dir") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write down how it ended, and let go."""
        if self._status and error is not None:
            interrupted = not isinstance(error, Exception)
            with suppress(OSError):  # a full disk, a folder that was taken away: what was raised says it
                self.status(
                    "interrupted" if interrupted else "failed",
                    error=str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}",
                    traceback=None if interrupted else "".join(traceback.format_exception(error)),
                )
        if self._log:
            logging.getLogger().removeHandler(self._log)
            with suppress(OSError):
                self._log.close()
        with suppress(OSError):
            if isinstance(error, UserError) and [entry.name for entry in self.path.iterdir()] == [".lock"]:
                (self.path / ".lock").unlink()  # before it is let go: who waits for it looks again
        self._lock.release()
        if isinstance(error, UserError):
            remove_empty(self.path)  # nothing stays of a run that never began

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished run of the same settings, or None."""
        result = read_json(self.path / "result.json")
        return result if isinstance(result, dict) and result.get("config_hash") == self.hash else None

    def settle(self, result: dict[str, Any]) -> None:
        """Say that the run has finished, and tidy up, where it was killed between its result and its status."""
        with suppress(OSError):
            self._tidy()
        status = read_json(self.path / "status.json")
        if not isinstance(status, dict) or status.get("state") != "finished":
            with suppress(OSError):  # a finished run may lie where nobody writes any more
                epochs = result.get("epochs")
                self.status("finished", epoch=epochs, max_epochs=epochs, seconds=result.get("seconds"), error=None)

    def clear_for(self, *, force: bool) -> Path | None:
        """Move what other settings (or `force`) left here aside, so that a run may begin or go on.

        Returns:
            Where to; None where nothing had to move.
        """
        self._tidy()
        left = self._settings_left()
        if not left or (self.hash in left and not force):
            return None
        aside = next(p for n in range(1, 10**6) if not (p := self.path.with_name(f"{self.path.name}.old{n}")).exists())
        aside.mkdir()
        # A launcher has opened output.log already.
        for entry in [entry for entry in self.path.iterdir() if entry.name not in (".lock", "output.log")]:
            entry.rename(aside / entry.name)
        return aside

    def _tidy(self) -> None:
        """Remove what a killed process had begun to write."""
        for folder in (self.path, self.checkpoints, self.path / ".hydra", self.path / "figures"):
            clear_unfinished(folder)

    def _settings_left(self) -> set[str]:
        """Return the hashes of the settings that left something here: two witnesses, since either may be damaged."""
        status = read_json(self.path / "status.json")
        told = str(status.get("config_hash")) if isinstance(status, dict) else None
        return {each for each in (told, stored_hash(self.path)) if each}

    def begin(self) -> None:
        """Write the settings, open the log and say that the run is under way."""
        hydra = self.path / ".hydra"
        hydra.mkdir(exist_ok=True)
        write_text(hydra / "config.yaml", OmegaConf.to_yaml(self.cfg))
        write_text(hydra / "overrides.yaml", OmegaConf.to_yaml(self.cfg.get("overrides", [])))
        previous = read_json(self.path / "status.json")
        seconds = previous.get("seconds") if isinstance(previous, dict) else None
        self._seconds_before = float(seconds) if isinstance(seconds, int | float) else 0.0
        self._log = _Log(self.path / "run.log", encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self._log)
        self.status("running", epoch=0, max_epochs=None, metrics={}, seconds_left=None)

    def seconds(self) -> float:
        """Return the run's seconds so far, those before a continuation included."""
        return self._seconds_before + time.monotonic() - self._started

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
        write_json(self.path / "status.json", signed(self._status))

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write `result.json` and, after it, that the run has finished."""
        result = signed(
            result
            | {
                "seconds": round(self.seconds(), 3),
                "config_hash": self.hash,
                "git_commit": git_commit(),
                "versions": versions(),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            }
        )
        write_json(self.path / "result.json", result)
        self.status("finished", error=None, traceback=None, seconds_left=0)
        return result


class _Log(logging.FileHandler):
    """A log that a full disk does not turn into a traceback on the screen."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Leave the line out."""


def stored_hash(run_dir: Path) -> str | None:
    """Return the hash of the settings that stand in a run's directory; None where they cannot be read."""
    try:
        cfg = OmegaConf.load(run_dir / ".hydra" / "config.yaml")
        return config_hash(cfg) if isinstance(cfg, DictConfig) else None
    except Exception:  # YAML and OmegaConf raise a dozen kinds over damaged text
        return None


def config_hash(cfg: DictConfig) -> str:
    """Return a digest of what was asked, without what cannot change a number: 16 hexadecimal digits."""
    asked = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    for key in NOT_HASHED:
        OmegaConf.update(asked, key, None, force_add=True)
    plain: Any = OmegaConf.to_container(asked, resolve=True)
    _as_of_old(plain)
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_of_old(asked: dict[str, Any]) -> None:
    """Leave out keys that came later where they change nothing, so that finished runs keep their hash."""
    asked.get("data", {}).pop("stage", None)
    trainer = asked.get("trainer", {})
    if trainer.get("batch_per", "run") == "run" and "devices" in trainer:
        trainer["devices"] = 1  # any number of devices takes the same steps
    for key, usual in (("sync_batchnorm", False), ("batch_per", "run"), ("learning_rate_rule", "none")):
        if trainer.get(key) == usual:
            del trainer[key]


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
