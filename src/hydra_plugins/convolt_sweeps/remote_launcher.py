"""The launcher of a sweep on Ray or SLURM."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from convolt.errors import UserError

_TARGET = "hydra_plugins.convolt_sweeps.remote_launcher.RemoteLauncher"


@dataclass
class RayLauncherConf:
    """The options below `hydra.launcher` with hydra/launcher=ray: each run is a task of Ray.

    Attributes:
        address: Of a running cluster: auto, HOST:PORT or ray://HOST:PORT. null: a Ray on this machine, for this sweep.
        num_cpus: CPU cores of a run, and its threads.
        num_gpus: GPUs of a run; with 0.5 two share one. auto: 1 where Ray has GPUs, else 0.
        retries: How often a run whose process was killed is started again; it resumes after its last completed epoch.
        init: More for `ray.init`.
        remote: More for each task, such as its custom resources.
    """

    _target_: str = _TARGET
    engine: str = "ray"
    address: str | None = None
    num_cpus: float = 1
    num_gpus: Any = "auto"
    retries: int = 0
    init: dict[str, Any] = field(default_factory=dict)
    remote: dict[str, Any] = field(default_factory=dict)


@dataclass
class SlurmLauncherConf:
    """The options below `hydra.launcher` with hydra/launcher=slurm: the runs are one array of jobs.

    Attributes:
        cluster: slurm; or local or debug, submitit's executors on this machine, to try things out.
        timeout_min: Time limit of a run in minutes. It stops before that, is requeued, and resumes after its
            last completed epoch.
        max_num_timeout: How often it is requeued at most.
        signal_delay_s: Seconds before the limit at which it is asked to stop.
        gpus_per_node: GPUs of a run.
        cpus_per_task: CPU cores of a run, and its threads.
        mem_gb: Memory of a run.
        array_parallelism: Runs at a time at most.
        partition: This and the following as sbatch has them.
        account: As sbatch has it.
        qos: As sbatch has it.
        constraint: As sbatch has it.
        exclude: As sbatch has it.
        gres: As sbatch has it.
        setup: Commands before each run, such as "module load cuda".
        additional_parameters: Any other option of sbatch.
    """

    _target_: str = _TARGET
    engine: str = "slurm"
    cluster: str = "slurm"
    timeout_min: int = 240
    max_num_timeout: int = 100
    signal_delay_s: int = 120
    gpus_per_node: int = 1
    cpus_per_task: int = 4
    mem_gb: float | None = None
    array_parallelism: int = 256
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    setup: list[str] | None = None
    additional_parameters: dict[str, Any] = field(default_factory=lambda: {"requeue": True})


class RemoteLauncher(Launcher):
    """Gives each run to an engine that spans machines, by the functions of Hydra's own launcher for that engine.

    Args:
        engine: ray or slurm.
        options: As in `RayLauncherConf` or `SlurmLauncherConf`.
    """

    def __init__(self, engine: str, **options: Any) -> None:
        super().__init__()
        self.name = engine
        self.options = {"ray": RayLauncherConf, "slurm": SlurmLauncherConf}[engine](**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Import the engine and check the options; a worker calls Convolt's own task and not Hydra's."""
        try:
            self.engine = import_module(f"convolt.sweeps.{self.name}")
        except ImportError as error:
            raise UserError(
                f"hydra/launcher={self.name} needs packages that are missing ({error}): "
                f"pip install 'convolt[{self.name}]'"
            ) from error
        self.engine.check_options(self.options)
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all that has not finished yet.

        Args:
            job_overrides: The overrides of each run.
            initial_job_idx: The number of the first one.

        Returns:
            For each run its config, and its result or the error that says why there is none.
        """
        from convolt.sweeps.jobs import compose_jobs
        from convolt.sweeps.remote import run

        jobs = compose_jobs(self.context.config_loader, self.config, job_overrides, initial_job_idx)
        run(self.engine, jobs, self.config, self.context, self.options)
        return [job.to_job_return() for job in jobs]


with suppress(ImportError):  # Hydra's own launcher takes the same name, and is to take it first
    import_module("hydra_plugins.hydra_ray_launcher._config")
ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="convolt")
ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="convolt")
