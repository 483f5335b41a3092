"""A sweep on SLURM: the runs are one array of jobs, submitted by submitit, and this process waits for them.

A job is what the Hydra submitit launcher submits. A run whose time is nearly over stops after it has written its state,
is queued again, and goes on from its last whole epoch.
"""

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from omegaconf import DictConfig, OmegaConf
from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import FailedJobError, UncompletedJobError

from convolt.config.compose import register_resolvers
from convolt.errors import UserError, did_you_mean
from convolt.sweeps.pool import Run
from convolt.sweeps.remote import LOOK_SECONDS, RemoteTask, Sweep
from convolt.sweeps.screen import SweepScreen
from convolt.system.signals import Interrupted, interrupt_on_signals

_CLUSTERS = ("slurm", "local", "debug")
_OF_SLURM = ("array_parallelism", "partition", "account", "qos", "constraint", "exclude", "gres", "setup",
             "additional_parameters", "signal_delay_s")  # fmt: skip
_STOP_SECONDS = 10.0
_ASK_SECONDS = 60.0


class Submission(BaseSubmititLauncher):  # type: ignore[misc]
    """What is pickled and called in a job: it composes a run's config anew there, and can be queued again."""

    def __call__(self, *arguments: Any) -> JobReturn:
        """Run one job of the array."""
        register_resolvers()
        done: JobReturn = super().__call__(*arguments)
        return done


def check_options(cluster: str, timeout_min: float, **options: Any) -> None:
    """Check the launcher's options.

    Raises:
        UserError: When one will not do.
    """
    if cluster not in _CLUSTERS:
        raise UserError(
            f"hydra.launcher.cluster={cluster}: it must be slurm, local or debug{did_you_mean(cluster, _CLUSTERS)}"
        )
    if not isinstance(timeout_min, int | float) or not timeout_min > 0:
        raise UserError(f"hydra.launcher.timeout_min={timeout_min} will not do: minutes, more than 0")


def launch(
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    config: DictConfig,
    context: HydraContext,
    cluster: str,
    **options: Any,
) -> list[JobReturn]:
    """Run what has not finished; the arguments are those of the launcher and of its config.

    Raises:
        UserError: When a run's config will not do, or there is no SLURM here.
        Interrupted: When a signal told this process to stop; the jobs were canceled, and can go on.
    """
    sweep = Sweep(job_overrides, first, config=config, loader=context.config_loader)
    if not sweep.missing():
        with sweep.shown("nothing to run"):
            return sweep.returns()
    threads = options.get("cpus_per_task") or 1
    with interrupt_on_signals():
        jobs = _submit(sweep, cluster, options, context, config, threads)
        at_once = min(len(jobs), options["array_parallelism"]) if cluster == "slurm" else len(jobs)
        where = "jobs of SLURM" if cluster == "slurm" else f"jobs of submitit's {cluster} executor"
        with sweep.shown(f"{at_once} at a time as {where}, {threads} CPU threads each") as screen:
            _wait(sweep, jobs, screen)
    return sweep.returns()


def _submit(
    sweep: Sweep, cluster: str, options: Mapping[str, Any], context: HydraContext, config: DictConfig, threads: int
) -> dict[Any, Run]:
    """Submit what is missing; return the jobs with their runs."""
    plain: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(dict(options)), resolve=True)  # type: ignore[assignment]
    again = plain.pop("max_num_timeout")
    try:
        executor = submitit.AutoExecutor(
            folder=sweep.folder / ".submitit" / "%j",
            cluster=cluster,
            **({"slurm_max_num_timeout": again} if cluster == "slurm" else {}),
        )
    except RuntimeError as error:
        raise UserError(
            f"hydra/launcher=slurm: there is no SLURM on this machine ({error}); start it on a cluster's login node"
        ) from error
    known = {name: value for name, value in plain.items() if name not in _OF_SLURM and value is not None}
    if cluster == "slurm":
        known |= {f"slurm_{name}": plain[name] for name in _OF_SLURM if plain[name] is not None}
    executor.update_parameters(
        nodes=1, tasks_per_node=1, name=str(config.hydra.runtime.choices.get("study") or "convolt"), **known
    )
    missing = sweep.missing()
    sharing = len(missing) if cluster == "local" else 1  # which starts all at once
    environment = {"CONVOLT_THREADS": str(threads), "CONVOLT_SLOTS": str(sharing)}
    submission = Submission()
    task = RemoteTask(Path.cwd(), environment, on_signal=[JobEnvironment._usr_sig()])
    submission.setup(hydra_context=context, task_function=task, config=config)
    jobs: list[Any] = []
    try:
        with executor.batch():
            for each in missing:
                state = Singleton.get_state()
                jobs.append(
                    executor.submit(submission, list(each.overrides), "hydra.sweep.dir", each.number, "", state)
                )
    except FailedJobError as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(f"hydra/launcher=slurm: sbatch refused the jobs ({line}); change hydra.launcher") from error
    return {job: each.run for job, each in zip(jobs, missing, strict=True)}


def _wait(sweep: Sweep, jobs: dict[Any, Run], screen: SweepScreen) -> None:
    """Take note of each job that has ended, until all have."""
    running = dict(jobs)
    asked = time.monotonic()
    try:
        while running:
            if time.monotonic() > asked + _ASK_SECONDS:
                asked = time.monotonic()
                next(iter(running)).done(force_check=True)  # one question to SLURM, whose answer tells of all jobs
            for job in [job for job in running if job.done()]:
                _note(sweep, job, running.pop(job), screen)
            sweep.look(list(running.values()), screen)
            time.sleep(LOOK_SECONDS if running else 0)
    except Interrupted:
        for job in running:
            job.cancel(check=False)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline and not all(job.done() for job in running):
            time.sleep(LOOK_SECONDS)
        raise


def _note(sweep: Sweep, job: Any, run: Run, screen: SweepScreen) -> None:
    try:
        value: Any = job.results()[0]._return_value
    except Exception as error:  # submitit's kinds, and whatever a damaged pickle raises
        left = run.status().get("state")
        if left == "interrupted":
            sweep.ended(run, 128 + signal.SIGTERM, "", screen)
            return
        reason = f"its job was killed (out of memory?), or its node was lost: {job.state.lower()}, {job.paths.stderr}"
        if not isinstance(error, UncompletedJobError) or isinstance(error, FailedJobError):
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        sweep.ended(run, None, reason, screen)
        return
    sweep.ended(run, value if isinstance(value, int) else None, f"{type(value).__name__}: {value}", screen)
