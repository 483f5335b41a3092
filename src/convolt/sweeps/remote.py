"""Runs in the workers of an engine that spans machines: what is the same for Ray and SLURM.

An engine brings a task to a worker and tells how the worker ended. Everything else is in the run's directory, as in a
sweep on one machine: who holds it, how far it is, and its result.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, open_dict

from convolt.config.compose import complete_config
from convolt.errors import UserError
from convolt.sweeps.child import HELD, INTERRUPTED, LOG, exit_status, print_to, record_failure, train
from convolt.sweeps.jobs import compose_job
from convolt.sweeps.local import job_returns, make_runs
from convolt.sweeps.pool import Run, State
from convolt.sweeps.screen import SweepScreen
from convolt.system.environment import forget_rank, set_up_process
from convolt.system.locks import of_this_node_alone
from convolt.system.signals import Interrupted

LOOK_SECONDS = 0.5
"""Between two looks at what the engine says."""

_STATUS_SECONDS = 10.0
_STATUS_RUNS = 64
_VISIBLE_SECONDS = 60.0
"""What a network file system may take until it shows here what was written on another machine."""


class RemoteTask:
    """Does a run in a worker; Hydra calls it with the composed config.

    Args:
        folder: Working directory, by which relative paths of the config are meant.
        environment: Variables to set before anything is computed.
        on_signal: Signals of the engine by which it asks a run to stop; they are handed on to the engine's own handler
            when the run has stopped.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], on_signal: Sequence[int] = ()) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.on_signal = tuple(on_signal)

    def __call__(self, cfg: DictConfig) -> int:
        """Run one config; return its exit status."""
        os.chdir(self.folder)
        set_up_process()
        forget_rank()
        os.environ.update(self.environment)
        state: Any = HydraConfig.get()
        run_dir = Path(state.runtime.output_dir)
        cfg = complete_config(cfg, state)
        with _printed_to(run_dir / LOG), _passed_on(self.on_signal):
            return exit_status(train, cfg, run_dir)


@dataclass(frozen=True)
class Missing:
    """A run that has not finished before.

    Attributes:
        number: Its place in the sweep.
        overrides: What Hydra is to compose it from.
        hydra: What it has composed.
        run: The run.
    """

    number: int
    overrides: Sequence[str]
    hydra: DictConfig
    run: Run


class Sweep:
    """The runs of a sweep, while an engine works on them.

    Args:
        job_overrides: The overrides of each run.
        first: The number of the first one.
        config: The sweep's config.
        loader: Hydra's.

    Raises:
        UserError: When a run's config will not do; nothing was started then.
    """

    def __init__(
        self, job_overrides: Sequence[Sequence[str]], first: int, *, config: DictConfig, loader: ConfigLoader
    ) -> None:
        with open_dict(config):
            config.hydra.sweep.dir = str(Path(str(config.hydra.sweep.dir)).absolute())
        self.jobs = [compose_job(loader, config, each, first + number) for number, each in enumerate(job_overrides)]
        self.runs = make_runs(self.jobs, config)
        self.job_overrides = job_overrides
        self.first = first
        self.folder = Path(str(config.hydra.sweep.dir))
        self._looked = time.monotonic()

    def missing(self) -> list[Missing]:
        """Return what has not finished before."""
        all_runs = zip(self.job_overrides, self.jobs, self.runs, strict=True)
        numbered = enumerate(all_runs, self.first)
        return [Missing(n, o, job.hydra, run) for n, (o, job, run) in numbered if run.state == State.WAITING]

    @contextmanager
    def shown(self, places: str) -> Iterator[SweepScreen]:
        """Show the sweep while the block runs."""
        mount = of_this_node_alone(self.folder)
        with SweepScreen(self.runs, places) as screen:
            if mount:
                screen.console.print(
                    f"locks below {mount} hold on one node only (its mount options): start this sweep once at a time",
                    markup=False,
                )
            yield screen

    def look(self, runs: Sequence[Run], screen: SweepScreen) -> None:
        """See which runs have begun; rarely, and of the next ones alone: each costs the file system a question."""
        if time.monotonic() - self._looked > _STATUS_SECONDS:
            self._looked = time.monotonic()
            for run in [run for run in runs if run.state == State.WAITING][:_STATUS_RUNS]:
                if run.status().get("state") == "running":
                    run.state = State.RUNNING
                    screen.changed(run)
        screen.look()

    def ended(self, run: Run, status: int | None, reason: str, screen: SweepScreen) -> None:
        """Take note that the engine has ended a run.

        Args:
            run: The run.
            status: Its exit status; None where the engine lost it.
            reason: Why it was lost, in one line.
            screen: Where it is shown.
        """
        run.result = _found_soon(run) if status == 0 else run.find_result()
        if run.result and (status == 0 or not run.forced):
            run.state, run.reason = State.FINISHED, ""
        elif status == HELD:
            run.state, run.reason = State.HELD, "another process is at work in its directory"
        elif status in INTERRUPTED:
            run.state, run.reason = State.INTERRUPTED, "interrupted"
        else:
            run.state, run.reason = State.FAILED, self._reason(run, status, reason)
        screen.changed(run)

    def returns(self) -> list[JobReturn]:
        """Return for each run its config, and its result or the error that tells why there is none."""
        for run in self.runs:
            if run.state in (State.WAITING, State.RUNNING):
                run.reason = "not ended: the same command goes on"
        return [job_returns(job, run) for job, run in zip(self.jobs, self.runs, strict=True)]

    @staticmethod
    def _reason(run: Run, status: int | None, reason: str) -> str:
        recorded = run.status()
        if status is not None and recorded.get("state") == "failed":
            return str(recorded.get("error")).splitlines()[0]
        if status is not None:
            reason = f"ended with status {status} and without a result: see {LOG}"
        record_failure(run.cfg, run.run_dir, reason, pid=recorded.get("pid"))
        return reason


def needs(extra: str, error: ImportError) -> UserError:
    """Tell that an extra is missing."""
    return UserError(
        f"hydra/launcher={extra} needs packages that are missing ({error}): pip install 'convolt[{extra}]'"
    )


def _found_soon(run: Run) -> dict[str, object] | None:
    """Return a run's result; wait for it where a network file system does not show it yet."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while (result := run.find_result()) is None and time.monotonic() < deadline:
        if (run.run_dir / "result.json").exists():
            return None  # it is there, and of other settings or damaged
        os.listdir(run.run_dir)  # noqa: PTH208 (asks the server anew what the folder holds)
        time.sleep(LOOK_SECONDS)
    return result


@contextmanager
def _printed_to(log: Path) -> Iterator[None]:
    """Send what the block prints to a file."""
    kept = [(number, os.dup(number)) for number in (1, 2)]
    print_to(log)
    try:
        yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)


@contextmanager
def _passed_on(signals: Sequence[int]) -> Iterator[None]:
    """Stop the run by `Interrupted` at one of these signals, and send it to who waited for it before."""
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        raise Interrupted(number)

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in caught:
            os.kill(os.getpid(), number)
