"""A sweep from start to end: its runs are planned, checked, recorded, launched and counted."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from convolt.config.overrides import format_override, typed_keys
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.sweeps import study as studies
from convolt.sweeps.jobs import compose_job
from convolt.sweeps.screen import show_failures, show_plan
from convolt.system.files import expand_home, read_json, remove_empty, write_json, write_text
from convolt.system.os_errors import explain_os_error
from convolt.system.signals import Interrupted
from convolt.system.terminal import ignore_output_errors

if TYPE_CHECKING:
    from hydra_plugins.convolt_sweeps.study_sweeper import StudySweeperConf

HashSettings = Callable[[Sequence[str]], str]
"""Composes a run from its overrides, and returns a hash of what can change a number."""

DEFAULT_FOLDER = "outputs/sweeps/${now:"
"""How the folder of a sweep begins in conf/train.yaml; a study replaces it by one of its name."""


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do.

    Attributes:
        runs: Its runs.
        title: The study's; empty in a plain sweep.
        record: The content of the study's `study.json`; None in a plain sweep.
    """

    runs: Sequence[studies.PlannedRun]
    title: str = ""
    record: dict[str, Any] | None = None

    @property
    def overrides(self) -> list[list[str]]:
        """What Hydra is to compose each run from."""
        return [
            [*run.overrides, *([] if run.folder is None else [format_override("hydra.sweep.subdir", run.folder)])]
            for run in self.runs
        ]


def sweep(
    arguments: Sequence[str], options: "StudySweeperConf", config: DictConfig, loader: ConfigLoader, launcher: Launcher
) -> list[JobReturn]:
    """Run a study or a plain sweep.

    Args:
        arguments: The overrides that were typed.
        options: The sweeper's.
        config: The sweep's config.
        loader: Hydra's.
        launcher: Runs the runs.

    Returns:
        What the launcher returned for each run.

    Raises:
        UserError: When something is wrong with the study or with one of its runs.
        SystemExit: With status 1, when a run has not finished; with the report's, when it could not be written.
    """
    if (typed := str(config.hydra.sweep.dir)).startswith("~"):  # of a page: what is typed was expanded before
        with open_dict(config):
            config.hydra.sweep.dir = expand_home(typed)
    if options.study:
        plan = _plan_study(arguments, options, config, loader)
    else:
        plan = _plan_plain_sweep(arguments, config, loader)
    folder = Path(str(config.hydra.sweep.dir))
    if options.dry_run:
        show_plan(plan.title, folder, plan.runs, [compose_job(loader, config, each) for each in plan.overrides])
        return []
    _write_plan(plan, folder, config)
    with ignore_output_errors():
        returns = _launch(plan, folder, launcher, options.max_batch_size)
    failed = [each for each in returns if each.status != JobStatus.COMPLETED]
    show_failures(folder, failed, len(plan.runs))
    status = 0
    if options.report:
        from convolt.reports.report import main as write_report  # takes a second

        status = write_report([str(folder)])
    print(folder, flush=True)
    if failed or status:
        sys.exit(1 if failed else status)
    return returns


def _plan_study(
    arguments: Sequence[str], options: "StudySweeperConf", config: DictConfig, loader: ConfigLoader
) -> Plan:
    """Plan a study, and name its folder for it unless one was typed."""
    name = str(config.hydra.runtime.choices.study)
    study = studies.read_study(OmegaConf.to_container(options.study), name)  # type: ignore[arg-type]
    command_line = studies.parse_command_line(arguments, loader)
    runs = studies.plan_study(study, name, command_line)
    typed = config.hydra.overrides.hydra
    default = str(config.hydra.sweep._get_node("dir")._value()).startswith(DEFAULT_FOLDER)  # no page chooses another
    if default and "hydra.sweep.dir" not in typed_keys(typed):
        with open_dict(config):
            config.hydra.sweep.dir = f"outputs/studies/{studies.folder_name(name, command_line)}"
            typed.append(format_override("hydra.sweep.dir", config.hydra.sweep.dir))

    def hash_settings(overrides: Sequence[str]) -> str:
        cfg = compose_job(loader, config, overrides).cfg
        cfg.choices = {}
        return config_hash(cfg)

    _check_rows(runs, study, name, command_line, hash_settings)
    title = f"{study.title}: {study.question}" if study.question else study.title
    record = studies.study_record(study, name, command_line, runs)
    if options.rows is not None:
        rows = [options.rows] if isinstance(options.rows, str) else options.rows
        runs = studies.select_rows(runs, rows, name)
    return Plan(runs, title, record)


