"""The sweeper of studies and of plain sweeps."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StudySweeperConf:
    """The options below `hydra.sweeper`.

    Attributes:
        study: A study's page (conf/study); empty for a plain sweep.
        rows: Launch these rows of the study alone; null: all. The others count as missing.
        dry_run: List what would run, and how far it is, and launch nothing.
        report: Write the report at the end, as report.py does, also when some runs failed.
        max_batch_size: Give the launcher so many runs at a time; null: all.
        tune: How a study tunes its rows: page (as its page says), null (not at all), or a block of its own.
        settle: When a study has seeds enough: page, null (the page's seeds), true (the default looks), or a block.
        trials: Of a search, a sweep over KEY=interval(LOW,HIGH).
        measure: In a dry run, measure a second of training steps of each row that has no finished run.
        max_hours: Choose the number of a study's seeds, before its first run, by what so many hours allow.
        have: Take the finished runs of the same settings from this bundle, or these; see docs/studies.md.
        keep: Which checkpoints of finished runs stay: all, best (the tested one) or none; trials and candidates
            keep none.
        candidates: Run the settings that a published table leaves open, and not the table; see docs/studies.md.
    """

    _target_: str = "hydra_plugins.convolt_sweeps.study_sweeper.StudySweeper"
    study: dict[str, Any] = field(default_factory=dict)
    rows: Any = None
    dry_run: bool = False
    report: bool = False
    max_batch_size: int | None = None
    tune: Any = "page"
    settle: Any = "page"
    trials: int | None = None
    keep: Any = "all"
    measure: bool = False
    max_hours: float | None = None
    have: Any = None
    candidates: bool = False


class StudySweeper(Sweeper):
    """Turns a study's rows, its seeds and the swept overrides into runs, and checks all of them before any starts.

    Without a study it multiplies the swept overrides, as Hydra's own sweeper does.

    Args:
        options: As in `StudySweeperConf`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = StudySweeperConf(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Instantiate the launcher."""
        self.loader = hydra_context.config_loader
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run what the command line says.

        Args:
            arguments: The overrides that were typed.

        Raises:
            UserError: When something is wrong with the study or with any of its runs; nothing was launched then.
            SystemExit: With status 1, when a run has not finished.
        """
        from convolt.sweeps.sweep import sweep

        assert self.config is not None
        assert self.launcher is not None
        return sweep(arguments, self.options, self.config, self.loader, self.launcher)


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperConf, provider="convolt")
