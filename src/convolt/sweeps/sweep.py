"""The story of a sweep: its runs are made, checked, written down, launched and counted."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from convolt.config.overrides import typed_keys
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.sweeps import study as studies
from convolt.sweeps.jobs import compose_job
from convolt.sweeps.screen import show_failures, show_plan
from convolt.system.files import expand_home, read_json, remove_empty, write_json, write_text
from convolt.system.signals import Interrupted
from convolt.system.terminal import dispensable_output

USUAL_FOLDER = "outputs/sweeps/${now:"
"""How the folder of a sweep begins in conf/train.yaml; a study has one of its name in its place."""


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do.

    Attributes:
        jobs: Its runs.
        title: The study's; empty in a plain sweep.
        document: The content of the study's `study.json`; None in a plain sweep.
    """

    jobs: Sequence[studies.Job]
    title: str = ""
    document: dict[str, Any] | None = None

    @property
    def overrides(self) -> list[list[str]]:
        """What Hydra is to compose each run from."""
        return [
            [*job.overrides, *([] if job.folder is None else [f"hydra.sweep.subdir={_quoted(job.folder)}"])]
            for job in self.jobs
        ]


def sweep(
    arguments: Sequence[str],
    *,
    study: DictConfig,
    config: DictConfig,
    loader: ConfigLoader,
    launcher: Launcher,
    rows: Sequence[str] | str | None,
    dry_run: bool,
    report: bool,
    max_batch_size: int | None,
) -> list[JobReturn]:
    """Run a study or a plain sweep.

    Args:
        arguments: The overrides that were typed.
        study: The study's page; empty for a plain sweep.
        config: The sweep's config.
        loader: Hydra's.
        launcher: What runs the runs.
        rows: Launch these rows of the study alone; None: all.
        dry_run: List what would run, and launch nothing.
        report: Write the report at the end.
        max_batch_size: Give the launcher so many runs at a time; None: all.

    Returns:
        What the launcher says of each run.

    Raises:
        UserError: When something is wrong with the study or with one of its runs.
        SystemExit: With status 1, when a run has not finished; with the report's, when it could not be written.
    """
    if (typed := str(config.hydra.sweep.dir)).startswith("~"):  # of a page: what is typed was expanded before
        with open_dict(config):
            config.hydra.sweep.dir = expand_home(typed)
    plan = _study(study, arguments, config, loader, rows) if study else _plain(arguments, config, loader)
    folder = Path(str(config.hydra.sweep.dir))
    if dry_run:
        show_plan(plan.title, folder, plan.jobs, [compose_job(loader, config, each) for each in plan.overrides])
        return []
    _write(plan, folder, config)
    with dispensable_output():
        returns = _launch(plan, folder, launcher, max_batch_size)
    failed = [each for each in returns if each.status != JobStatus.COMPLETED]
    show_failures(folder, failed, len(plan.jobs))
    status = 0
    if report:
        from convolt.reports.report import main as write_report  # takes a second

        status = write_report([str(folder)])
    print(folder, flush=True)
    if failed or status:
        sys.exit(1 if failed else status)
    return returns


def _study(
    page: DictConfig,
    arguments: Sequence[str],
    config: DictConfig,
    loader: ConfigLoader,
    rows: Sequence[str] | str | None,
) -> Plan:
    """Plan a study, and give it a folder of its name unless one was asked for."""
    name = str(config.hydra.runtime.choices.study)
    study = studies.read(OmegaConf.to_container(page), name)  # type: ignore[arg-type]
    given = studies.arguments(arguments, loader)
    jobs = studies.study_jobs(study, name, given)
    typed = config.hydra.overrides.hydra
    usual = str(config.hydra.sweep._get_node("dir")._value()).startswith(USUAL_FOLDER)  # no page chooses another
    if usual and "hydra.sweep.dir" not in typed_keys(typed):
        with open_dict(config):
            config.hydra.sweep.dir = f"outputs/studies/{studies.folder(name, given)}"
            typed.append(f"hydra.sweep.dir={_quoted(config.hydra.sweep.dir)}")
    _check_rows(jobs, study, given, name, config, loader)
    title = f"{study.title}: {study.question}" if study.question else study.title
    document = studies.document(study, name, given, jobs)
    if rows is not None:
        jobs = studies.of_rows(jobs, [rows] if isinstance(rows, str) else rows, name)
    return Plan(jobs, title, document)


