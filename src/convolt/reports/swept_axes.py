"""What a table sweeps beside its rows: the swept overrides of a study, or the two axes of a plain sweep."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from convolt.reports.records import Row, StudyRecord


@dataclass(frozen=True)
class Grid:
    """The rows of a table by name and by the value of one swept key.

    Attributes:
        key: The swept key, e.g. "optim".
        values: Its overrides, e.g. "optim=sgd"; the first is the one that the others are set against.
        baselines: By name of a row apart from this key, that of the row with which it is compared; without the
            baselines themselves.
        cells: The table's rows by name and value; those that are missing are absent.
    """

    key: str
    values: tuple[str, ...]
    baselines: Mapping[str, str]
    cells: Mapping[tuple[str, str], Row]

    @property
    def names(self) -> list[str]:
        """Every name, in the table's order."""
        return list(dict.fromkeys(name for name, _ in self.cells))

    def read(self, name: str, value: str, metric: str) -> dict[int | str, float]:
        """Return a metric of the runs of one cell by seed; none where the cell is missing."""
        cell = self.cells.get((name, value))
        return cell.values(metric) if cell else {}


def get_key(override: str) -> str:
    """Return the key of an override: "optim.lr" of "optim.lr=0.1"."""
    return override.partition("=")[0].lstrip("+")


def strip_key(override: str) -> str:
    """Return the value of an override: "0.1" of "optim.lr=0.1"."""
    return override.partition("=")[2]


def find_grids(study: StudyRecord) -> list[Grid]:
    """Find what a table sweeps.

    A study has a grid for each swept key, in which every row is compared with the study's baseline at the same values.
    A plain sweep, or runs side by side, have one if they vary exactly two keys and have each combination; `data`, or
    else the key typed first, is the one whose values are set against each other. There the baseline has the first
    value typed. `--baseline` chooses another row, and with its full name the swept values that the others are set
    against.

    Args:
        study: The table.

    Returns:
        The grids with more than one value and a row to compare; none where there is no baseline.
    """
    found = _find_in_study(study) if study.kind == "study" else _find_in_sweep(study)
    return [grid for grid in found if len(grid.values) > 1 and grid.baselines]


def _find_in_study(study: StudyRecord) -> list[Grid]:
    swept = {row.name: {get_key(text): text for text in split_swept(row.swept)} for row in study.rows}
    named = next((row for row in study.rows if row.name == study.baseline), None)
    base = named.base if named else study.baseline
    grids = []
    for key in dict.fromkeys(key for each in swept.values() for key in each):
        cells: dict[tuple[str, str], Row] = {}
        parts: dict[str, tuple[str, str]] = {}
        for row in study.rows:
            if (value := swept[row.name].get(key)) is not None:
                others = ", ".join(text for other, text in swept[row.name].items() if other != key)
                name = f"{row.base}, {others}" if others else row.base
                parts[name] = row.base, others
                cells[name, value] = row
        by_parts = {part: name for name, part in parts.items()}
        pairs = {name: by_parts.get((str(base), others)) for name, (own, others) in parts.items() if own != base}
        baselines = {name: baseline for name, baseline in pairs.items() if baseline}
        first = swept[named.name].get(key) if named else None
        grids.append(Grid(key, _put_first(first, (value for _, value in cells)), baselines, cells))
    return grids


def _find_in_sweep(study: StudyRecord) -> list[Grid]:
    overrides = [{get_key(text): text for text in row.overrides} for row in study.rows]
    every = {key: dict.fromkeys(each.get(key, "") for each in overrides) for each in overrides for key in each}
    keys = _sort_as_typed(study.path, [key for key, values in every.items() if len(values) > 1])
    if len(keys) != 2 or any("" in every[key] for key in keys):
        return []
    key, by_name = sorted(keys, key="data".__ne__)  # the order of the other one stays
    cells = {(each[by_name], each[key]): row for each, row in zip(overrides, study.rows, strict=True)}
    if not len(every[key]) * len(every[by_name]) == len(cells) == len(study.rows):
        return []
    named = next((each for each, row in zip(overrides, study.rows, strict=True) if row.name == study.baseline), {})
    values = _put_first(named.get(key), _sort_as_typed(study.path, every[key]))
    names = _put_first(named.get(by_name), _sort_as_typed(study.path, every[by_name]))
    ordered = {(name, value): cells[name, value] for name in names for value in values}
    return [Grid(key, values, dict.fromkeys(names[1:], names[0]), ordered)]


def split_swept(swept: str) -> list[str]:
    """Return the overrides of which a row's swept values are joined, also where a value is a list."""
    return re.split(r", (?=[\w.+~@/]+=)", swept) if swept else []


def _put_first(first: str | None, values: Iterable[str]) -> tuple[str, ...]:
    """Return each value once, a chosen one before the others."""
    return tuple(dict.fromkeys([*([first] if first else []), *values]))


def _sort_as_typed(folder: Path, texts: Iterable[str]) -> list[str]:
    """Sort keys, or overrides of one key, as the sweep's command line has them; as they are, where that is not kept."""
    try:
        typed = yaml.safe_load((folder / "multirun.yaml").read_text(encoding="utf-8"))["hydra"]["overrides"]["task"]
        words = [word for text in typed for word in (get_key(text), *_write_out(text))]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        words = []
    return sorted(texts, key=lambda text: words.index(text) if text in words else len(words))


def _write_out(text: str) -> list[str]:
    """Return each override of a swept one: "optim=sgd" and "optim=adam" of "optim=sgd,adam"."""
    key, _, values = text.partition("=")
    return [f"{key}={value.strip()}" for value in values.split(",")]
