"""Finds runs on disk and reads what they left: studies, sweeps and single runs become rows of runs.

Only files are read, never what a run printed. A folder is a *study* when it holds `study.json`, a *run* when it holds
what a run leaves, and a *group* (a sweep, or single runs side by side) when runs are its direct children.
"""

import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

import yaml

from convolt.errors import UserError, did_you_mean
from convolt.system.files import damaged

State = Literal["finished", "running", "interrupted", "cut off", "failed", "missing"]
Json = dict[str, Any]

RUN_FILES = ("result.json", "status.json", ".hydra/config.yaml")
NOT_RUNS = re.compile(
    r"\.hydra|checkpoints|figures|report|.*\.old\d+|.*-rerun\d*"
)  # the last two: moved aside; a check
NOT_NAMED = ("seed=", "force=", "data.root=", "data.stage=", "summary=", "pictures.")  # they make no row of their own


def finite(value: object) -> float | None:
    """Return a finite number as float; None for anything else, `true` and text included."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    return number if math.isfinite(number) else None


def _is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)


@dataclass(frozen=True)
class Run:
    """One training run on disk, or the place where a study expects one.

    Attributes:
        path: The run directory.
        seed: Its seed; None where nothing tells it.
        state: "running" with a free lock is "cut off"; "missing" left no status.
        reason: One line that says why there is no result; empty for finished runs.
        result: The content of `result.json`; empty unless finished.
        overrides: The Hydra overrides that it was started with, without the seed.
    """

    path: Path
    seed: int | None
    state: State
    reason: str = ""
    result: Json = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> int | str:
        """What pairs this run with one of another row: its seed; the path where there is none."""
        return str(self.path) if self.seed is None else self.seed

    def number(self, key: str) -> float | None:
        """Return a metric ("test/accuracy") or a top-level number ("seconds") of the result.

        Args:
            key: A key of `metrics`, or of `result.json` itself.

        Returns:
            The number; None where it is absent or not finite.
        """
        return finite(self.result.get("metrics", {}).get(key, self.result.get(key)))

    @property
    def extended(self) -> str:
        """Say that the run was tested before and went on with more epochs; empty where it was not."""
        changes = self.result.get("changed_settings")
        found = [
            (epochs, each.get("earlier_result"))
            for each in (changes if isinstance(changes, list) else [])
            if _is_object(each) and (epochs := (each.get("changes") or {}).get("trainer.max_epochs"))
        ]
        last = found[-1][0][1] if found else 0  # one that was cut off may have been given fewer again
        tested = dict.fromkeys(before for (before, _), result in found if result and before < last)
        return f"tested before, extended from {' to '.join(map(str, [*tested, last]))} epochs" if tested else ""

    def provenance(self, key: str) -> str:
        """Return what this run was made with, as text.

        Args:
            key: "git_commit", "dataset_hash", "device", "precision", "checkpoint" or "torch".

        Returns:
            The value; "not recorded" where the run does not say it.
        """
        value = self.result.get(key)
        if key == "torch":
            value = self.result.get("versions", {}).get("torch")
        elif key == "precision" and value is None:
            value = (_config(self.path).get("trainer") or {}).get("precision")
        return "not recorded" if value is None else str(value)


@dataclass(frozen=True)
class Row:
    """One row of a table: the runs that differ in the seed only.

    Attributes:
        name: As shown; for a study with swept overrides, the study's row and the swept values.
        base: The study's row without the swept values.
        swept: The swept overrides, e.g. "optim.lr=0.1"; empty where nothing is swept.
        runs: By seed.
        overrides: What makes this row.
        published: Published metrics as fractions, and their "source"; empty where there are none.
        published_per_class: Published numbers of each class.
        note: What the study's author wrote about the row.
    """

    name: str
    base: str
    swept: str
    runs: tuple[Run, ...]
    overrides: tuple[str, ...] = ()
    published: Mapping[str, Any] = field(default_factory=dict)
    published_per_class: tuple[Json, ...] = ()
    note: str = ""

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.state == "finished")

    def values(self, key: str) -> dict[int | str, float]:
        """Return a number of every finished run that has it, by seed."""
        return {run.key: value for run in self.finished if (value := run.number(key)) is not None}

    def mean(self, key: str) -> float | None:
        """Return the mean of a number over the finished runs; None where no run has it."""
        values = self.values(key)
        return math.fsum(values.values()) / len(values) if values else None

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return the per-class numbers, each the mean over the finished runs, by class in the dataset's order."""
        sums: dict[str, dict[str, list[float]]] = {}
        for run in self.finished:
            for entry in filter(_is_object, run.result.get("per_class") or []):
                numbers = sums.setdefault(str(entry.get("class")), {})
                for key, value in entry.items():
                    if key != "class" and (number := finite(value)) is not None:
                        numbers.setdefault(key, []).append(number)
        return {name: {k: math.fsum(v) / len(v) for k, v in entry.items()} for name, entry in sums.items()}


