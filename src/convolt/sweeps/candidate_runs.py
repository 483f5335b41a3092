"""The runs of a study's candidates: checked, planned beside the table's own, and recorded in `study.json`."""

from collections.abc import Mapping
from typing import Any

from convolt.config.compose import slug
from convolt.errors import UserError, did_you_mean
from convolt.sweeps.schedule import StudyRun
from convolt.sweeps.study import CommandLine, Study, parse_page

Overrides = Mapping[str, str]
"""Overrides by key."""


def check_candidates(study: Study, name: str, base: Overrides, rows: Mapping[str, Overrides]) -> None:
    """Refuse a block `candidates` that the page contradicts.

    Args:
        study: The page.
        name: Its name.
        base: The base's overrides.
        rows: Each row's.

    Raises:
        UserError: Names the first contradiction.
    """
    if (block := study.candidates) is None:
        return
    where = f"study {name}, candidates"
    if study.tune is not None:
        raise UserError(f"{where}: published numbers are not of tuned settings; leave out tune or candidates")
    for row in block.rows:
        if row not in study.runs:
            hint = did_you_mean(row, study.runs) or f"; it has {', '.join(study.runs)}"
            raise UserError(f"{where}: there is no row '{row}'{hint}")
        if not isinstance((study.runs[row].published or {}).get(block.metric), float):
            raise UserError(f"{where}: row '{row}' has no published {block.metric} to compare with; take another row")
        whole = {**base, **rows[row]}.get("trainer.max_epochs", "").partition("=")[2]
        if block.epochs is not None and whole.isdigit() and block.epochs >= int(whole):
            raise UserError(
                f"{where}: epochs is {block.epochs} and row '{row}' has {whole}; leave it out for whole runs"
            )
    varied = {key: row for row, overrides in rows.items() for key in overrides}
    folders: dict[str, str] = {}
    for candidate, texts in block.settings.items():
        for key, text in parse_page(texts, f"{where}, '{candidate}'").items():
            if key in varied:
                raise UserError(f"{where}, '{candidate}': {text}: row '{varied[key]}' varies {key}; leave it out")
            if key == "trainer.max_epochs":
                raise UserError(f"{where}, '{candidate}': {text}: all candidates run candidates.epochs alike")
        if (other := folders.setdefault(slug(candidate), candidate)) != candidate:
            raise UserError(f"{where}: '{other}' and '{candidate}' would share a folder; rename one")


def refuse_beside_candidates(study: Study, name: str, command_line: CommandLine) -> None:
    """Refuse a command line with which candidates cannot be compared with the published numbers.

    Args:
        study: The page.
        name: Its name.
        command_line: Beside `hydra.sweeper.candidates=true`.

    Raises:
        UserError: Names the first contradiction.
    """
    if (block := study.candidates) is None:
        raise UserError(f"hydra.sweeper.candidates=true: study {name} has no block candidates; see docs/studies.md")
    if study.tune is not None:
        raise UserError("hydra.sweeper.candidates=true: published numbers are not of tuned settings; leave out tune")
    if command_line.seeds:
        raise UserError(
            f"hydra.sweeper.candidates=true: candidates run with their own seed, {block.seed}; leave out seed"
        )
    if command_line.swept:
        text = ",".join(next(iter(command_line.swept.values())))
        raise UserError(f"{text}: a candidate has one value of each setting; write it in the block candidates")
    keys = {key: candidate for candidate, texts in block.settings.items() for key in parse_page(texts, candidate)}
    for key, text in command_line.fixed.items():
        if key in keys:
            raise UserError(f"{text}: the candidates of study {name} differ in {key}; leave it out")
    if other := [text for text in command_line.incomparable if not text.startswith("debug")]:
        raise UserError(
            f"{other[0]}: candidates are compared with published numbers, which are of other settings; leave it out"
        )


def list_candidate_runs(study: Study) -> list[StudyRun]:
    """Return the runs of all candidates, one candidate after the other."""
    block = study.candidates
    if block is None:
        return []
    return [StudyRun("candidate", row, (), block.seed, candidate=each) for each in block.settings for row in block.rows]


def candidate_overrides(study: Study, run: StudyRun) -> dict[str, str]:
    """Return what a candidate's run changes in its row, by key."""
    block = study.candidates
    assert block is not None
    epochs = {} if block.epochs is None else {"trainer.max_epochs": f"trainer.max_epochs={block.epochs}"}
    return {**parse_page(block.settings[run.candidate], run.candidate), **epochs}


def record_candidates(study: Study, folders: Mapping[StudyRun, str | None]) -> dict[str, Any]:
    """Return what `study.json` says of the candidates.

    Args:
        study: The page.
        folders: Of each candidate's run, relative to the study's.
    """
    block = study.candidates
    assert block is not None
    settings = [
        {
            "name": name,
            "overrides": overrides,
            "runs": [
                {"row": run.row, "dir": folder, "seed": run.seed}
                for run, folder in folders.items()
                if run.candidate == name
            ],
        }
        for name, overrides in block.settings.items()
    ]
    return {**block.model_dump(), "settings": settings}
