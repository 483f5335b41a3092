"""A sweep from start to end: its runs are planned, checked, recorded, launched and counted, round by round."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from convolt.config.check import check_judged_metric, may_validate
from convolt.config.overrides import format_override, typed_keys
from convolt.config.settings import Settings
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.runs.prune import Keep
from convolt.sweeps import study as studies
from convolt.sweeps.candidate_runs import refuse_beside_candidates
from convolt.sweeps.dry_run import seeds_within, show_plain_sweep, show_study
from convolt.sweeps.have import BundledRuns
from convolt.sweeps.jobs import compose_job
from convolt.sweeps.rounds import StudyRounds, hydra_overrides
from convolt.sweeps.schedule import StudyRun
from convolt.sweeps.screen import show_failures
from convolt.sweeps.study import PlannedRun
from convolt.sweeps.study_plan import StudyPlan, plan_search
from convolt.system.files import expand_home, read_json, remove_empty, write_text
from convolt.system.os_errors import explain_os_error
from convolt.system.signals import Interrupted
from convolt.system.terminal import ignore_output_errors

if TYPE_CHECKING:
    from hydra_plugins.convolt_sweeps.study_sweeper import StudySweeperConf

HashSettings = Callable[[Sequence[str]], str]
"""Composes a run from its overrides, and returns a hash of what can change a number."""

DEFAULT_FOLDER = "outputs/sweeps/${now:"
"""How the folder of a sweep begins in conf/train.yaml; a study replaces it by one of its name."""


def sweep(
    arguments: Sequence[str], options: "StudySweeperConf", config: DictConfig, loader: ConfigLoader, launcher: Launcher
) -> list[JobReturn]:
    """Run a study, a search or a plain sweep.

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
    if options.keep not in get_args(Keep):
        raise UserError(f"hydra.sweeper.keep={options.keep}: it must be all, best or none")
    have = BundledRuns(_plain(options.have) if options.study else None)
    plan, plain = _plan_study_or_search(arguments, options, config, loader), []
    if plan is None:
        plain = studies.plan_plain_sweep(arguments, loader)
        combinations = (tuple(text for text in run.overrides if not text.startswith("seed=")) for run in plain)
        for overrides in dict.fromkeys(combinations):
            compose_job(loader, config, overrides)
    folder = Path(str(config.hydra.sweep.dir))
    rounds = None
    if plan:
        rows = _rows(options, plan)
        rounds = StudyRounds(
            plan,
            folder,
            rows=rows,
            keep=options.keep,
            config=config,
            loader=loader,
            have=have,
            candidates=options.candidates,
        )
    if options.dry_run:
        if rounds:
            show_study(rounds, measure=options.measure)
        else:
            jobs = [compose_job(loader, config, hydra_overrides(run)) for run in plain]
            show_plain_sweep(folder, plain, jobs, measure=options.measure)
        return []
    _begin(folder, config, rounds)

    def launch(runs: Sequence[PlannedRun], first: int) -> list[JobReturn]:
        return _launch(runs, first, folder, launcher, options.max_batch_size, plan)

    with ignore_output_errors():
        returns = rounds.launch(launch) if rounds else launch(plain, 0)
    failed = [each for each in returns if each.status != JobStatus.COMPLETED]
    show_failures(folder, failed, len(returns))
    status = 0
    if options.report:
        from convolt.reports.report import main as write_report  # takes a second

        status = write_report([str(folder)])
    print(folder, flush=True)
    if failed or status:
        sys.exit(1 if failed else status)
    return returns


def _plan_study_or_search(
    arguments: Sequence[str], options: "StudySweeperConf", config: DictConfig, loader: ConfigLoader
) -> StudyPlan | None:
    """Plan a study, or the search of intervals; None for a plain sweep."""
    command_line = studies.parse_command_line(arguments, loader)
    interval = next(iter(command_line.intervals), None)
    if options.study:
        if options.trials is not None:
            raise UserError(
                f"hydra.sweeper.trials={options.trials} is for a search: a study's trials are in hydra.sweeper.tune"
            )
        if interval:
            raise UserError(
                f"{interval}=interval(...): what a study tunes is in hydra.sweeper.tune; see docs/studies.md"
            )
        return _plan_study(command_line, options, config, loader)
    for key, default in {
        "tune": "page",
        "settle": "page",
        "rows": None,
        "max_hours": None,
        "have": None,
        "candidates": False,
    }.items():
        if (value := getattr(options, key)) != default:
            shown = str(value).lower() if value is True else value
            raise UserError(f"hydra.sweeper.{key}={shown} is for a study: add study=NAME, or leave it out")
    if options.trials is None and interval:
        raise UserError(
            f"{interval}=interval(...): set hydra.sweeper.trials=16 to search it, or write out the values to sweep over"
        )
    if options.trials is None:
        return None
    if interval is None:
        raise UserError("hydra.sweeper.trials is for a search: write KEY=interval(LOW,HIGH)")
    plan = plan_search(command_line, options.trials)
    for run in plan.schedule.runs(lambda _: None):
        job = compose_job(loader, config, hydra_overrides(plan.run(run)))
        if not may_validate(Settings.of(job.cfg)):
            raise UserError("a search needs validation images, and data.val_fraction=0 leaves none: hold some out")
    return plan


