"""A sweep on this machine: each run in a process of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convolt.errors import UserError, did_you_mean
from convolt.sweeps.jobs import Job, State
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
    n_jobs, on_error = options.n_jobs, options.on_error
    if n_jobs != "auto" and (not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs < 1):
        raise UserError(f"hydra.launcher.n_jobs={n_jobs} will not do: it must be auto, or 1 or more")
    if options.jobs_per_gpu < 1:
        raise UserError(f"hydra.launcher.jobs_per_gpu={options.jobs_per_gpu} will not do: it must be 1 or more")
    if on_error not in _ON_ERROR:
        raise UserError(
            f"hydra.launcher.on_error={on_error}: it must be continue or stop{did_you_mean(on_error, _ON_ERROR)}"
        )
    if options.retries < 0:
        raise UserError(f"hydra.launcher.retries={options.retries} will not do: it must be 0 or more")
    if options.timeout is not None and not options.timeout > 0:
        raise UserError(f"hydra.launcher.timeout={options.timeout} will not do: minutes, more than 0")
