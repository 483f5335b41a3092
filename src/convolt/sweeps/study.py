"""A study's page and the command line, turned into runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convolt.config.compose import slug
from convolt.config.overrides import parse_overrides
from convolt.errors import UserError, did_you_mean

NOT_IN_FOLDER_NAME = ("force", "summary", "data.root", "data.device", "data.stage", "trainer.threads", "pictures")
"""Settings (and sections) that a study's folder is not named for: they change no number, or belong to the machine."""

COMPARABLE_KEYS = (
    "trainer", "trainer.accelerator", "trainer.precision", "trainer.channels_last", "trainer.deterministic",
    "trainer.test", "data.val_fraction", "data.split_seed",
)  # fmt: skip
"""Settings after which a row still compares with a published number: the machine's, and how the epoch is chosen."""


class StudyRow(BaseModel):
    """One row of a study's table.

    Attributes:
        overrides: What makes the row, one value of each key.
        published: Published metrics as fractions, and their `source`.
        published_per_class: Published numbers of each `class`.
        note: Whatever a reader of the table ought to know.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    overrides: list[str] = []
    published: dict[str, float | str] | None = None
    published_per_class: list[dict[str, float | str]] | None = None
    note: str | None = None


class Study(BaseModel):
    """A study as its page (conf/study) says.

    Attributes:
        title: In a few words.
        question: What its table is to answer.
        base: Overrides of every row; a row's own and the command line's beat them.
        baseline: The row that the others are compared with; the first one where the page names none.
        seeds: Each row runs once with each of them.
        runs: The rows by name.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    title: str
    question: str = ""
    base: list[str] = []
    baseline: str | None = None
    seeds: list[int] = Field(default=[0], min_length=1)
    runs: dict[str, StudyRow] = Field(min_length=1)


@dataclass(frozen=True)
class CommandLine:
    """The overrides of a command line, by what they mean to a study.

    Attributes:
        fixed: Overrides with one value, by key, as they were typed.
        swept: The overrides that each swept one stands for, by key.
        seeds: The values of `seed`; empty where it was not typed.
    """

    fixed: Mapping[str, str] = field(default_factory=dict)
    swept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seeds: Sequence[str] = ()

    @property
    def typed(self) -> list[tuple[str, str]]:
        """The keys and overrides, fixed and swept, as they were typed."""
        return [*self.fixed.items(), *((key, ",".join(texts)) for key, texts in self.swept.items())]

    @property
    def incomparable(self) -> list[str]:
        """The overrides after which the runs cannot be compared with published ones."""
        return [text for key, text in self.typed if key not in COMPARABLE_KEYS and not _is_omitted_from_name(key)]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study or sweep, before it is composed.

    Attributes:
        row: The study's row; empty in a plain sweep.
        seed: Its seed; None in a plain sweep.
        swept: Its values of the swept overrides.
        overrides: All its overrides, one of each key.
        folder: Relative to the study's; None where the config says it.
    """

    row: str
    seed: int | None
    swept: tuple[str, ...]
    overrides: tuple[str, ...]
    folder: str | None


def read_study(page: Mapping[str, Any], name: str) -> Study:
    """Read a study's page.

    Raises:
        UserError: When a key is unknown or missing, or a value is not accepted.
    """
    plain = dict(page)
    if isinstance(plain.get("runs"), Mapping):
        plain["runs"] = {str(key): row or {} for key, row in plain["runs"].items()}
    try:
        study = Study.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            keys = StudyRow.model_fields if len(first["loc"]) > 1 else Study.model_fields
            raise UserError(f"study {name}: there is no key {key}{did_you_mean(str(first['loc'][-1]), keys)}") from None
        message = first["msg"].replace("Input should be", "it must be").replace("Field required", "it is missing")
        raise UserError(f"study {name}: {key}: {message}") from None
    if study.baseline is not None and study.baseline not in study.runs:
        hint = did_you_mean(study.baseline, study.runs)
        raise UserError(f"study {name}: the baseline {study.baseline!r} is no row of it{hint}")
    return study


def parse_command_line(texts: Sequence[str], loader: ConfigLoader | None = None) -> CommandLine:
    """Parse the overrides of a command line.

    Args:
        texts: The overrides, without Hydra's own.
        loader: Knows the options of a group, for `glob()`.

    Raises:
        UserError: When several studies are named, or an override cannot be swept.
    """
    fixed: dict[str, str] = {}
    swept: dict[str, Sequence[str]] = {}
    for override in parse_overrides(texts, loader):
        key = _override_key(override)
        fixed.pop(key, None)  # the last one counts, in its place
        swept.pop(key, None)
        if not override.is_sweep_override():
            fixed[key] = str(override.input_line)
        elif key == "study":
            raise UserError(f"{override.input_line}: one study at a time")
        elif override.is_discrete_sweep():
            name = override.get_key_element()
            swept[key] = [f"{name}={value}" for value in override.sweep_string_iterator()]
            if not swept[key]:
                raise UserError(f"{override.input_line}: there is no such value, so nothing to sweep over")
        else:
            raise UserError(f"{override.input_line}: write out the values to sweep over: KEY=VALUE,VALUE")
    fixed.pop("study", None)
    seeds = swept.pop("seed", None) or [text for text in [fixed.pop("seed", None)] if text is not None]
    return CommandLine(fixed, swept, [text.split("=", 1)[1] for text in seeds])


def folder_name(name: str, command_line: CommandLine) -> str:
    """Return the name of a study's folder: the study and the fixed overrides, sorted by key."""
    fixed = sorted(command_line.fixed.items())
    return slug(",".join([name, *(text for key, text in fixed if not _is_omitted_from_name(key))]))


