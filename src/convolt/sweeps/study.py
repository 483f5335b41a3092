"""A study's page and the command line beside it, read and checked."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convolt.config.compose import slug
from convolt.config.overrides import parse_overrides
from convolt.errors import UserError, did_you_mean
from convolt.sweeps.candidates import Candidates
from convolt.sweeps.schedule import Settle
from convolt.sweeps.tuning import Range, Space, Tune

_MESSAGES = {
    "a valid dictionary or instance of Range": "a list of values, or {low: NUMBER, high: NUMBER, log: true}",
    " after validation": "",
    "Input should": "it must",
    "Dictionary should": "it must",
    "List should": "it must",
    "Field required": "it is missing",
}
"""Pydantic's words, and ours."""

Model = TypeVar("Model", bound=BaseModel)

NOT_IN_FOLDER_NAME = ("force", "summary", "data.root", "data.device", "data.stage", "trainer.threads", "pictures",
                      "logger")  # fmt: skip
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
        space: What is tuned in this row, in place of the study's.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    overrides: list[str] = []
    published: dict[str, float | str] | None = None
    published_per_class: list[dict[str, float | str]] | None = None
    note: str | None = None
    space: Space | None = None


class Study(BaseModel):
    """A study as its page (conf/study) says.

    Attributes:
        title: In a few words.
        question: What its table is to answer.
        base: Overrides of every row; a row's own and the command line's beat them.
        baseline: The row that the others are compared with; the first one where the page names none.
        seeds: Each row runs once with each of them.
        runs: The rows by name.
        tune: How each row's settings are tuned; None: not at all.
        settle: When there are seeds enough; None: with the page's.
        candidates: Settings that a published table leaves open; None: none.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    title: str
    question: str = ""
    base: list[str] = []
    baseline: str | None = None
    seeds: list[int] = Field(default=[0], min_length=1)
    runs: dict[str, StudyRow] = Field(min_length=1)
    tune: Tune | None = None
    settle: Settle | None = None
    candidates: Candidates | None = None


@dataclass(frozen=True)
class CommandLine:
    """The overrides of a command line, by what they mean to a study.

    Attributes:
        fixed: Overrides with one value, by key, as they were typed.
        swept: The overrides that each swept one stands for, by key.
        seeds: The values of `seed`; empty where it was not typed.
        intervals: Ranges that are to be searched, by key.
    """

    fixed: Mapping[str, str] = field(default_factory=dict)
    swept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seeds: Sequence[str] = ()
    intervals: Mapping[str, Range] = field(default_factory=dict)

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
        row: The study's row, and the candidate where it is one's; empty in a plain sweep.
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
    study = validate(Study, plain, f"study {name}: ")
    if study.baseline is not None and study.baseline not in study.runs:
        hint = did_you_mean(study.baseline, study.runs)
        raise UserError(f"study {name}: the baseline {study.baseline!r} is no row of it{hint}")
    return study


def choose_blocks(study: Study, tune: Any, settle: Any) -> tuple[Study, list[str]]:
    """Return a study with the blocks `tune` and `settle` that count on a command line.

    Args:
        study: As its page says.
        tune: `page`, None for no tuning, or a block.
        settle: `page`, None for the page's seeds, True for the default block, or a block.

    Returns:
        The study, and what its folder is named for besides: blocks that are not the page's.

    Raises:
        UserError: When a block is not accepted.
    """
    chosen: dict[str, Any] = {}
    blocks: list[tuple[str, Any, type[BaseModel]]] = [("tune", tune, Tune), ("settle", settle, Settle)]
    for key, value, model in blocks:
        if value == "page":
            continue
        block = {} if value is True and key == "settle" else value
        if block is not None and not isinstance(block, Mapping):
            options = "page, null, true or a block" if key == "settle" else "page, null or a block"
            raise UserError(f"hydra.sweeper.{key}={value}: it must be {options}")
        chosen[key] = None if block is None else validate(model, dict(block), f"hydra.sweeper.{key}: ")
    changed = {key: block for key, block in chosen.items() if block != getattr(study, key)}
    names = [f"{key}={_digest(block)}" for key, block in changed.items()]
    return study.model_copy(update=changed), names


def _digest(block: BaseModel | None) -> str:
    return "null" if block is None else hashlib.sha256(block.model_dump_json().encode()).hexdigest()[:6]


def validate(model: type[Model], plain: dict[str, Any], where: str) -> Model:
    """Check a page or one of its blocks against its model.

    Args:
        model: Of the page or block.
        plain: Its content.
        where: How an error's line begins.

    Raises:
        UserError: Explains in a line what is wrong.
    """
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        errors = error.errors()
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    path: list[Any] = []
    inside: Any = plain
    for part in first["loc"]:  # of a union, pydantic names its branch too
        if part in (inside if isinstance(inside, Mapping) else range(len(inside)) if isinstance(inside, list) else ()):
            path.append(part)
            inside = inside[part]
    if first["type"] == "missing":
        path.append(first["loc"][-1])
    key = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        models: dict[Any, type[BaseModel]] = {"runs": StudyRow, "tune": Tune, "settle": Settle, "space": Range,
                                              "candidates": Candidates}  # fmt: skip
        parent: type[BaseModel] = next((models[part] for part in reversed(path[:-1]) if part in models), model)
        raise UserError(f"{where}there is no key {key}{did_you_mean(str(path[-1]), parent.model_fields)}")
    message = first["msg"].removeprefix("Value error, ")
    if first["loc"][-1:] == ("int",):  # the first branch of a number
        message = message.replace("a valid integer", "a number")
    for pydantics, ours in _MESSAGES.items():
        message = message.replace(pydantics, ours)
    raise UserError(f"{where}{key}{': ' if key else ''}{message}")


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
    intervals: dict[str, Range] = {}
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
        elif override.is_interval_sweep():
            intervals[key] = _parse_interval(override)
        else:
            raise UserError(f"{override.input_line}: write out the values to sweep over: KEY=VALUE,VALUE")
    fixed.pop("study", None)
    seeds = swept.pop("seed", None) or [text for text in [fixed.pop("seed", None)] if text is not None]
    return CommandLine(fixed, swept, [text.split("=", 1)[1] for text in seeds], intervals)


def _parse_interval(override: Override) -> Range:
    """Read `interval(LOW,HIGH)`: by ratios where HIGH is at least 100 times LOW, or as the tags log or linear say."""
    interval: Any = override.value()
    low, high = interval.start, interval.end
    if not re.search(r"[.eE]", str(override.input_line).partition("interval(")[2]):
        low, high = int(low), int(high)  # Hydra reads both as floats
    unknown = [tag for tag in interval.tags if tag not in ("log", "linear")]
    if unknown:
        raise UserError(f"{override.input_line}: there is no tag {unknown[0]}; there are log and linear")
    log = "log" in interval.tags or ("linear" not in interval.tags and low > 0 and high >= 100 * low)
    return validate(Range, {"low": low, "high": high, "log": log}, f"{override.input_line}: ")


def folder_name(name: str, command_line: CommandLine, blocks: Iterable[str] = ()) -> str:
    """Return the name of a study's folder: the study, blocks of its own, and the fixed overrides, sorted by key."""
    fixed = sorted(command_line.fixed.items())
    return slug(",".join([name, *blocks, *(text for key, text in fixed if not _is_omitted_from_name(key))]))


