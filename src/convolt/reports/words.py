"""The parts of sentences on numbers: amounts with units, lists of names, verbs that fit them."""

from collections.abc import Iterable

from convolt.reports.formats import Metric, plural


def format_value(metric: Metric, value: float) -> str:
    """Return a value with its unit: "84.30%"."""
    return metric.text(value) + ("%" if metric.percent else "")


def format_amount(metric: Metric, value: float | None, signed: bool = False) -> str:
    """Return a difference with its unit: "2.10 points"."""
    return metric.text(value, signed) + (" points" if metric.percent else "")


def format_interval(metric: Metric, low: float | None, high: float | None) -> str:
    """Return an interval that follows a number: " [1.40, 2.80]"; nothing where there is none, or it has no width."""
    return "" if low is None or high is None or low == high else f" [{metric.text(low)}, {metric.text(high)}]"


def count_range(numbers: Iterable[int], noun: str) -> str:
    """Return "5 seeds" or "3 to 5 seeds"; empty where all are 0."""
    low, high = min(found := [number for number in numbers if number] or [0]), max(found)
    return "" if high == 0 else plural(high, noun) if low == high else f"{low} to {plural(high, noun)}"


def join_names(names: Iterable[str], limit: int = 3) -> str:
    """Return "a, b and c", or "a, b and 5 more" where there are more than `limit`."""
    shown = [*names]
    if len(shown) > limit:
        shown = [*shown[: limit - 1], f"{len(shown) - limit + 1} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def agree(count: int, verb: str) -> str:
    """Return a verb that fits the number of its subjects."""
    return verb if count == 1 else {"is": "are", "was": "were", "has": "have", "differs": "differ"}[verb]


def capitalize(text: str) -> str:
    """Return a text that begins a sentence."""
    return text[:1].upper() + text[1:]
