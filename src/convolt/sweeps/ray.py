"""A sweep on Ray: each run is a task, and Ray finds the machine, the cores and the GPU for it.

The tasks are submitted as the Hydra Ray launcher does; that launcher itself waits for them one after the other and ends
the whole sweep with the first whose process was killed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray, start_ray
from omegaconf import DictConfig, OmegaConf, read_write
from ray.exceptions import RayError

from convolt.errors import UserError
from convolt.sweeps.pool import Run
from convolt.sweeps.remote import LOOK_SECONDS, RemoteTask, Sweep
from convolt.sweeps.screen import SweepScreen
from convolt.system.signals import Interrupted, defer_signals, interrupt_on_signals

_STOP_SECONDS = 10.0
_LOCAL = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}


def check_options(
    address: str | None,
    num_cpus: float,
    num_gpus: float | str,
    retries: int,
    init: Mapping[str, Any],
    remote: Mapping[str, Any],
) -> None:
    """Check the launcher's options.

    Raises:
        UserError: When one will not do.
    """
    if not isinstance(num_cpus, int | float) or not num_cpus > 0:
        raise UserError(f"hydra.launcher.num_cpus={num_cpus} will not do: it must be more than 0")
    whole = not isinstance(num_gpus, str) and (num_gpus <= 1 or float(num_gpus).is_integer())
    if num_gpus != "auto" and (not whole or float(num_gpus) < 0):
        raise UserError(
            f"hydra.launcher.num_gpus={num_gpus} will not do: it must be auto, a part of 1, or a whole number"
        )
    if not isinstance(retries, int) or retries < 0:
        raise UserError(f"hydra.launcher.retries={retries} will not do: it must be 0 or more")


def launch(
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    config: DictConfig,
    context: HydraContext,
    address: str | None,
    num_cpus: float,
    num_gpus: float | str,
    retries: int,
    init: Mapping[str, Any],
    remote: Mapping[str, Any],
) -> list[JobReturn]:
    """Run what has not finished; the arguments are those of the launcher and of its config.

    Raises:
        UserError: When a run's config will not do, or there is no Ray at the address.
        Interrupted: When a signal told this process to stop; the runs have been told too.
    """
    sweep = Sweep(job_overrides, first, config=config, loader=context.config_loader)
    if not sweep.missing():
        with sweep.shown("nothing to run"):
            return sweep.returns()
    with interrupt_on_signals(), _connected(address, init):
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = min(1.0, there.get("GPU", 0.0)) if num_gpus == "auto" else float(num_gpus)
        slots = _slots(there, num_cpus, gpus)
        options = {"num_cpus": num_cpus, "num_gpus": gpus, "max_calls": 1, "max_retries": retries, **remote}
        with sweep.shown(f"{slots} at a time on Ray, {num_cpus:g} CPU and {gpus:g} GPU each") as screen:
            _run(sweep, context, options, slots, screen)
    return sweep.returns()


def _slots(there: Mapping[str, float], num_cpus: float, num_gpus: float) -> int:
    """Return how many runs Ray will run at a time.

    Raises:
        UserError: When not even one fits; Ray would wait for ever.
    """
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    for name, amount in wanted.items():
        if amount > there.get(name, 0):
            raise UserError(
                f"hydra.launcher.num_{name.lower()}s={amount:g}: Ray has {there.get(name, 0):g} {name}s; "
                "ask for fewer, or set hydra.launcher.address to a larger cluster"
            )
    return min(int(there[name] / amount + 1e-9) for name, amount in wanted.items() if amount)


def _run(sweep: Sweep, context: HydraContext, options: Mapping[str, Any], slots: int, screen: SweepScreen) -> None:
    """Give all runs to Ray, and take note of each that has ended."""
    threads = max(1, int(options["num_cpus"]))
    sharing = slots if not options["num_gpus"] else max(1, int(1 / options["num_gpus"] + 1e-9))
    environment = {"CONVOLT_THREADS": str(threads), "CONVOLT_SLOTS": str(sharing)}
    task = RemoteTask(Path.cwd(), environment)
    running: dict[Any, Run] = {}
    for each in sweep.missing():
        with read_write(each.hydra.hydra.sweep):
            each.hydra.hydra.sweep.subdir = each.run.name  # so that the worker has nothing to resolve
        state = Singleton.get_state()
        reference = launch_job_on_ray(context, OmegaConf.create(dict(options)), each.hydra, task, state)
        running[reference] = each.run
    with defer_signals() as see_signals:  # Ray's own code turns an exception from within it into a SystemError
        try:
            while running:
                ended, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
                for reference in ended:
                    _note(sweep, reference, running.pop(reference), screen)
                sweep.look(list(running.values()), screen)
                see_signals()
        except Interrupted:
            for reference in running:
                ray.cancel(reference, force=False)
            ray.wait(list(running), num_returns=len(running), timeout=_STOP_SECONDS)
            raise


def _note(sweep: Sweep, reference: Any, run: Run, screen: SweepScreen) -> None:
    try:
        done: JobReturn = ray.get(reference)
    except RayError as error:
        killed = "its process was killed (out of memory?), or its machine was lost"
        name = type(error).__name__
        sweep.ended(run, None, killed if name in ("WorkerCrashedError", "NodeDiedError") else f"Ray: {name}", screen)
        return
    value = done._return_value
    sweep.ended(run, value if isinstance(value, int) else None, f"{type(value).__name__}: {value}", screen)


@contextmanager
def _connected(address: str | None, init: Mapping[str, Any]) -> Iterator[None]:
    """Connect to a cluster, or start a Ray of this process's own; a Ray that this process has already is used."""
    if ray.is_initialized():
        yield
        return
    usual: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    usual |= {"address": address} if address else _LOCAL
    try:
        start_ray(OmegaConf.create(usual | dict(init)))
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"hydra.launcher.address={address}: Ray cannot be reached or started ({line})") from error
    try:
        yield
    finally:
        ray.shutdown()