def plan_plain_sweep(texts: Sequence[str], loader: ConfigLoader) -> list[PlannedRun]:
    """Plan the product of the swept overrides of a command line, in the order typed."""
    command_line = parse_command_line(texts, loader)
    values = {key: [text] for key, text in command_line.fixed.items()} | dict(command_line.swept)
    values["seed"] = [f"seed={parse_seed(text)}" for text in command_line.seeds]
    keys = dict.fromkeys(_override_key(override) for override in parse_overrides(texts, loader))
    lists = [values[key] for key in keys if key in values]
    return [PlannedRun("", None, (), overrides, None) for overrides in product(*lists)]


def _is_omitted_from_name(key: str) -> bool:
    """Return whether a folder is not named for a key or its section."""
    return bool({key, key.partition(".")[0]} & {*NOT_IN_FOLDER_NAME})


def _override_key(override: Override) -> str:
    return override.get_key_element().lstrip("+")


def parse_page(texts: Sequence[str], where: str) -> dict[str, str]:
    """Return a page's overrides by key.

    Raises:
        UserError: When one cannot be read, has several values, or stands there twice.
    """
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


def parse_seed(text: str) -> int:
    """Return a seed that was typed.

    Raises:
        UserError: When it is no whole number, 0 or more.
    """
    if not text.isdigit():
        raise UserError(f"seed={text} will not do: it must be a whole number, 0 or more")
    return int(text)