def _plain(arguments: Sequence[str], config: DictConfig, loader: ConfigLoader) -> Plan:
    """Plan a sweep without a study, and compose each combination once, seeds apart."""
    jobs = studies.plain_jobs(arguments, loader)
    seen: set[tuple[str, ...]] = set()
    for job in jobs:
        without_seed = tuple(text for text in job.overrides if not text.startswith("seed="))
        if without_seed not in seen:
            seen.add(without_seed)
            compose_job(loader, config, job.overrides)
    return Plan(jobs)


def _check_rows(
    jobs: Sequence[studies.Job],
    study: studies.Study,
    given: studies.Arguments,
    name: str,
    config: DictConfig,
    loader: ConfigLoader,
) -> None:
    """Compose each row once, with each of the swept values, and see that the command line leaves the rows different."""
    seen: dict[tuple[str, tuple[str, ...]], str] = {}
    for job in (job for job in jobs if job.seed == jobs[0].seed):
        try:
            cfg = compose_job(loader, config, job.overrides).cfg
        except UserError as error:
            raise UserError(f"study {name}, row '{job.row}': {error}") from error.__cause__
        other = seen.setdefault((_digest(cfg), job.swept), job.row)
        if other != job.row and _differ(study, name, {other, job.row}, config, loader):
            typed = [*given.fixed.values(), *job.swept]
            raise UserError(
                f"{' '.join(typed)}: rows '{other}' and '{job.row}' of study {name} "
                "would be the same run under two names; leave out what the rows differ in"
            )


def _differ(study: studies.Study, name: str, rows: set[str], config: DictConfig, loader: ConfigLoader) -> bool:
    """Tell whether two rows are different runs on the study's page."""
    jobs = [job for job in studies.study_jobs(study, name, studies.Arguments()) if job.row in rows]
    return len({_digest(compose_job(loader, config, job.overrides).cfg) for job in jobs[: len(rows)]}) > 1


def _digest(cfg: DictConfig) -> str:
    """Return a digest of what can change a number."""
    cfg = cfg.copy()
    cfg.choices = {}
    return config_hash(cfg)


def _write(plan: Plan, folder: Path, config: DictConfig) -> None:
    """Write down what is to run, before anything does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if plan.document:
            changed = changed_rows(read_json(folder / "study.json"), plan.document)
            if changed:
                print(f"the study has changed since it last ran ({', '.join(changed)}): what ran otherwise moves aside")
            write_json(folder / "study.json", plan.document)
        else:
            write_text(folder / "multirun.yaml", OmegaConf.to_yaml(config))
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose another hydra.sweep.dir") from None


def changed_rows(before: Any, now: dict[str, Any]) -> list[str]:
    """Return the rows of a study that are not what they were when it last ran: edited, new or taken out."""
    if not isinstance(before, dict) or not isinstance(before.get("rows"), dict):
        return []
    rows, shared = (before["rows"], now["rows"]), before.get("base") == now["base"]
    overrides = [{name: row.get("overrides") for name, row in each.items()} for each in rows]
    names = dict.fromkeys([*overrides[1], *overrides[0]])
    return [name for name in names if not shared or overrides[0].get(name) != overrides[1].get(name)]


def _launch(plan: Plan, folder: Path, launcher: Launcher, max_batch_size: int | None) -> list[JobReturn]:
    """Hand the runs to the launcher."""
    returns: list[JobReturn] = []
    overrides = plan.overrides
    size = max_batch_size or len(overrides)
    try:
        for first in range(0, len(overrides), size):
            returns += launcher.launch(overrides[first : first + size], initial_job_idx=first)
    except UserError:
        if not plan.document and not returns:
            (folder / "multirun.yaml").unlink()
            remove_empty(folder)
        raise
    except Interrupted:
        if not plan.document:
            print(f"the same command with hydra.sweep.dir={folder} goes on with this sweep", flush=True)
        raise
    return returns


def _quoted(text: str) -> str:
    return "'" + text.replace("'", r"\'") + "'"