def _plan_study(
    command_line: studies.CommandLine, options: "StudySweeperConf", config: DictConfig, loader: ConfigLoader
) -> StudyPlan:
    """Plan a study, and name its folder for it unless one was typed."""
    name = str(config.hydra.runtime.choices.study)
    study = studies.read_study(_plain(options.study), name)
    study, blocks = studies.choose_blocks(study, _plain(options.tune), _plain(options.settle))
    if options.candidates:
        refuse_beside_candidates(study, name, command_line)
    elif study.tune and options.tune != "page":  # the page's candidates are of untuned settings
        study = study.model_copy(update={"candidates": None})
    typed = config.hydra.overrides.hydra
    default = str(config.hydra.sweep._get_node("dir")._value()).startswith(DEFAULT_FOLDER)  # no page chooses another
    if default and "hydra.sweep.dir" not in typed_keys(typed):
        with open_dict(config):
            config.hydra.sweep.dir = f"outputs/studies/{studies.folder_name(name, command_line, blocks)}"
            typed.append(format_override("hydra.sweep.dir", config.hydra.sweep.dir))
    folder = Path(str(config.hydra.sweep.dir))
    if options.max_hours is not None:
        study = _with_seeds_within(options, study, name, command_line, folder, config, loader)
    plan = StudyPlan.of(study, name, command_line)
    plan = replace(plan, schedule=replace(plan.schedule, critical_values=_recorded_critical_values(folder, plan)))

    def hash_settings(overrides: Sequence[str]) -> str:
        cfg = compose_job(loader, config, overrides).cfg
        if study.settle:
            check_judged_metric(Settings.of(cfg), "settle.metric", study.settle.metric)
        if study.tune and not may_validate(Settings.of(cfg)):
            raise UserError(
                "tuning needs validation images, and data.val_fraction=0 leaves none: set hydra.sweeper.tune=null"
            )
        cfg.choices = {}
        return config_hash(cfg)

    _rows(options, plan)  # a row that there is not is told before every run is composed
    _check_rows(plan, hash_settings)
    if options.candidates:
        _check_candidates(plan, hash_settings)
    return plan


def _with_seeds_within(
    options: "StudySweeperConf",
    study: studies.Study,
    name: str,
    command_line: studies.CommandLine,
    folder: Path,
    config: DictConfig,
    loader: ConfigLoader,
) -> studies.Study:
    """Return the study with as many seeds as `max_hours` allows: chosen before its first run, and recorded then."""
    assert options.max_hours is not None
    if options.max_hours <= 0:
        raise UserError(f"hydra.sweeper.max_hours={options.max_hours:g}: it must be more than 0")
    if options.candidates:
        raise UserError(
            "hydra.sweeper.max_hours chooses the number of seeds, and candidates run with one: leave it out"
        )
    if study.settle or command_line.seeds:
        raise UserError("hydra.sweeper.max_hours chooses the number of seeds: leave out seed and settle, or max_hours")
    record = read_json(folder / "study.json") or {}
    runs = [folder / run["dir"] for row in (record.get("rows") or {}).values() for run in row["runs"]]
    began = "candidates" not in record or any(run.exists() for run in runs)  # candidates alone have begun nothing
    if (recorded := record.get("seeds")) and began:
        return study.model_copy(update={"seeds": recorded})
    one = StudyPlan.of(study.model_copy(update={"seeds": study.seeds[:1]}), name, command_line)
    rounds = StudyRounds(one, folder, rows=None, keep="all", config=config, loader=loader)
    seeds = seeds_within(rounds, options.max_hours, measure=options.measure)
    return study.model_copy(update={"seeds": seeds})


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _rows(options: "StudySweeperConf", plan: StudyPlan) -> Sequence[str] | None:
    """Return the rows whose runs are launched; None: all."""
    if options.rows is None:
        return None
    rows = [options.rows] if isinstance(options.rows, str) else list(options.rows)
    plan.check_rows(rows)
    return rows


