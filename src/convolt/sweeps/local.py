"""A sweep on this machine: each run in a process of its own."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from convolt.errors import UserError, did_you_mean
from convolt.sweeps.gpu_share import place_runs
from convolt.sweeps.jobs import Job, State, check_option
from convolt.sweeps.mps_daemon import share_by_mps
from convolt.sweeps.pool import Pool, make_context
from convolt.sweeps.screen import SweepScreen
from convolt.sweeps.slots import describe_slots, make_slots
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
    n_jobs = None if options.n_jobs == "auto" else int(options.n_jobs)
    by_mps = options.mps is True or (options.mps == "auto" and options.jobs_per_gpu == "auto")
    with ExitStack() as stack:
        with interrupt_on_signals():
            context = make_context(["convolt.sweeps.preload"])
            if any(job.state == State.WAITING for job in jobs):
                slots, reason = place_runs(context, jobs, n_jobs, options.jobs_per_gpu)
            else:
                slots, reason = make_slots(len(jobs), [], n_jobs, 1), ""
            shared, mps = stack.enter_context(share_by_mps(context, slots)) if by_mps else (slots, "")
        stop, timeout = options.on_error == "stop", options.timeout and options.timeout * 60
        places = "; ".join(filter(None, (describe_slots(slots), reason)))
        with SweepScreen(jobs, "\n".join(filter(None, (places, mps)))) as screen:
            Pool(start_run, shared, context, screen, stop, options.retries, timeout).run(jobs)


def check_options(options: "LocalLauncherConf") -> None:
    """Check the launcher's options.

    Raises:
        UserError: When one is not accepted.
    """
    timeout, on_error = options.timeout, options.on_error
    for name in ("n_jobs", "jobs_per_gpu"):
        value = getattr(options, name)
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        check_option(options, name, value == "auto" or is_count, "it must be auto, or 1 or more")
    check_option(
        options, "mps", options.mps == "auto" or isinstance(options.mps, bool), "it must be auto, true or false"
    )
    if on_error not in _ON_ERROR:
        raise UserError(
            f"hydra.launcher.on_error={on_error}: it must be continue or stop{did_you_mean(on_error, _ON_ERROR)}"
        )
    check_option(options, "retries", options.retries >= 0, "it must be 0 or more")
    check_option(options, "timeout", timeout is None or timeout > 0, "minutes, more than 0")