@dataclass(frozen=True)
class Study:
    """A table of runs: a study, a sweep, or single runs set side by side.

    Attributes:
        path: The folder.
        kind: What it is.
        name: The study's name, or the folder's.
        title: For the page's head.
        rows: In the order of the study; a sweep's in natural order.
        question: What the study asks.
        base: Overrides that every row shares.
        fixed: Overrides given on the command line for every row.
        baseline: The row that the others are compared with.
        notes: One-line remarks about the folder as a whole.
    """

    path: Path
    kind: Literal["study", "sweep", "runs"]
    name: str
    title: str
    rows: tuple[Row, ...]
    question: str = ""
    base: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    baseline: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, row by row."""
        return tuple(run for row in self.rows for run in row.runs)

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state, the most frequent first."""
        return dict(Counter(run.state for run in self.runs).most_common())

    @property
    def headline(self) -> str:
        """The metric by which the runs are judged: what most of them name, or else test/accuracy."""
        named = Counter(str(run.result["headline"]) for run in self.runs if run.result.get("headline"))
        return named.most_common(1)[0][0] if named else "test/accuracy"

    def baseline_of(self, row: Row) -> Row | None:
        """Return the baseline row with the same swept values as `row`; None for a baseline itself or where none is."""
        if self.baseline in (None, row.name, row.base):
            return None
        same = [other for other in self.rows if other.base == self.baseline and other.swept == row.swept]
        named = [other for other in self.rows if other.name == self.baseline]
        return next(iter(same + named), None)


def _one_line(text: object, limit: int = 240) -> str:
    """Squeeze a text of any length into one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Return a sort key under which "lr=0.01" < "lr=0.1" and "b8" < "b16"."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts)]


def _read_json(path: Path) -> Json:
    """Read a JSON object.

    Raises:
        ValueError: The file holds something else; the message is one line.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} cannot be read: it holds no JSON object")
    return content


def _read_yaml(path: Path) -> Any:
    """Read a YAML file with the fast loader; None where it is absent or damaged."""
    try:
        return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return None


def _config(path: Path) -> Json:
    config = _read_yaml(path / ".hydra" / "config.yaml")
    return config if isinstance(config, dict) else {}


def _locked(path: Path) -> bool | None:
    """Tell whether a process holds the run's lock; None where that cannot be known: no lock file, or no POSIX."""
    answer = None
    if os.name != "posix":
        return answer
    import fcntl

    for lock in path.glob("*.lock"):
        answer = False
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
    return answer


def is_run(path: Path) -> bool:
    """Tell whether a folder is a run directory."""
    return any((path / name).is_file() for name in RUN_FILES)


def _unfinished(path: Path) -> tuple[State, str]:
    """Read why a run has no result."""
    if not (path / "status.json").is_file():
        return "missing", "never started" if not path.is_dir() else "left no status.json"
    try:
        status = _read_json(path / "status.json")
    except ValueError as error:
        return "failed", str(error)
    state, file = status.get("state"), path / "status.json"
    at = f"epoch {status.get('epoch') or 0}"
    at += f" of {status['max_epochs']}" if status.get("max_epochs") else ""
    if state == "interrupted":
        return "interrupted", f"stopped at {at}; the same command continues it"
    if state == "running":
        locked, minutes = _locked(path), max(0.0, time.time() - file.stat().st_mtime) / 60
        if locked or (locked is None and minutes < 1):
            return "running", f"{at}, last seen {_ago(minutes)} ago"
        return "cut off", f"at {at}, last seen {_ago(minutes)} ago; the same command continues it"
    why = status.get("error") or "no reason recorded"
    return "failed", _one_line(why if state == "failed" else f"status.json says '{state}', without a result.json")


def _ago(minutes: float) -> str:
    for unit, length in (("days", 1440), ("hours", 60), ("minutes", 1)):
        if minutes >= 2 * length:
            return f"{minutes / length:.0f} {unit}"
    return "a minute" if minutes >= 1 else "less than a minute"