def _recorded_critical_values(folder: Path, plan: StudyPlan) -> tuple[float, ...] | None:
    """Return the critical values that a former start of a settling study has recorded, if they are of these looks."""
    settle, settling = plan.study.settle, (read_json(folder / "study.json") or {}).get("settling")
    if settle is None or not isinstance(settling, dict):
        return None
    now = {"looks": settle.looks, "error": settle.error, "comparisons": plan.schedule.comparisons}
    same = all(settling.get(key) == value for key, value in now.items())
    return tuple(settling["critical_values"]) if same else None


def _check_rows(plan: StudyPlan, hash_settings: HashSettings) -> None:
    """Compose each row once, with each of the swept values and each trial; check that rows stay different runs."""
    rows: dict[tuple[str, tuple[str, ...]], str] = {}
    schedule, name = plan.schedule, plan.name

    def compose(run: StudyRun) -> str:
        try:
            return hash_settings(plan.run(run).overrides)
        except UserError as error:
            raise UserError(f"study {name}, row '{run.row}': {error}") from error.__cause__

    for row, swept in schedule.cells:
        settings_hash = compose(StudyRun("untuned", row, swept, schedule.all_seeds()[0]))
        other = rows.setdefault((settings_hash, swept), row)
        if other != row and _rows_differ(plan, {other, row}, hash_settings):
            typed = [*plan.command_line.fixed.values(), *swept]
            raise UserError(
                f"{' '.join(typed)}: rows '{other}' and '{row}' of study {name} "
                "would be the same run under two names; leave out what the rows differ in"
            )
    for run in schedule.trial_corners():
        compose(run)


def _check_candidates(plan: StudyPlan, hash_settings: HashSettings) -> None:
    """Compose every candidate's runs; check that no two are the same."""
    seen: dict[tuple[str, str], str] = {}
    for run in plan.candidate_runs():
        where = f"study {plan.name}, candidate '{run.candidate}'"
        try:
            settings_hash = hash_settings(plan.run(run).overrides)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error.__cause__
        other = seen.setdefault((run.row, settings_hash), run.candidate)
        if other != run.candidate:
            raise UserError(f"{where}: it has the settings of '{other}'; leave one of them out")


def _rows_differ(plan: StudyPlan, rows: set[str], hash_settings: HashSettings) -> bool:
    """Return whether two rows are different runs on the study's page."""
    page = StudyPlan.of(plan.study.model_copy(update={"tune": None, "settle": None}), plan.name, studies.CommandLine())
    runs = [StudyRun("run", row, (), page.schedule.seeds[0]) for row in rows]
    return len({hash_settings(page.run(run).overrides) for run in runs}) > 1


def _begin(folder: Path, config: DictConfig, rounds: StudyRounds | None) -> None:
    """Write what is to run, before anything does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if rounds is None:
            write_text(folder / "multirun.yaml", OmegaConf.to_yaml(config))
            return
        before = read_json(folder / "study.json")
        rounds.take_bundled()
        rounds.read_finished()
        rounds.write_record()
        if changed := changed_rows(before, read_json(folder / "study.json") or {}):
            print(f"the study has changed since it last ran ({', '.join(changed)}): what ran otherwise moves aside")
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


def _launch(
    runs: Sequence[PlannedRun],
    number: int,
    folder: Path,
    launcher: Launcher,
    max_batch_size: int | None,
    plan: StudyPlan | None,
) -> list[JobReturn]:
    """Launch runs, all at once or in batches; the first has a number in the whole sweep."""
    returns: list[JobReturn] = []
    overrides = [hydra_overrides(run) for run in runs]
    size = max_batch_size or len(overrides)
    try:
        for first in range(0, len(overrides), size):
            returns += launcher.launch(overrides[first : first + size], initial_job_idx=number + first)
    except UserError:
        if plan is None and not returns:
            (folder / "multirun.yaml").unlink()
            remove_empty(folder)
        raise
    except Interrupted:
        if plan is None or plan.is_search:  # a study finds its folder by its name
            print(f"the same command with hydra.sweep.dir={folder} resumes this sweep", flush=True)
        raise
    return returns
