"""A sweep on Ray: each run is a task, and Ray finds the machine, the cores and the GPU for it.

The tasks are submitted as the Hydra Ray launcher does; that launcher itself waits for them one after the other and ends
the whole sweep with the first whose process was killed.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ray
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray, start_ray
from omegaconf import DictConfig, OmegaConf, read_write
from ray.exceptions import RayError

from convolt.errors import UserError
from convolt.sweeps.jobs import check_option
from convolt.sweeps.remote import POLL_SECONDS, STOP_SECONDS, RemoteSweep, RemoteTask
from convolt.system.signals import Interrupted, collect_signals

if TYPE_CHECKING:
    from hydra_plugins.convolt_sweeps.remote_launcher import RayLauncherConf

_LOCAL = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}


def check_options(options: "RayLauncherConf") -> None:
    """Check the launcher's options.

    Raises:
        UserError: When one is not accepted.
    """
    num_cpus, num_gpus, retries = options.num_cpus, options.num_gpus, options.retries
    check_option(options, "num_cpus", isinstance(num_cpus, int | float) and num_cpus > 0, "it must be more than 0")
    is_share = not isinstance(num_gpus, str) and num_gpus >= 0 and (num_gpus <= 1 or float(num_gpus).is_integer())
    accepted = num_gpus == "auto" or is_share
    check_option(options, "num_gpus", accepted, "it must be auto, a part of 1, or a whole number")
    check_option(options, "retries", isinstance(retries, int) and retries >= 0, "it must be 0 or more")


def run(sweep: RemoteSweep, config: DictConfig, context: HydraContext, options: "RayLauncherConf") -> None:
    """Run what is waiting.

    Raises:
        UserError: When there is no Ray at the address, or none that has what a run needs.
        Interrupted: When a signal stopped this process; the runs have been asked to stop.
    """
    with _connect(options):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus, auto = options.num_cpus, options.num_gpus == "auto"
        gpus = min(1.0, resources.get("GPU", 0.0)) if auto else float(options.num_gpus)
        slots = _count_slots(resources, cpus, gpus)
        remote = {"num_cpus": cpus, "num_gpus": gpus, "max_calls": 1, "max_retries": options.retries, **options.remote}
        with sweep.show(f"{slots} at a time on Ray, {cpus:g} CPU and {gpus:g} GPU each"):
            _run_tasks(sweep, context, remote, slots)


def _count_slots(resources: Mapping[str, float], num_cpus: float, num_gpus: float) -> int:
    """Return how many runs Ray can run at a time.

    Raises:
        UserError: When not even one fits; Ray would wait forever.
    """
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    for name, amount in wanted.items():
        if amount > resources.get(name, 0):
            raise UserError(
                f"hydra.launcher.num_{name.lower()}s={amount:g}: Ray has {resources.get(name, 0):g} {name}s; "
                "ask for fewer, or set hydra.launcher.address to a larger cluster"
            )
    return min(int(resources[name] / amount + 1e-9) for name, amount in wanted.items() if amount)


def _run_tasks(sweep: RemoteSweep, context: HydraContext, options: Mapping[str, Any], slots: int) -> None:
    """Submit all runs, and set the state of each when it has ended."""
    runs_per_machine = slots if not options["num_gpus"] else max(1, int(1 / options["num_gpus"] + 1e-9))
    task = RemoteTask(runs_per_machine, max(1, int(options["num_cpus"])))
    running = {}
    for job in sweep.waiting:
        with read_write(job.hydra_cfg.hydra.sweep):
            job.hydra_cfg.hydra.sweep.subdir = job.name  # so that the worker has nothing to resolve
        state = Singleton.get_state()
        running[launch_job_on_ray(context, OmegaConf.create(dict(options)), job.hydra_cfg, task, state)] = job
    with collect_signals() as received:  # Ray's own code turns an exception from within it into a SystemError
        while running:
            ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for reference in ended:
                sweep.record_end(running.pop(reference), _fetch_answer(reference))
            sweep.update_states()
            if received:
                for reference in running:
                    ray.cancel(reference, force=False)
                ray.wait(list(running), num_returns=len(running), timeout=STOP_SECONDS)
                raise Interrupted(received[0])


def _fetch_answer(reference: Any) -> Any:
    """Return the exit status of a task that has ended, or why there is none."""
    try:
        done: JobReturn = ray.get(reference)
    except RayError as error:
        name = type(error).__name__
        killed = "its process was killed (out of memory?), or its machine was lost"
        return killed if name in ("WorkerCrashedError", "NodeDiedError") else f"Ray: {name}"
    return done._return_value


@contextlib.contextmanager
def _connect(options: "RayLauncherConf") -> Iterator[None]:
    """Connect to a cluster, or start a Ray of this process's own; a Ray that this process has already is used."""
    if ray.is_initialized():
        yield
        return
    defaults: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    defaults |= {"address": options.address} if options.address else _LOCAL
    try:
        start_ray(OmegaConf.create(defaults | dict(options.init)))
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"hydra.launcher.address={options.address}: Ray cannot be reached or started ({line})"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
