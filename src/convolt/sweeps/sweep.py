"""The story of a sweep: its runs are made, checked, written down, launched and counted."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from convolt.errors import UserError
from convolt.files import remove_empty, write_json
from convolt.interruption import Interrupted
from convolt.results.record import config_hash
from convolt.sweeps import study as studies
from convolt.sweeps.jobs import compose_job
from convolt.sweeps.screen import show_failures, show_plan


def sweep(
    arguments: Sequence[str],
    *,
    study: DictConfig,
    config: DictConfig,
    loader: ConfigLoader,
    launcher: Launcher,
    dry_run: bool,
    max_batch_size: int | None,
) -> list[Sequence[JobReturn]]:
    """Run a study or a plain sweep.

    Args:
        arguments: The overrides that were typed.
        study: The study's page; empty for a plain sweep.
        config: The sweep's config.
        loader: Hydra's.
        launcher: What runs the runs.
        dry_run: List what would run, and launch nothing.
        max_batch_size: Give the launcher so many runs at a time; None: all.

    Returns:
        What the launcher says of each run.

    Raises:
        UserError: When something is wrong with the study or with one of its runs.
        SystemExit: With status 1, when a run has not finished.
    """
    title = ""
    if study:
        name = str(config.hydra.runtime.choices.study)
        page = studies.read(OmegaConf.to_container(study), name)  # type: ignore[arg-type]
        given = studies.arguments(arguments, loader)
        jobs = studies.study_jobs(page, name, given)
        _name_folder(config, studies.folder(name, given))
        title = f"{page.title}: {page.question}" if page.question else page.title
        _check_rows(jobs, page, given, name, config, loader)
    else:
        jobs = studies.plain_jobs(arguments, loader)
        _check_each(jobs, config, loader)
    folder = Path(str(config.hydra.sweep.dir))
    overrides = [[*job.overrides, *_subdir(job)] for job in jobs]
    if dry_run:
        show_plan(title, folder, jobs, [compose_job(loader, config, each) for each in overrides])
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if study:
            write_json(folder / "study.json", studies.document(page, name, given, jobs))
        else:
            OmegaConf.save(config, folder / "multirun.yaml")
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose another hydra.sweep.dir") from None
    returns: list[Sequence[JobReturn]] = []
    size = max_batch_size or len(overrides)
    try:
        for first in range(0, len(overrides), size):
            returns.append(launcher.launch(overrides[first : first + size], initial_job_idx=first))
    except UserError:
        if not study:
            (folder / "multirun.yaml").unlink()
            remove_empty(folder)
        raise
    except Interrupted:
        if not study:
            print(f"the same command with hydra.sweep.dir={folder} goes on with this sweep")
        raise
    failed = [each for batch in returns for each in batch if each.status != JobStatus.COMPLETED]
    show_failures(folder, failed, len(jobs))
    print(folder, flush=True)
    if failed:
        sys.exit(1)
    return returns


def _name_folder(config: DictConfig, name: str) -> None:
    """Put the study into a folder of its name, unless one was asked for."""
    typed = config.hydra.overrides.hydra
    if not any(text.lstrip("+").startswith("hydra.sweep.dir=") for text in typed):
        with open_dict(config):
            config.hydra.sweep.dir = f"outputs/studies/{name}"
            typed.append(f"hydra.sweep.dir={_quoted(config.hydra.sweep.dir)}")


def _subdir(job: studies.Job) -> list[str]:
    return [] if job.folder is None else [f"hydra.sweep.subdir={_quoted(job.folder)}"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", r"\'") + "'"


def _check_rows(
    jobs: Sequence[studies.Job],
    page: studies.Study,
    given: studies.Arguments,
    name: str,
    config: DictConfig,
    loader: ConfigLoader,
) -> None:
    """Compose each row once, with each of the swept values, and see that the command line leaves the rows different."""
    seen: dict[tuple[str, tuple[str, ...]], str] = {}
    for job in (job for job in jobs if job.seed == jobs[0].seed):
        try:
            composed = compose_job(loader, config, [*job.overrides, *_subdir(job)])
        except UserError as error:
            raise UserError(f"study {name}, row '{job.row}': {error}") from error.__cause__
        other = seen.setdefault((_numbers(composed.cfg), job.swept), job.row)
        if other != job.row and _differ(page, name, {other, job.row}, config, loader):
            raise UserError(
                f"{' '.join(given.fixed.values())}: rows '{other}' and '{job.row}' of study {name} "
                "would be the same run under two names; leave out what the rows differ in"
            )


def _differ(page: studies.Study, name: str, rows: set[str], config: DictConfig, loader: ConfigLoader) -> bool:
    """Tell whether rows are different runs on the study's page."""
    jobs = [job for job in studies.study_jobs(page, name, studies.Arguments()) if job.row in rows]
    return len({_numbers(compose_job(loader, config, job.overrides).cfg) for job in jobs[: len(rows)]}) > 1


def _check_each(jobs: Sequence[studies.Job], config: DictConfig, loader: ConfigLoader) -> None:
    """Compose each combination once, seeds apart."""
    seen: set[tuple[str, ...]] = set()
    for job in jobs:
        without_seed = tuple(text for text in job.overrides if not text.startswith("seed="))
        if without_seed not in seen:
            seen.add(without_seed)
            compose_job(loader, config, job.overrides)


def _numbers(cfg: DictConfig) -> str:
    """Return a digest of what can change a number."""
    cfg = cfg.copy()
    cfg.choices = {}
    return config_hash(cfg)
