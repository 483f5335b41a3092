"""Tuning of a study's rows: which settings are tried, and which are chosen by their validation metric.

A comparison of optimizers at one learning rate compares the rate. Each row gets the same number of trials, at the same
points where rows share a space, with seeds that the study itself never uses, and the test images are never read.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from convolt.config.overrides import format_override

Value = bool | int | float | str
Values = dict[str, Value]

_DIGITS = 3
_BEYOND = 0.25
"""How far an extension reaches beyond an edge, as a share of the range."""


class Range(BaseModel):
    """An interval of numbers; of whole numbers, where both ends are whole.

    Attributes:
        low: The lower end.
        high: The upper end.
        log: Whether equal ratios count alike, and not equal differences.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, not {self.low}")
        return self

    def at(self, position: float) -> int | float:
        """Return the number at a position: 0 is the lower end, 1 the upper one; values beyond lie outside."""
        if self.log:
            value = float(self.low * (self.high / self.low) ** position)
        else:
            value = self.low + (self.high - self.low) * position
        if isinstance(self.low, int) and isinstance(self.high, int):
            return round(value)
        return float(f"{value:.{_DIGITS}g}")


def _kind_of(values: Any) -> str:
    return "list" if isinstance(values, list) else "range"


_List = Annotated[list[Value], Field(min_length=2)]
Space = dict[str, Annotated[Annotated[Range, Tag("range")] | Annotated[_List, Tag("list")], Discriminator(_kind_of)]]
"""By key, the values to try: a range, or a list."""


class Tune(BaseModel):
    """The block `tune` of a study's page.

    Attributes:
        space: By key, the values to try: a range, or a list.
        trials: Of each row.
        seeds: Each trial runs once with each of them; never a seed of the study.
        extend: How often the rows get as many trials again beyond an edge, where a row's choice lies at one.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    space: Space = Field(min_length=1)
    trials: int = Field(ge=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[1000], min_length=1)
    extend: Annotated[int, Field(ge=0, le=2)] = 0


@dataclass(frozen=True)
class Trial:
    """One setting of the tuned keys.

    Attributes:
        number: Counted from 0; the same number is the same point in every row of the same space.
        values: By key.
    """

    number: int
    values: Values = field(hash=False)

    @property
    def overrides(self) -> list[str]:
        """The values as Hydra takes them."""
        return [format_override(key, value) for key, value in self.values.items()]


@dataclass(frozen=True)
class Choice:
    """What a row is run with.

    Attributes:
        trial: The best one.
        score: Its mean over the tuning seeds; not finite where every trial diverged.
        edges: The keys of which no larger, or no smaller, value was tried, by the side: "low" or "high".
    """

    trial: Trial
    score: float
    edges: Mapping[str, str]


def trials(space: Space, count: int, edges: Sequence[Mapping[str, set[str]]] = ()) -> list[Trial]:
    """Return the trials of a row, spread evenly over its space (Halton 1960, Numerische Mathematik 2, 84-90).

    Args:
        space: The row's.
        count: Trials of the first round, and of each extension.
        edges: For each extension, the sides of each key's range beyond which it looks.

    Returns:
        `count` trials, and as many for each extension; the same for the same arguments.
    """
    from scipy.stats import qmc  # takes half a second, which a study without tuning need not wait for

    points = qmc.Halton(d=len(space), scramble=False)
    points.fast_forward(1)  # the first point is a corner
    found: list[Trial] = []
    for extension in range(1 + len(edges)):
        for point in points.random(count):
            positions = dict(zip(space, map(float, point), strict=True))
            if extension:
                for key, sides in edges[extension - 1].items():
                    positions[key] = _beyond(positions[key], sides, extension)
            values = {key: _value(space[key], position) for key, position in positions.items()}
            found.append(Trial(len(found), values))
    return found


def farthest_trials(space: Space, extend: int) -> list[Trial]:
    """Return trials at the farthest ends that extensions may reach: all low ends, and all high ends."""
    if not extend:
        return []
    ends = [
        {key: _value(each, end) for key, each in space.items()} for end in (-extend * _BEYOND, 1 + extend * _BEYOND)
    ]
    return [Trial(number, values) for number, values in enumerate(ends)]


def _beyond(position: float, sides: set[str], extension: int) -> float:
    """Move a position in (0, 1) beyond one side of a range, or to both sides in turn."""
    start = (extension - 1) * _BEYOND
    if sides == {"low", "high"}:
        side, position = ("low", 2 * position) if position < 0.5 else ("high", 2 * position - 1)
    else:
        (side,) = sides
    distance = start + _BEYOND * position
    return 1 + distance if side == "high" else -distance


def _value(values: Range | list[Value], position: float) -> Value:
    if isinstance(values, Range):
        return values.at(position)
    return values[max(0, min(int(position * len(values)), len(values) - 1))]


def choose(tried: Sequence[tuple[Trial, Sequence[float]]], space: Space, *, lower_is_better: bool) -> Choice:
    """Choose the trial with the best mean score; of equal ones the first.

    Args:
        tried: Every trial with its score for each tuning seed; a diverged run's is not finite, and the worst there is.
        space: The row's.
        lower_is_better: Whether the smallest score is the best.
    """
    sign = 1 if lower_is_better else -1
    means = [_mean(scores, math.inf * sign) for _, scores in tried]
    best = min(range(len(tried)), key=lambda index: sign * means[index])
    trial = tried[best][0]
    edges = {}
    for key, values in space.items():
        if isinstance(values, Range):
            numbers = sorted(float(other.values[key]) for other, _ in tried)
            sides = {numbers[-1]: "high", numbers[0]: "low"}
            if side := sides.get(float(trial.values[key])):
                edges[key] = side
    return Choice(trial, means[best], edges)


def trial_score(result: Mapping[str, Any], monitor: str, *, last: bool) -> float | None:
    """Return the score of a trial's run.

    Args:
        result: The content of its `result.json`, of a run with `trainer.test=none`.
        monitor: The metric that chooses checkpoints (`trainer.checkpoint.monitor`).
        last: Whether its row tests the last epoch's checkpoint, which is then what is judged, and not the best one.

    Returns:
        The metric at the checkpoint that would be tested; None where the run has diverged, or has no such metric.
    """
    metrics = result.get("last_metrics" if last else "metrics") or {}
    score = None if result.get("diverged") else metrics.get(monitor)
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def _mean(scores: Sequence[float], worst: float) -> float:
    return math.fsum(scores) / len(scores) if all(map(math.isfinite, scores)) else worst


def edges_of(choices: Sequence[Choice]) -> dict[str, set[str]]:
    """Return the sides at which the choice of any row lies, by key."""
    found: dict[str, set[str]] = {}
    for choice in choices:
        for key, side in choice.edges.items():
            found.setdefault(key, set()).add(side)
    return found