def read_run(path: Path, seed: int | None = None) -> Run:
    """Read one run directory.

    Args:
        path: The run directory; need not exist.
        seed: Its seed, where the study tells it.

    Returns:
        The run; a damaged `result.json` makes it failed.
    """
    listed = _read_yaml(path / ".hydra" / "overrides.yaml")
    overrides = [str(entry) for entry in listed] if isinstance(listed, list) else path.name.split(",")
    result: Json = {}
    state: State
    if (path / "result.json").is_file():
        state, reason = "finished", ""
        try:
            result = _read_json(path / "result.json")
            if damaged(result):
                raise ValueError("result.json is damaged: its content is not what was signed")
            if not _is_object(result.get("metrics")) or not _is_object(result.get("versions", {})):
                raise ValueError("result.json cannot be read: it has no metrics, or no versions, by name")
        except ValueError as error:
            state, reason, result = "failed", str(error), {}
    else:
        state, reason = _unfinished(path)
    if seed is None:
        named = [entry.removeprefix("seed=") for entry in overrides if re.fullmatch(r"seed=\d+", entry)]
        found = result.get("seed", named[0] if named else _config(path).get("seed"))
        seed = int(found) if isinstance(found, int | str) and re.fullmatch(r"\d+", str(found)) else None
    kept = tuple(entry for entry in overrides if not entry.startswith(NOT_NAMED))
    return Run(path, seed, state, reason, result, kept)


