"""The directory of a run in progress: its lock, and the writing of settings, status, log and result."""

import logging
import os
import platform
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, Self

from filelock import Timeout
from omegaconf import DictConfig, OmegaConf

from convolt import __version__
from convolt.config.settings import Settings, StartingWeights
from convolt.errors import DivergedError, RunError, UserError
from convolt.runs.bundle import RUN_FILES
from convolt.runs.changes import record_change
from convolt.runs.code_state import code_state
from convolt.runs.config_hash import config_hash
from convolt.runs.files import Change, Json, RunFiles
from convolt.runs.stored_settings import stored_hash
from convolt.system.files import add_digest, clear_unfinished, remove_empty, write_bytes, write_json, write_text
from convolt.system.locks import has_no_locks, make_lock
from convolt.system.os_errors import explain_os_error

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")

_CLOCKS = ("seconds", "cpu_seconds")

_MAX_EARLY_RECORDS = 10_000
"""Log records held in memory until `run.log` is opened."""


class HeldError(UserError):
    """Another process has locked the run's directory."""


class RunDirectory(RunFiles):
    """A run's directory, locked by this process while it is entered, and what writes its files.

    Args:
        path: The directory; made when it is not there.
        cfg: The run's settings.
        change: What they change of the settings that the run had so far (`convolt.training.extend`); None: nothing.

    Raises:
        UserError: On entering, when the directory cannot be written.
        HeldError: On entering, when another process holds it.
    """

    def __init__(self, path: Path, cfg: DictConfig, change: Change | None = None) -> None:
        super().__init__(path)
        self.cfg = cfg
        self.settings = Settings.of(cfg)
        self.hash = config_hash(cfg)
        self.change = change
        self._lock = make_lock(self.lock_file)
        self._log: logging.Handler | None = None
        self._level = logging.NOTSET
        self._early_records = MemoryHandler(_MAX_EARLY_RECORDS, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._started = time.monotonic(), time.process_time()  # a monotonic clock is never set back
        self._seconds_before: tuple[float, ...] = (0.0, 0.0)
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
        logging.getLogger().addHandler(self._early_records)
        logger = logging.getLogger("convolt")
        self._level = logger.level
        logger.setLevel(self._level or logging.INFO)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Write how the run ended, and release the lock."""
        if self._status.get("state") not in (None, "finished") and error is not None:
            interrupted = not isinstance(error, Exception)
            with suppress(OSError):  # a full disk, a removed folder: the error that was raised says it
                self.write_status(
                    "interrupted" if interrupted else "failed",
                    error=str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}",
                    traceback=None if interrupted else "".join(traceback.format_exception(error)),
                    **({"diverged": True} if isinstance(error, DivergedError) else {}),
                )
        logging.getLogger("convolt").setLevel(self._level)
        logging.getLogger().removeHandler(self._early_records)
        if self._log:
            logging.getLogger().removeHandler(self._log)
            with suppress(OSError):
                self._log.close()
        with suppress(OSError):
            if isinstance(error, UserError) and list(self.path.iterdir()) == [self.lock_file]:
                self.lock_file.unlink()  # before its release: a process that waits for the lock then makes a new file
        self._lock.release()
        if isinstance(error, UserError):
            remove_empty(self.path)  # a run that never began leaves nothing

    def own_hashes(self) -> set[str]:
        """Return the hashes that mark the run's own checkpoints: of its settings, now and before they were changed."""
        return {self.hash} | self.hashes(self.change["config_hash"] if self.change else self.hash)

    def mark_finished(self, result: Json) -> None:
        """Tidy up and write the status of a finished run that was killed between its result and its status."""
        with suppress(OSError):  # a finished run may lie where nobody can write any more
            self._remove_unfinished()
            if self.status().get("state") != "finished":
                epochs, seconds = result.get("epochs"), result.get("seconds")
                self.write_status("finished", epoch=epochs, max_epochs=epochs, seconds=seconds, error=None)

    def move_aside(self, *, force: bool) -> Path | None:
        """Move a run of other settings out of the way, or any run if forced, to a folder beside this one.

        Returns:
            That folder; None if nothing had to move.
        """
        self._remove_unfinished()
        hashes = (self.status().get("config_hash"), stored_hash(self.path))  # two, since either may be damaged
        found = {str(each) for each in hashes if each}
        if not found or (self.own_hashes() & found and not force):
            return None
        aside = next(p for n in range(1, 10**6) if not (p := self.path.with_name(f"{self.path.name}.old{n}")).exists())
        source = self.settings.init_from
        if isinstance(source, StartingWeights) and Path(source.run).resolve().is_relative_to(self.path.resolve()):
            raise UserError(
                f"init_from={source.run}: a run that starts from these weights cannot take their place: choose "
                "another hydra.run.dir"
            )
        aside.mkdir()
        for entry in self._entries():
            entry.rename(aside / entry.name)
        return aside

    def move_back(self, aside: Path) -> bool:
        """Undo `move_aside`, unless there are new files here; return whether it was undone."""
        if self._entries():
            return False
        for entry in list(aside.iterdir()):
            entry.rename(self.path / entry.name)
        aside.rmdir()
        return True

    def lay_out(self, packed: Mapping[str, bytes]) -> bool:
        """Write the files of a finished run of these settings that came in a bundle, the result last.

        What an unfinished run or one of other settings has left here is moved aside.

        Args:
            packed: The files, see `convolt.runs.bundle`.

        Returns:
            Whether they were written; not where there is a result of these settings already.
        """
        if self.result(self.hash):
            return False
        if not self.status().get("bundled") or self.result_file.exists():  # else a kill has interrupted this
            self.move_aside(force=True)
        try:
            for name in [name for name in RUN_FILES if name in packed]:
                (self.path / name).parent.mkdir(exist_ok=True)
                write_bytes(self.path / name, packed[name])
        except OSError as error:
            raise UserError(explain_os_error(error, self.path)) from None
        return True

    def _entries(self) -> list[Path]:
        """Return what is in the directory, except the lock and the log that a launcher has already opened."""
        return [entry for entry in self.path.iterdir() if entry.name not in (self.lock_file.name, "output.log")]

    def _remove_unfinished(self) -> None:
        """Remove the temporary files of killed processes."""
        for folder in self.path.glob("**/"):
            clear_unfinished(folder)

    def begin(self) -> None:
        """Write the settings, open the log and write the records held so far to it, and set the status to running."""
        self.config_file.parent.mkdir(exist_ok=True)
        record_change(self, self.hash, self.change)
        write_text(self.config_file, OmegaConf.to_yaml(self.cfg))
        write_text(self.overrides_file, OmegaConf.to_yaml(self.cfg.overrides))
        before = (self.status().get(name) for name in _CLOCKS)
        self._seconds_before = tuple(float(each) if isinstance(each, int | float) else 0.0 for each in before)
        self._log = _Log(self.path / "run.log", encoding="utf-8", errors="backslashreplace")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self._log)
        logging.getLogger().removeHandler(self._early_records)
        self._early_records.setTarget(self._log)
        self._early_records.flush()
        self._write_patch()
        self.write_status("running", epoch=0, max_epochs=None, metrics={}, seconds_left=None)

    def _write_patch(self) -> None:
        """Write what was changed in the code since its commit; where nothing was, remove what an earlier start left."""
        code = code_state()
        if code and code.patch:
            write_bytes(self.patch_file, code.patch)
        else:
            self.patch_file.unlink(missing_ok=True)
        logging.getLogger(__name__).info("code: %s", code.commit if code else "of no checkout that git reads")

    def seconds(self) -> dict[str, float]:
        """Return the seconds that the run has taken, by the clock and of all cores, also before it was resumed.

        Processor time does not grow when other runs share the machine. Only this process's counts.
        """
        clocks = zip(_CLOCKS, self._seconds_before, self._started, (time.monotonic(), time.process_time()), strict=True)
        return {name: round(before + now - start, 3) for name, before, start, now in clocks}

    def write_status(self, state: str, **more: Any) -> None:
        """Write `status.json`: the state (running, finished, failed or interrupted) and further facts."""
        self._status |= {
            "state": state,
            "config_hash": self.hash,
            "pid": os.getpid(),
            "host": platform.node(),
            **self.seconds(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        } | more
        write_json(self.status_file, add_digest(self._status))

    def finish(self, result: Json) -> Json:
        """Write `result.json` and, after it, the finished status."""
        result = add_digest(
            result
            | {
                **self.seconds(),
                "config_hash": self.hash,
                "git_commit": code.commit if (code := code_state()) else None,
                "versions": versions(),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            }
            | ({"changed_settings": changes} if (changes := self.changes(self.hash)) else {})
        )
        write_json(self.result_file, result)
        self.write_status("finished", error=None, traceback=None, seconds_left=0)
        return result


class _Log(logging.FileHandler):
    """A log that a full disk does not turn into a traceback on the screen."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Drop the line."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version(), "convolt": __version__} | dict.fromkeys(PACKAGES, "unknown")
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
