"""How numbers are shown: percentages, intervals, counts, p-values and durations."""

from collections.abc import Iterable
from dataclasses import dataclass

NONE = "\N{EN DASH}"
"""What stands for a number that is unknown."""


@dataclass(frozen=True)
class Metric:
    """A metric by its name in `result.json`: how it is shown, and which way is better.

    Attributes:
        name: E.g. "test/accuracy".
    """

    name: str

    @property
    def kind(self) -> str:
        """The name without the split, e.g. "accuracy"."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def lower_is_better(self) -> bool:
        """Whether a small value is a good one: losses and errors."""
        return self.kind.endswith(("loss", "error"))

    @property
    def percent(self) -> bool:
        """Whether it is a fraction, shown in percent."""
        return not self.kind.endswith("loss")

    @property
    def words(self) -> str:
        """The name in words, e.g. "test accuracy"."""
        return self.name.replace("/", " ").replace("_", " ")

    @property
    def label(self) -> str:
        """For headers and axes, e.g. "test accuracy, %"."""
        return self.words + (", %" if self.percent else "")

    def scaled(self, value: float) -> float:
        """Return a value in the unit of `label`."""
        return value * 100 if self.percent else value

    def text(self, value: float | None, signed: bool = False) -> str:
        """Return a value as shown: percent with two decimals, or four decimals; a dash for None."""
        if value is None:
            return NONE
        shown = f"{value * 100:+.2f}" if self.percent else f"{value:+.4f}"
        if float(shown) == 0:
            shown = shown.replace("-", "+")
        return shown if signed else shown.removeprefix("+")

    def signed(self, value: float | None) -> str:
        """Return a difference as shown, with its sign."""
        return self.text(value, signed=True)

    def interval(self, mean: float | None, high: float | None, *, signed: bool = False) -> str:
        """Return a mean and half of its interval, of which `high` is the upper end: "84.30 ± 1.20"; a dash for None."""
        half = None if mean is None or high is None else high - mean
        return NONE if mean is None else f"{self.text(mean, signed)} ± {self.text(half)}"


def format_count(value: float) -> str:
    """Return a count as 61.7 k, 11.17 M or 1.81 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.{1 if unit == 'k' else 2}f} {unit}"
    return f"{value:.0f}"


def format_p_value(value: float) -> str:
    """Return a p-value with three decimals."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def duration_unit(seconds: Iterable[float | None]) -> tuple[str, float]:
    """Return the unit in which all of several durations read well, and its length in seconds."""
    longest = max((value for value in seconds if value is not None), default=0.0)
    return ("h", 3600.0) if longest >= 7200 else ("min", 60.0) if longest >= 120 else ("s", 1.0)


def plural(number: int, noun: str) -> str:
    """Return "1 row", "2 rows" or "10,000 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
