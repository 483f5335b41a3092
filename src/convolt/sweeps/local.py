"""A sweep on this machine: each run in a process of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convolt.errors import UserError, did_you_mean
from convolt.sweeps.jobs import Job, State, check_option
from convolt.sweeps.pool import Pool, make_context
from convolt.sweeps.screen import SweepScreen
from convolt.sweeps.slots import describe_slots, make_slots, visible_gpus
from convolt.system.signals import interrupt_on_signals
from convolt.training.start import start_run

if TYPE_CHECKING:
    from hydra_plugins.convolt_sweeps.local_launcher import LocalLauncherConf

_ON_ERROR = ("continue", "stop")


def run(jobs: Sequence[Job], options: "LocalLauncherConf") -> None:
    """Run what has not finished.

    Raises:
        Interrupted: When a signal stopped this process.
    """
    with interrupt_on_signals():
        context = make_context(["convolt.sweeps.preload"])
        waits = any(job.state == State.WAITING for job in jobs)
        gpus = visible_gpus(context) if waits and any(job.cfg.trainer.accelerator != "cpu" for job in jobs) else []
    n_jobs = None if options.n_jobs == "auto" else int(options.n_jobs)
    slots = make_slots(len(jobs), gpus, n_jobs, options.jobs_per_gpu)
    stop, timeout = options.on_error == "stop", options.timeout and options.timeout * 60
    with SweepScreen(jobs, describe_slots(slots)) as screen:
        Pool(start_run, slots, context, screen, stop, options.retries, timeout).run(jobs)


def check_options(options: "LocalLauncherConf") -> None:
    """Check the launcher's options.

    Raises:
        UserError: When one is not accepted.
    """
    n_jobs, timeout, on_error = options.n_jobs, options.timeout, options.on_error
    is_count = isinstance(n_jobs, int) and not isinstance(n_jobs, bool) and n_jobs >= 1
    check_option(options, "n_jobs", n_jobs == "auto" or is_count, "it must be auto, or 1 or more")
    check_option(options, "jobs_per_gpu", options.jobs_per_gpu >= 1, "it must be 1 or more")
    if on_error not in _ON_ERROR:
        raise UserError(
            f"hydra.launcher.on_error={on_error}: it must be continue or stop{did_you_mean(on_error, _ON_ERROR)}"
        )
    check_option(options, "retries", options.retries >= 0, "it must be 0 or more")
    check_option(options, "timeout", timeout is None or timeout > 0, "minutes, more than 0")
