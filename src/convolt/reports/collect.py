"""Reads studies, sweeps and single runs from disk into records: rows of runs.

Only files are read, never what a run printed. A *group* (a sweep, or single runs side by side) is a folder whose direct
children are runs.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

from convolt.errors import UserError
from convolt.reports.candidates import read_candidates
from convolt.reports.decisions import Tuning, join_swept, read_settling, read_tuning
from convolt.reports.find import check_folder, find, find_below, is_study, natural_order
from convolt.reports.records import Row, RunRecord, State, StudyRecord
from convolt.runs.files import Json, RunFiles
from convolt.system.files import read_object
from convolt.system.installation import command_name

NOT_IN_NAMES = ("seed=", "force=", "data.root=", "data.stage=", "summary=", "pictures.")
"""How overrides begin that make no row of their own."""


def read_run(path: Path, seed: int | None = None) -> RunRecord:
    """Read one run directory.

    Args:
        path: The run directory; need not exist.
        seed: Its seed, where the study names it.

    Returns:
        The run; a damaged `result.json` makes it failed.
    """
    files = RunFiles(path)
    overrides = files.overrides()
    result: Json = {}
    try:
        state, reason = _read_bundled_state(files) or _read_state(files)
        if state == "finished":
            result = read_object(files.result_file)
            if not all(isinstance(part, dict) for part in (result.get("metrics"), result.get("versions", {}))):
                raise ValueError("result.json cannot be read: it has no metrics, or no versions, by name")
    except ValueError as error:
        state, reason, result = "failed", _squeeze(error), {}
    if seed is None:
        named = [entry.removeprefix("seed=") for entry in overrides if re.fullmatch(r"seed=\d+", entry)]
        found = result.get("seed", named[0] if named else files.raw_settings().get("seed"))
        seed = int(found) if isinstance(found, int | str) and re.fullmatch(r"\d+", str(found)) else None
    named_by = tuple(entry for entry in overrides if not entry.startswith(NOT_IN_NAMES))
    return RunRecord(path, seed, state, reason, result, named_by)


def _read_bundled_state(files: RunFiles) -> tuple[State, str] | None:
    """Return the state of a run in a bundle, as it was then, and why it had not finished; None for any other run."""
    status = files.status()
    state: State | None = next((each for each in get_args(State) if each == status.get("state")), None)
    return (state, str(status.get("error"))) if state and status.get("bundled") else None


def _read_state(files: RunFiles) -> tuple[State, str]:
    """Return a run's state, and why it has not finished.

    Raises:
        ValueError: `status.json` is damaged.
    """
    if files.result_file.is_file():
        return "finished", ""
    if not files.status_file.is_file():
        return "missing", "left no status.json" if files.path.is_dir() else "never started"
    status = read_object(files.status_file)
    state = status.get("state")
    at = f"epoch {status.get('epoch') or 0}"
    at += f" of {status['max_epochs']}" if status.get("max_epochs") else ""
    if state == "interrupted":
        return "interrupted", f"stopped at {at}; the same command continues it"
    if state == "running":
        locked, minutes = files.is_locked(), max(0.0, time.time() - files.status_file.stat().st_mtime) / 60
        if locked or (locked is None and minutes < 1):
            return "running", f"{at}, last seen {_format_age(minutes)} ago"
        return "cut off", f"at {at}, last seen {_format_age(minutes)} ago; the same command continues it"
    why = status.get("error") or "no reason recorded"
    return "failed", _squeeze(why if state == "failed" else f"status.json says '{state}', without a result.json")


def _format_age(minutes: float) -> str:
    for unit, length in (("days", 1440), ("hours", 60), ("minutes", 1)):
        if minutes >= 2 * length:
            return f"{minutes / length:.0f} {unit}"
    return "a minute" if minutes >= 1 else "less than a minute"


def read_study(path: Path) -> StudyRecord:
    """Read a study's folder by its `study.json`, which also names the runs that are missing.

    Args:
        path: The folder.

    Returns:
        The study. Where overrides are swept, each combination of a row and the swept values is a row.

    Raises:
        UserError: `study.json` is damaged.
    """
    try:
        spec = read_object(path / "study.json")
        tuning, settling = read_tuning(spec, path, read_run), read_settling(spec)
        candidates = read_candidates(spec, path, read_run)
        search = spec.get("kind") == "search"
        if search and tuning is None:
            raise ValueError("tuning: a search needs it")
        described = {} if search else spec["rows"]
        rows = [row for name, each in described.items() for row in _read_study_rows(path, spec, name, each, tuning)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{path}': study.json is damaged ({_squeeze(error)}); starting the study again rewrites it"
        ) from None
    known = {run.path.resolve() for row in rows for run in (*row.runs, *row.untuned)}
    known |= {run.path.resolve() for run in tuning.runs} if tuning else set()
    known |= {run.path.resolve() for run in candidates.runs} if candidates else set()
    strays = [folder for folder in find_below(path) if folder.resolve() not in known]
    notes = [str(note) for note in spec.get("notes", [])]
    if strays:
        what = "1 run in this folder is" if len(strays) == 1 else f"{len(strays)} runs in this folder are"
        examples = ", ".join(str(stray.relative_to(path)) for stray in strays[:3])
        notes.append(f"{what} not in study.json and left out: {examples}{', …' if len(strays) > 3 else ''}")
    name = str(spec.get("name") or path.name)
    return StudyRecord(
        path,
        "search" if search else "study",
        path.name,
        _squeeze(spec.get("title") or name),
        tuple(rows),
        _squeeze(spec.get("question") or "", 1000),
        tuple(map(str, spec.get("base") or ())),
        tuple(map(str, spec.get("overrides") or ())),
        spec.get("baseline"),
        tuple(notes),
        tuning,
        settling,
        candidates,
    )


def _read_study_rows(path: Path, spec: Json, name: str, content: Json, tuning: Tuning | None) -> Iterator[Row]:
    """Yield one row of `study.json` as one row for each combination of swept values."""
    groups = _read_by_swept(path, spec, content["runs"])
    untuned = _read_by_swept(path, spec, content.get("untuned") or ())
    for each in tuning.rows if tuning else ():  # a row without a choice has no runs yet
        if each.base == name:
            groups.setdefault(each.swept, [])
    for swept, runs in groups.items():
        yield Row(
            f"{name}, {swept}" if swept else name,
            name,
            swept,
            _sort_by_seed(runs),
            (*map(str, content.get("overrides") or ()), *(swept.split(", ") if swept else ())),
            dict(content.get("published") or {}),
            tuple(dict(entry) for entry in content.get("published_per_class") or ()),
            _squeeze(content.get("note") or "", 1000),
            _sort_by_seed(untuned.get(swept, ())),
        )


def _read_by_swept(path: Path, spec: Json, entries: Iterable[Json]) -> dict[str, list[RunRecord]]:
    """Read runs that `study.json` names, by their swept values."""
    groups: dict[str, list[RunRecord]] = {}
    for entry in entries:
        run = read_run(path / entry["dir"], entry.get("seed"))
        swept = ""
        if keys := tuple(f"{key}=" for key in spec.get("sweep") or ()):
            swept = join_swept(entry.get("overrides") or [part for part in run.overrides if part.startswith(keys)])
        groups.setdefault(swept, []).append(run)
    return groups


def _sort_by_seed(runs: Iterable[RunRecord]) -> tuple[RunRecord, ...]:
    return tuple(sorted(runs, key=lambda run: -1 if run.seed is None else run.seed))


def read_group(path: Path, folders: list[Path], kind: Literal["sweep", "runs"]) -> StudyRecord:
    """Read runs that no `study.json` describes: rows are the runs whose overrides differ in the seed only.

    Args:
        path: The folder that holds them, for the name and the place of the report.
        folders: The run directories.
        kind: What they are.

    Returns:
        The table; overrides that all runs share are left out of the rows' names. Of two runs of one row and seed the
        one that finished, or else the later one, counts, and a note says so.
    """
    named = Path(os.path.abspath(path))  # noqa: PTH100 (no links are followed)
    runs = [read_run(folder) for folder in folders]
    groups: dict[tuple[str, ...], dict[int | str, RunRecord]] = {}
    doubled = []
    for run in sorted(runs, key=lambda run: (run.state == "finished", natural_order(run.path.name))):
        row = groups.setdefault(tuple(sorted(run.overrides)), {})
        if run.key in row:
            doubled.append(row[run.key].path.name)
        row[run.key] = run
    common = set.intersection(*(set(key) for key in groups)) if len(groups) > 1 else set()
    rows = []
    for found in groups.values():
        members = _sort_by_seed(found.values())
        overrides = members[0].overrides
        name = ", ".join(entry for entry in overrides if entry not in common) or "defaults"
        rows.append(Row(name, name, "", members, overrides))
    notes = [f"left out, since a later run has the same overrides and seed: {', '.join(doubled)}"] if doubled else []
    shared = tuple(entry for entry in runs[0].overrides if entry in common)
    title = f"Sweep {named.name}" if kind == "sweep" else f"Runs in {named.parent.name}/{named.name}"
    if folders == [path]:
        title = f"Run {named.parent.name}, {named.name}"
    rows.sort(key=lambda row: natural_order(row.name))
    return StudyRecord(path, kind, named.name, title, tuple(rows), fixed=shared, notes=tuple(notes))


def _group_kind(path: Path) -> Literal["sweep", "runs"]:
    return "runs" if path.parent.name == "runs" and not (path / "multirun.yaml").is_file() else "sweep"


def _squeeze(text: object, limit: int = 240) -> str:
    """Squeeze a text of any length into one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def open_folder(path: Path) -> list[StudyRecord]:
    """Read what a folder holds.

    Args:
        path: A study, a sweep, a run directory, a folder of run directories, or a folder that holds several of these.

    Returns:
        One table, where the folder is one; every table below it, single runs one by one, where it holds several.

    Raises:
        UserError: No such folder, or no run in it.
    """
    check_folder(path)
    found = list(find(path))
    if not found:
        raise UserError(
            f"no runs in '{path}'; `{command_name('train')}` makes one, `{command_name('study')}` lists the studies"
        )
    if found == [path]:
        return [read_study(path) if is_study(path) else read_group(path, found, "runs")]
    loose = [folder for folder in found if not is_study(folder)]
    if len(loose) == len(found) and all(folder.parent == path for folder in loose):
        return [read_group(path, loose, _group_kind(path))]
    tables: list[StudyRecord] = []
    for folder in filter(is_study, found):
        try:
            tables.append(read_study(folder))
        except UserError as error:  # one damaged study hides no other
            tables.append(StudyRecord(folder, "study", folder.name, str(error), ()))
    parents: dict[Path, list[Path]] = {}
    for folder in loose:
        parents.setdefault(folder.parent, []).append(folder)
    for parent, folders in parents.items():
        if _group_kind(parent) == "sweep":
            tables.append(read_group(parent, folders, "sweep"))
        else:
            tables.extend(read_group(folder, [folder], "runs") for folder in folders)
    return tables
