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
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import Timeout
from omegaconf import DictConfig, OmegaConf

from convolt.config.settings import KEYS_ADDED_LATER
from convolt.errors import RunError, UserError
from convolt.runs.changes import Change, read_changes, record_change
from convolt.system.files import clear_unfinished, read_json, remove_empty, signed, write_json, write_text
from convolt.system.locks import has_no_locks, lock

PACKAGES = ("convolt", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")

NOT_HASHED = ("force", "summary", "overrides", "pictures", "data.root", "data.stage", "logger", "choices.logger")
"""Settings (and sections) that cannot change a number."""

_HASHED_AS_NULL = NOT_HASHED[:5]
"""Those that were there from the first, and stand in every hash as null; later ones are left out."""

PREDICTIONS = "predictions.npz"
"""Probabilities, targets and stored indices of all test images."""

PREPROCESSING = "preprocessing.json"
"""Classes, and how an image becomes the network's input: all that is needed when the dataset is gone."""


_MOST_EARLY_LINES = 10_000
"""Of the log, kept until a run's `run.log` is opened."""


class HeldError(UserError):
    """Another process is at work in a run's directory."""


class RunDirectory:
    """A run's directory, held by this process alone while it is entered.

    Args:
        path: The directory; made when it is not there.
        cfg: The run's settings.
        change: In what they differ from those that the run had so far (`convolt.extend`); None: in nothing.

    Raises:
        UserError: On entering, when the directory cannot be written.
        HeldError: On entering, when another process holds it.
    """

    def __init__(self, path: Path, cfg: DictConfig, change: Change | None = None) -> None:
        self.path = path
        self.cfg = cfg
        self.hash = config_hash(cfg)
        self.change = change
        self._lock = lock(path / ".lock")
        self._log: logging.Handler | None = None
        self._level = logging.NOTSET
        self._early = MemoryHandler(_MOST_EARLY_LINES, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
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
        logging.getLogger().addHandler(self._early)
        own = logging.getLogger("convolt")
        self._level = own.level
        if not self._level:
            own.setLevel(logging.INFO)
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
        logging.getLogger("convolt").setLevel(self._level)
        logging.getLogger().removeHandler(self._early)
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

    @property
    def hashes(self) -> set[str]:
        """The hashes of the run's settings, now and before they were changed: all of them mark its own checkpoints."""
        before = self.change["config_hash"] if self.change else self.hash
        return {self.hash, before, *(each["config_hash"] for each in read_changes(self.path, before))}

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
        if not left or (self.hashes & left and not force):
            return None
        aside = next(p for n in range(1, 10**6) if not (p := self.path.with_name(f"{self.path.name}.old{n}")).exists())
        source = self.cfg.get("init_from")
        if source and Path(source["run"]).resolve().is_relative_to(self.path.resolve()):
            raise UserError(
                f"init_from={source['run']}: a run that starts from these weights cannot take their place: choose "
                "another hydra.run.dir"
            )
        aside.mkdir()
        for entry in self._entries():
            entry.rename(aside / entry.name)
        return aside

    def take_back(self, aside: Path) -> bool:
        """Move back what was moved aside, where nothing has come in its place; tell whether it was so."""
        if self._entries():
            return False
        for entry in list(aside.iterdir()):
            entry.rename(self.path / entry.name)
        aside.rmdir()
        return True

    def _entries(self) -> list[Path]:
        """Return what is in the directory, but the lock, and the log that a launcher has opened already."""
        return [entry for entry in self.path.iterdir() if entry.name not in (".lock", "output.log")]

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
        """Write the settings, open the log with what was said before, and say that the run is under way."""
        hydra = self.path / ".hydra"
        hydra.mkdir(exist_ok=True)
        record_change(self.path, self.hash, self.change)
        write_text(hydra / "config.yaml", OmegaConf.to_yaml(self.cfg))
        write_text(hydra / "overrides.yaml", OmegaConf.to_yaml(self.cfg.get("overrides", [])))
        previous = read_json(self.path / "status.json")
        seconds = previous.get("seconds") if isinstance(previous, dict) else None
        self._seconds_before = float(seconds) if isinstance(seconds, int | float) else 0.0
        self._log = _Log(self.path / "run.log", encoding="utf-8", errors="backslashreplace")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self._log)
        logging.getLogger().removeHandler(self._early)
        self._early.setTarget(self._log)
        self._early.flush()
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
            | ({"changed_settings": changes} if (changes := read_changes(self.path, self.hash)) else {})
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
    """Return a digest of what was asked, without what cannot change a number: 16 hexadecimal digits.

    Keys and groups that came later count where they are not at their defaults (`KEYS_ADDED_LATER`); where weights come
    from (`init_from`) counts by their digest.
    """
    asked = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    for key in _HASHED_AS_NULL:
        OmegaConf.update(asked, key, None, force_add=True)
    plain: Any = OmegaConf.to_container(asked, resolve=True)
    for key in NOT_HASHED[len(_HASHED_AS_NULL) :]:
        _leave_out(plain, key)
    trainer = plain.get("trainer", {})
    if trainer.get("batch_per", "run") == "run" and "devices" in trainer:
        trainer["devices"] = 1  # any number of devices takes the same steps
    if isinstance(plain.get("init_from"), dict):
        plain["init_from"] = plain["init_from"]["sha256"]
    for key, before in KEYS_ADDED_LATER.items():
        _leave_out(plain, key, before)
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_ANYTHING = object()


def _leave_out(settings: dict[str, Any], key: str, value: Any = _ANYTHING) -> None:
    """Remove a dotted key, where it is there and has the value."""
    *sections, name = key.split(".")
    node: Any = settings
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    if isinstance(node, dict) and name in node and (value is _ANYTHING or node[name] == value):
        del node[name]


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
