"""A sweep on SLURM: the runs are one array of jobs, submitted by submitit, and this process waits for them.

A job is what the Hydra submitit launcher submits. A run whose time is nearly over stops after it has written its state,
is requeued, and resumes after its last completed epoch.
"""

import signal
import time
from typing import TYPE_CHECKING, Any

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
from convolt.sweeps.jobs import Job, check_option
from convolt.sweeps.remote import POLL_SECONDS, STOP_SECONDS, RemoteSweep, RemoteTask
from convolt.system.signals import Interrupted

if TYPE_CHECKING:
    from hydra_plugins.convolt_sweeps.remote_launcher import SlurmLauncherConf

_CLUSTERS = ("slurm", "local", "debug")
_SLURM_OPTIONS = ("array_parallelism", "partition", "account", "qos", "constraint", "exclude", "gres", "setup",
             "additional_parameters", "signal_delay_s")  # fmt: skip
_FORCED_CHECK_SECONDS = 60.0


class Submission(BaseSubmititLauncher):  # type: ignore[misc]
    """The function that is pickled and called in a job: it composes the run's config there, and can be requeued."""

    def __call__(self, *arguments: Any) -> JobReturn:
        """Run one job of the array."""
        register_resolvers()
        done: JobReturn = super().__call__(*arguments)
        return done


def check_options(options: "SlurmLauncherConf") -> None:
    """Check the launcher's options.

    Raises:
        UserError: When one is not accepted.
    """
    cluster, minutes = options.cluster, options.timeout_min
    if cluster not in _CLUSTERS:
        raise UserError(
            f"hydra.launcher.cluster={cluster}: it must be slurm, local or debug{did_you_mean(cluster, _CLUSTERS)}"
        )
    check_option(options, "timeout_min", isinstance(minutes, int | float) and minutes > 0, "minutes, more than 0")


def run(sweep: RemoteSweep, config: DictConfig, context: HydraContext, options: "SlurmLauncherConf") -> None:
    """Submit what is waiting as one array, and wait for it.

    Raises:
        UserError: When there is no SLURM here, or it refuses the jobs.
        Interrupted: When a signal stopped this process; the jobs were canceled, and can be resumed.
    """
    running = _submit(sweep, config, context, options)
    on_slurm = options.cluster == "slurm"
    at_once = min(len(running), options.array_parallelism) if on_slurm else len(running)
    where = "jobs of SLURM" if on_slurm else f"jobs of submitit's {options.cluster} executor"
    with sweep.show(f"{at_once} at a time as {where}, {options.cpus_per_task or 1} CPU threads each"):
        _wait(sweep, running)


def _submit(
    sweep: RemoteSweep, config: DictConfig, context: HydraContext, options: "SlurmLauncherConf"
) -> dict[Any, Job]:
    """Submit what is waiting; return the runs by submitit's jobs."""
    plain: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(vars(options)), resolve=True)  # type: ignore[assignment]
    cluster, requeues = plain.pop("cluster"), plain.pop("max_num_timeout")
    del plain["_target_"], plain["engine"]
    slurm = {f"slurm_{name}": plain.pop(name) for name in _SLURM_OPTIONS}
    folder = sweep.folder / ".submitit" / "%j"
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=requeues)
    except RuntimeError as error:
        raise UserError(
            f"hydra/launcher=slurm: there is no SLURM on this machine ({error}); start it on a cluster's login node"
        ) from error
    name = str(config.hydra.runtime.choices.get("study") or "convolt")
    executor.update_parameters(nodes=1, tasks_per_node=1, name=name, **plain, **slurm)
    runs_per_machine = len(sweep.waiting) if cluster == "local" else 1  # which starts all at once
    task = RemoteTask(runs_per_machine, options.cpus_per_task or 1, stop_signals=[JobEnvironment._usr_sig()])
    submission = Submission()
    submission.setup(hydra_context=context, task_function=task, config=config)
    submitted: list[Any] = []
    try:
        with executor.batch():
            for job in sweep.waiting:
                arguments = (list(job.overrides), "hydra.sweep.dir", job.number, "", Singleton.get_state())
                submitted.append(executor.submit(submission, *arguments))
    except FailedJobError as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(f"hydra/launcher=slurm: sbatch refused the jobs ({line}); change hydra.launcher") from error
    return dict(zip(submitted, sweep.waiting, strict=True))


def _wait(sweep: RemoteSweep, running: dict[Any, Job]) -> None:
    """Set the state of each run that has ended, until all have."""
    checked = time.monotonic()
    try:
        while running:
            if time.monotonic() > checked + _FORCED_CHECK_SECONDS:
                checked = time.monotonic()
                next(iter(running)).done(force_check=True)  # one question to SLURM, whose answer is about all jobs
            for submitted in [each for each in running if each.done()]:
                sweep.record_end(running[submitted], _fetch_answer(submitted, running.pop(submitted)))
            sweep.update_states()
            time.sleep(POLL_SECONDS if running else 0)
    except Interrupted:
        for submitted in running:
            submitted.cancel(check=False)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and not all(submitted.done() for submitted in running):
            time.sleep(POLL_SECONDS)
        raise


def _fetch_answer(submitted: Any, job: Job) -> Any:
    """Return the exit status of a run that has ended, or why there is none."""
    try:
        return submitted.results()[0]._return_value
    except Exception as error:  # submitit's kinds, and whatever a damaged pickle raises
        if job.read_status().get("state") == "interrupted":
            return 128 + signal.SIGTERM
        if isinstance(error, UncompletedJobError) and not isinstance(error, FailedJobError):
            state, log = submitted.state.lower(), submitted.paths.stderr
            return f"its job was killed (out of memory?), or its node was lost: {state}, {log}"
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