def plan_study(study: Study, name: str, command_line: CommandLine) -> list[PlannedRun]:
    """Plan the product of rows, swept overrides and seeds; all rows of one seed come before those of the next.

    Args:
        study: The study.
        name: Its name.
        command_line: Its overrides beat the rows', which beat the base's.

    Raises:
        UserError: When an override contradicts the study, or when two runs would share a folder.
    """
    base = _parse_page(study.base, f"study {name}, base")
    rows = {row: _parse_page(each.overrides, f"study {name}, row '{row}'") for row, each in study.runs.items()}
    row_keys = {key for overrides in rows.values() for key in overrides}
    for key, text in command_line.typed:
        if key in row_keys:
            raise UserError(f"{text}: the rows of study {name} differ in {key}; leave it out")
    seeds = [_parse_seed(text) for text in command_line.seeds] or study.seeds
    runs: dict[str, PlannedRun] = {}
    for seed, (row, row_overrides), swept in product(seeds, rows.items(), product(*command_line.swept.values())):
        typed = dict(command_line.fixed) | dict(zip(command_line.swept, swept, strict=True))
        overrides = base | row_overrides | typed | {"seed": f"seed={seed}"}
        folder = f"{slug(row)}/{slug(','.join([f'seed={seed}', *swept]))}"
        run = PlannedRun(row, seed, swept, tuple(overrides.values()), folder)
        other = runs.setdefault(folder, run)
        if other is not run:
            pair = " and ".join(" ".join(each.overrides) for each in (other, run))
            raise UserError(f"{pair} would share the folder {folder}")
    return list(runs.values())


def select_rows(runs: Sequence[PlannedRun], rows: Iterable[str], name: str) -> list[PlannedRun]:
    """Return the runs of some rows.

    Raises:
        UserError: When there is no such row.
    """
    known = dict.fromkeys(run.row for run in runs)
    for row in rows:
        if row not in known:
            hint = did_you_mean(row, known) or f"; it has {', '.join(known)}"
            raise UserError(f"hydra.sweeper.rows: study {name} has no row '{row}'{hint}")
    return [run for run in runs if run.row in set(rows)]


def plan_plain_sweep(texts: Sequence[str], loader: ConfigLoader) -> list[PlannedRun]:
    """Plan the product of the swept overrides of a command line, in the order typed."""
    command_line = parse_command_line(texts, loader)
    values = {key: [text] for key, text in command_line.fixed.items()} | dict(command_line.swept)
    values["seed"] = [f"seed={_parse_seed(text)}" for text in command_line.seeds]
    keys = dict.fromkeys(_override_key(override) for override in parse_overrides(texts, loader))
    lists = [values[key] for key in keys if key in values]
    return [PlannedRun("", None, (), overrides, None) for overrides in product(*lists)]


def study_record(study: Study, name: str, command_line: CommandLine, runs: Sequence[PlannedRun]) -> dict[str, Any]:
    """Return the content of study.json: the rows, and the directories of their runs."""
    rows: dict[str, Any] = {}
    for row, each in study.runs.items():
        rows[row] = {"overrides": [], "published": None} | each.model_dump(exclude_none=True)
        planned = [run for run in runs if run.row == row]
        rows[row]["runs"] = [{"dir": run.folder, "seed": run.seed, "overrides": list(run.swept)} for run in planned]
    notes = []
    if command_line.incomparable and any(row["published"] for row in rows.values()):
        notes.append(f"no published numbers: they are of other settings than {' '.join(command_line.incomparable)}")
        for row in rows.values():
            row["published"] = None
            row.pop("published_per_class", None)
    return {
        "name": name,
        **study.model_dump(include={"title", "question", "base"}),
        "baseline": study.baseline or next(iter(study.runs)),
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
        "overrides": list(command_line.fixed.values()),
        "sweep": {key: [text.split("=", 1)[1] for text in texts] for key, texts in command_line.swept.items()},
        "notes": notes,
        "rows": rows,
    }


def _is_omitted_from_name(key: str) -> bool:
    """Return whether a folder is not named for a key or its section."""
    return bool({key, key.partition(".")[0]} & {*NOT_IN_FOLDER_NAME})


def _override_key(override: Override) -> str:
    return override.get_key_element().lstrip("+")


def _parse_page(texts: Sequence[str], where: str) -> dict[str, str]:
    """Return a page's overrides by key."""
    overrides: dict[str, str] = {}
    try:
        parsed = parse_overrides(texts)
    except HydraException as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from None
    for override in parsed:
        key = _override_key(override)
        if override.is_sweep_override():
            raise UserError(f"{where}: {override.input_line}: a row has one value of each key; write more rows")
        if key == "seed" or override.is_hydra_override():
            raise UserError(f"{where}: {override.input_line}: {'see `seeds`' if key == 'seed' else 'not in a study'}")
        if key in overrides:
            raise UserError(f"{where}: {key} stands there twice")
        overrides[key] = str(override.input_line)
    return overrides


def _parse_seed(text: str) -> int:
    if not text.isdigit():
        raise UserError(f"seed={text} will not do: it must be a whole number, 0 or more")
    return int(text)
