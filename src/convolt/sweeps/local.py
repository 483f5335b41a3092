"""A sweep on this machine: each run in a process of its own."""

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, read_write

from convolt.errors import UserError, did_you_mean
from convolt.sweeps.child import train
from convolt.sweeps.jobs import ComposedJob, compose_job
from convolt.sweeps.pool import Pool, Run, State, make_context
from convolt.sweeps.screen import SweepScreen
from convolt.sweeps.slots import describe_slots, make_slots, visible_gpus
from convolt.system.signals import interrupt_on_signals

_ON_ERROR = ("continue", "stop")


class NotFinishedError(RuntimeError):
    """A run of a sweep has no result; the message is one line."""


def launch(
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    config: DictConfig,
    loader: ConfigLoader,
    n_jobs: int | str,
    jobs_per_gpu: int,
    on_error: str,
    retries: int,
    timeout: float | None,
) -> list[JobReturn]:
    """Run what has not finished; the arguments are those of the launcher and of its config.

    Raises:
        UserError: When an option or a run's config will not do; nothing was started then.
        Interrupted: When a signal told this process to stop.
    """
    jobs = [compose_job(loader, config, each, first + number) for number, each in enumerate(job_overrides)]
    runs = make_runs(jobs, config)
    with interrupt_on_signals():
        context = make_context(["convolt.sweeps.preload"])
        waits = any(run.state == State.WAITING for run in runs)
        gpus = visible_gpus(context) if waits and any(job.cfg.trainer.accelerator != "cpu" for job in jobs) else []
    slots = make_slots(len(runs), gpus, None if n_jobs == "auto" else int(n_jobs), jobs_per_gpu)
    with SweepScreen(runs, describe_slots(slots)) as screen:
        Pool(
            train,
            slots,
            context=context,
            screen=screen,
            stop_on_error=on_error == "stop",
            retries=retries,
            timeout=timeout and timeout * 60,
        ).run(runs)
    return [job_returns(job, run) for job, run in zip(jobs, runs, strict=True)]


def check_options(n_jobs: int | str, jobs_per_gpu: int, on_error: str, retries: int, timeout: float | None) -> None:
    """Check the launcher's options.

    Raises:
        UserError: When one will not do.
    """
    if n_jobs != "auto" and (not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs < 1):
        raise UserError(f"hydra.launcher.n_jobs={n_jobs} will not do: it must be auto, or 1 or more")
    if jobs_per_gpu < 1:
        raise UserError(f"hydra.launcher.jobs_per_gpu={jobs_per_gpu} will not do: it must be 1 or more")
    if on_error not in _ON_ERROR:
        raise UserError(
            f"hydra.launcher.on_error={on_error}: it must be continue or stop{did_you_mean(on_error, _ON_ERROR)}"
        )
    if retries < 0:
        raise UserError(f"hydra.launcher.retries={retries} will not do: it must be 0 or more")
    if timeout is not None and not timeout > 0:
        raise UserError(f"hydra.launcher.timeout={timeout} will not do: minutes, more than 0")


def make_runs(jobs: Sequence[ComposedJob], config: DictConfig) -> list[Run]:
    """Make the runs, each with a directory of its own, and see which have finished before."""
    runs: dict[str, Run] = {}
    for job in jobs:
        name = str(job.hydra.hydra.sweep.subdir)
        if name in runs:
            raise UserError(
                f"several runs would share the folder {config.hydra.sweep.dir}/{name}, among them "
                f"{' '.join(job.overrides)}: set hydra.sweep.subdir='${{hydra.job.num}}'"
            )
        environment = {key: str(value) for key, value in job.hydra.hydra.job.env_set.items()}
        runs[name] = run = Run(name, job.cfg, job.run_dir, environment)
        run.result = None if run.forced else run.find_result()
        run.state = State.FINISHED if run.result else State.WAITING
    return list(runs.values())


def job_returns(job: ComposedJob, run: Run) -> JobReturn:
    """Tell Hydra what became of a run."""
    with read_write(job.hydra.hydra.runtime):
        job.hydra.hydra.runtime.output_dir = str(job.run_dir)
    done = JobReturn(overrides=job.overrides, cfg=job.cfg, hydra_cfg=job.hydra, task_name=run.name)
    done.status = JobStatus.COMPLETED if run.state == State.FINISHED else JobStatus.FAILED
    if run.state == State.FINISHED:
        done.return_value = run.result
    else:
        done.return_value = NotFinishedError(run.reason or "not started, since another run failed")
    return done
