"""The launcher of a sweep on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LocalLauncherConf:
    """The options below `hydra.launcher`.

    Attributes:
        n_jobs: Runs at a time. auto: jobs_per_gpu on each GPU; without a GPU one on each core that this process may
            use, or fewer with several cores each where the sweep has fewer runs than there are cores.
        jobs_per_gpu: Runs that share a GPU. auto: as many small ones as fill it, by `convolt.sweeps.gpu_share`.
        mps: Let kernels of runs that share a GPU run at the same time, by NVIDIA's MPS where it can be started. auto:
            with jobs_per_gpu=auto.
        on_error: When a run has failed, continue with the others, or stop: start no more, and let those end that run.
        retries: How often a failed run is tried again; it resumes after its last completed epoch.
        timeout: Minutes that one run may take; then it is stopped and counts as failed. null: any time.
    """

    _target_: str = "hydra_plugins.convolt_sweeps.local_launcher.LocalLauncher"
    n_jobs: Any = "auto"
    jobs_per_gpu: Any = 1
    mps: Any = "auto"
    on_error: str = "continue"
    retries: int = 0
    timeout: float | None = None


class LocalLauncher(Launcher):
    """Gives each run a fresh process of its own, and as many of them at a time as there are slots.

    Args:
        options: As in `LocalLauncherConf`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = LocalLauncherConf(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the options; a run's process calls Convolt's own task and not Hydra's."""
        from convolt.sweeps.local import check_options

        check_options(self.options)
        self.loader = hydra_context.config_loader
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
        from convolt.sweeps.local import run

        jobs = compose_jobs(self.loader, self.config, job_overrides, initial_job_idx)
        run(jobs, self.options)
        return [job.to_job_return() for job in jobs]


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="convolt")