def _plan_plain_sweep(arguments: Sequence[str], config: DictConfig, loader: ConfigLoader) -> Plan:
    """Plan a sweep without a study, and compose each combination once, seeds apart."""
    runs = studies.plan_plain_sweep(arguments, loader)
    combinations = (tuple(text for text in run.overrides if not text.startswith("seed=")) for run in runs)
    for overrides in dict.fromkeys(combinations):
        compose_job(loader, config, overrides)
    return Plan(runs)


def _check_rows(
    runs: Sequence[studies.PlannedRun],
    study: studies.Study,
    name: str,
    command_line: studies.CommandLine,
    hash_settings: HashSettings,
) -> None:
    """Compose each row once, with each of the swept values; check that the command line leaves the rows different."""
    rows: dict[tuple[str, tuple[str, ...]], str] = {}
    for run in (run for run in runs if run.seed == runs[0].seed):
        try:
            settings_hash = hash_settings(run.overrides)
        except UserError as error:
            raise UserError(f"study {name}, row '{run.row}': {error}") from error.__cause__
        other = rows.setdefault((settings_hash, run.swept), run.row)
        if other != run.row and _rows_differ(study, name, {other, run.row}, hash_settings):
            typed = [*command_line.fixed.values(), *run.swept]
            raise UserError(
                f"{' '.join(typed)}: rows '{other}' and '{run.row}' of study {name} "
                "would be the same run under two names; leave out what the rows differ in"
            )


def _rows_differ(study: studies.Study, name: str, rows: set[str], hash_settings: HashSettings) -> bool:
    """Return whether two rows are different runs on the study's page."""
    runs = [run for run in studies.plan_study(study, name, studies.CommandLine()) if run.row in rows]
    return len({hash_settings(run.overrides) for run in runs[: len(rows)]}) > 1


def _write_plan(plan: Plan, folder: Path, config: DictConfig) -> None:
    """Write what is to run, before anything does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if plan.record:
            changed = changed_rows(read_json(folder / "study.json"), plan.record)
            if changed:
                print(f"the study has changed since it last ran ({', '.join(changed)}): what ran otherwise moves aside")
            write_json(folder / "study.json", plan.record)
        else:
            write_text(folder / "multirun.yaml", OmegaConf.to_yaml(config))
    except OSError as error:
        raise UserError(f"{explain_os_error(error, folder)}, or choose another hydra.sweep.dir") from None


def changed_rows(before: Any, now: dict[str, Any]) -> list[str]:
    """Return the rows of a study that have changed since it last ran: edited, new or removed."""
    if not isinstance(before, dict) or not isinstance(before.get("rows"), dict):
        return []
    rows, shared = (before["rows"], now["rows"]), before.get("base") == now["base"]
    overrides = [{name: row.get("overrides") for name, row in each.items()} for each in rows]
    names = dict.fromkeys([*overrides[1], *overrides[0]])
    return [name for name in names if not shared or overrides[0].get(name) != overrides[1].get(name)]


def _launch(plan: Plan, folder: Path, launcher: Launcher, max_batch_size: int | None) -> list[JobReturn]:
    """Launch the runs, all at once or in batches."""
    returns: list[JobReturn] = []
    overrides = plan.overrides
    size = max_batch_size or len(overrides)
    try:
        for first in range(0, len(overrides), size):
            returns += launcher.launch(overrides[first : first + size], initial_job_idx=first)
    except UserError:
        if not plan.record and not returns:
            (folder / "multirun.yaml").unlink()
            remove_empty(folder)
        raise
    except Interrupted:
        if not plan.record:
            print(f"the same command with hydra.sweep.dir={folder} resumes this sweep", flush=True)
        raise
    return returns