def _walk(path: Path) -> Iterator[Path]:
    """Yield studies and run directories below a folder, in natural order, without descending into runs."""
    if (path / "study.json").is_file() or is_run(path):
        yield path
        return
    try:
        children = [Path(entry) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for child in sorted(children, key=lambda child: _natural(child.name)):
        if not NOT_RUNS.fullmatch(child.name):
            yield from _walk(child)


def read_study(path: Path) -> Study:
    """Read a study's folder by its `study.json`, which also tells what is missing.

    Args:
        path: The folder.

    Returns:
        The study. Where overrides are swept, each combination of a row and the swept values is a row.

    Raises:
        UserError: `study.json` is damaged.
    """
    try:
        spec = _read_json(path / "study.json")
        rows = [
            row for name, content in dict(spec["rows"]).items() for row in _study_rows(path, spec, str(name), content)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{path}': study.json is damaged ({_one_line(error)}); starting the study again writes it anew"
        ) from None
    known = {run.path.resolve() for row in rows for run in row.runs}
    strays = [
        folder
        for child in path.iterdir()
        if child.is_dir() and not NOT_RUNS.fullmatch(child.name)
        for folder in _walk(child)
        if folder.resolve() not in known
    ]
    notes = [str(note) for note in spec.get("notes", [])]
    if strays:
        what = "1 run in this folder is" if len(strays) == 1 else f"{len(strays)} runs in this folder are"
        examples = ", ".join(str(stray.relative_to(path)) for stray in strays[:3])
        notes.append(f"{what} not in study.json and left out: {examples}{', …' if len(strays) > 3 else ''}")
    name = str(spec.get("name") or path.name)
    return Study(
        path,
        "study",
        path.name,
        _one_line(spec.get("title") or name),
        tuple(rows),
        _one_line(spec.get("question") or "", 1000),
        tuple(map(str, spec.get("base") or ())),
        tuple(map(str, spec.get("overrides") or ())),
        spec.get("baseline"),
        tuple(notes),
    )


def _study_rows(path: Path, spec: Json, name: str, content: Json) -> Iterator[Row]:
    """Yield one row of `study.json` as one row for each combination of swept values."""
    groups: dict[str, list[Run]] = {}
    for entry in content["runs"]:
        run = read_run(path / entry["dir"], entry.get("seed"))
        swept = ""
        if keys := tuple(f"{key}=" for key in spec.get("sweep") or ()):
            parts = entry.get("overrides") or [part for part in run.overrides if part.startswith(keys)]
            swept = ", ".join(map(str, parts))
        groups.setdefault(swept, []).append(run)
    for swept, runs in groups.items():
        yield Row(
            f"{name}, {swept}" if swept else name,
            name,
            swept,
            tuple(sorted(runs, key=lambda run: -1 if run.seed is None else run.seed)),
            (*map(str, content.get("overrides") or ()), *(swept.split(", ") if swept else ())),
            dict(content.get("published") or {}),
            tuple(dict(entry) for entry in content.get("published_per_class") or ()),
            _one_line(content.get("note") or "", 1000),
        )


def read_group(path: Path, folders: list[Path], kind: Literal["sweep", "runs"]) -> Study:
    """Read runs that no `study.json` describes: rows are the runs whose overrides differ in the seed only.

    Args:
        path: The folder that holds them, for the name and the place of the report.
        folders: The run directories.
        kind: What they are.

    Returns:
        The table; overrides that all runs share are left out of the rows' names. Of two runs of one row and seed the
        one that finished, or else the later one, counts, and a note tells.
    """
    runs = [read_run(folder) for folder in folders]
    groups: dict[tuple[str, ...], dict[int | str, Run]] = {}
    doubled = []
    for run in sorted(runs, key=lambda run: (run.state == "finished", _natural(run.path.name))):
        row = groups.setdefault(tuple(sorted(run.overrides)), {})
        if run.key in row:
            doubled.append(row[run.key].path.name)
        row[run.key] = run
    common = set.intersection(*(set(key) for key in groups)) if len(groups) > 1 else set()
    rows = []
    for found in groups.values():
        members = tuple(sorted(found.values(), key=lambda run: -1 if run.seed is None else run.seed))
        overrides = members[0].overrides
        name = ", ".join(entry for entry in overrides if entry not in common) or "defaults"
        rows.append(Row(name, name, "", members, overrides))
    notes = [f"left out, since a later run has the same overrides and seed: {', '.join(doubled)}"] if doubled else []
    shared = tuple(entry for entry in runs[0].overrides if entry in common)
    title = f"Sweep {path.name}" if kind == "sweep" else f"Runs in {path.parent.name}/{path.name}"
    if folders == [path]:
        title = f"Run {path.parent.name}, {path.name}"
    rows.sort(key=lambda row: _natural(row.name))
    return Study(path, kind, path.name, title, tuple(rows), fixed=shared, notes=tuple(notes))


def _group_kind(path: Path) -> Literal["sweep", "runs"]:
    return "runs" if path.parent.name == "runs" and not (path / "multirun.yaml").is_file() else "sweep"


def _existing(path: Path) -> Path:
    """Return the path of a folder that exists.

    Raises:
        UserError: It does not exist, or is a file.
    """
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"'{path}' is a file; give the folder of a study, a sweep or a run")
    parent = path.parent
    siblings = [child.name for child in parent.iterdir() if child.is_dir()] if parent.is_dir() else []
    studies = Path("outputs/studies")
    hint = did_you_mean(path.name, siblings)
    if not hint and studies.is_dir():
        hint = did_you_mean(path.name, (str(child) for child in studies.iterdir())) or did_you_mean(
            f"{studies}/{path.name}", (str(child) for child in studies.iterdir())
        )
    raise UserError(f"no folder '{path}'{hint or '; `python report.py outputs` lists what there is'}")


def open_folder(path: Path) -> list[Study]:
    """Read what a folder holds.

    Args:
        path: A study, a sweep, a run directory, a folder of run directories, or a folder that holds several of these.

    Returns:
        One table, where the folder is one; every table below it, single runs one by one, where it holds several.

    Raises:
        UserError: No such folder, or no run in it.
    """
    _existing(path)
    found = list(_walk(path))
    if not found:
        raise UserError(f"no runs in '{path}'; `python train.py` makes one, `./multirun.sh` lists the studies")
    if found == [path]:
        return [read_study(path) if (path / "study.json").is_file() else read_group(path, found, "runs")]
    loose = [folder for folder in found if not (folder / "study.json").is_file()]
    if len(loose) == len(found) and all(folder.parent == path for folder in loose):
        return [read_group(path, loose, _group_kind(path))]
    tables: list[Study] = []
    for folder in found:
        if folder not in loose:
            try:
                tables.append(read_study(folder))
            except UserError as error:  # one damaged study hides no other
                tables.append(Study(folder, "study", folder.name, str(error), ()))
    parents: dict[Path, list[Path]] = {}
    for folder in loose:
        parents.setdefault(folder.parent, []).append(folder)
    for parent, folders in parents.items():
        if _group_kind(parent) == "sweep":
            tables.append(read_group(parent, folders, "sweep"))
        else:
            tables.extend(read_group(folder, [folder], "runs") for folder in folders)
    return tables
