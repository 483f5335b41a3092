"""Write the front table of docs/results/README.md: every published row beside ours, from the bundles that lie there.

python scripts/published_table.py           write it
python scripts/published_table.py --check   exit 1 if it is stale

A run counts if it has the settings of the study's page (config hashes agree) and is in a bundle (docs/results/*/*.zip).
What a row without runs would take is from docs/results/plan.csv (scripts/published_plan.py).
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from convolt.config.compose import compose
from convolt.reports.formats import Metric, plural
from convolt.reports.statistics import summarize
from convolt.runs.bundle import read_bundle, read_packed_result
from convolt.runs.config_hash import config_hash
from convolt.system.installation import CONF

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
BEGIN, END = "<!-- published: scripts/published_table.py -->\n", "<!-- end -->\n"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast one where there is one."""


class Cost(NamedTuple):
    """Hours on one core of a run and of all seeds, and whether a run may end before."""

    hours: float
    at_most: bool
    hours_of_all_seeds: float


@dataclass
class PublishedRow:
    """One published row, and what the bundles have of it.

    Attributes:
        study: The page.
        row: Its name there.
        metric: The one that is compared; None: no test result is printed for it.
        published: Its published number.
        values: Ours, by seed, of the page's settings.
        other_settings: Finished runs of other settings.
        used: Whether the published number chose among candidates.
    """

    study: str
    row: str
    metric: Metric | None
    published: float
    values: dict[int, float] = field(default_factory=dict)
    other_settings: int = 0
    used: bool = False


def read_rows(studies: Path, results: Path) -> list[PublishedRow]:
    """Return every published row of the pages, with the results of the bundles.

    Args:
        studies: The folder of the pages.
        results: The folder of the studies' results.
    """
    bundles: dict[str, list[Any]] = {}
    for path in sorted(results.glob("*/*.zip")):
        bundle = read_bundle(path)
        if bundle.study is not None:
            bundles.setdefault(str(bundle.study["name"]), []).append(bundle)
    rows = []
    for path in sorted(studies.glob("*.yaml")):
        page: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        for name, content in page["runs"].items():
            if published := (content or {}).get("published"):
                row = _read_published(path.stem, name, published)
                for bundle in bundles.get(path.stem, []):
                    _add_results(row, page, bundle)
                row.used = row.used or _has_chosen(page, name)
                rows.append(row)
    return rows


def _read_published(study: str, name: str, published: dict[str, Any]) -> PublishedRow:
    tested = [key for key in published if key.startswith("test/") and key != "test/loss"]
    metric = Metric("test/accuracy" if "test/accuracy" in tested else tested[0]) if tested else None
    return PublishedRow(study, name, metric, float(published[metric.name]) if metric else 0.0)


def _has_chosen(page: dict[str, Any], row: str) -> bool:
    block = page.get("candidates") or {}
    return block.get("chosen") is not None and row in block["rows"]


def _add_results(row: PublishedRow, page: dict[str, Any], bundle: Any) -> None:
    """Add what a bundle has of a row."""
    for run in bundle.study["rows"].get(row.row, {}).get("runs", []):
        result = read_packed_result(bundle.runs.get(run["dir"], {}))
        value = result.get("metrics", {}).get(row.metric.name) if row.metric else None
        if value is None:
            continue
        typed = [*page["base"], *page["runs"][row.row].get("overrides", []), f"seed={run['seed']}"]
        if result["config_hash"] == config_hash(compose(typed)):
            row.values[run["seed"]] = value
        else:
            row.other_settings += 1
    block = bundle.study.get("candidates") or {}
    tried = [run["dir"] for each in block.get("settings", []) for run in each["runs"]]
    if row.row in block.get("rows", []) and any("result.json" in bundle.runs.get(place, {}) for place in tried):
        row.used = True


def read_plan(path: Path) -> dict[tuple[str, str], Cost]:
    """Return by study and row what runs cost; nothing where it was not measured."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (line["study"], line["row"]): Cost(
                float(line["seconds_a_run"]) / 3600, bool(line["at_most"]), float(line["hours_of_all_seeds"])
            )
            for line in csv.DictReader(file)
        }


def _read_unbundled(results: Path, study: str) -> set[str]:
    """Return the rows of a study with results in a report that was published without a bundle."""
    table = results / study / "tables" / "results.csv"
    if not table.is_file() or any((results / study).glob("*.zip")):
        return set()
    with table.open(newline="", encoding="utf-8") as file:
        return {line["row"] for line in csv.DictReader(file) if line["n"] not in ("", "0")}


def judge(row: PublishedRow) -> tuple[str, str]:
    """Return ours with its interval, and in or out: whether the published number lies in the interval."""
    assert row.metric is not None
    summary = summarize(list(row.values.values()))
    assert summary is not None
    ours = row.metric.interval(summary.mean, summary.high) if summary.n > 1 else row.metric.text(summary.mean)
    within = summary.contains(row.published)
    outcome = "one seed, no interval" if within is None else "in" if within else "out"
    return ours, outcome + ("; used in choosing the settings, no evidence" if row.used else "")


def write_lines(rows: list[PublishedRow], plan: dict[tuple[str, str], Cost], results: Path) -> Iterator[str]:
    """Yield the lines of the table, and of what stands below it."""
    yield "| study | row | published | ours, mean ± 95% | n | in or out |"
    yield "|---|---|--:|--:|--:|---|"
    hours, counts = 0.0, dict.fromkeys(("in", "out", "one"), 0)
    for row in rows:
        there = (results / row.study / "report.md").is_file()
        study = f"[{row.study}]({row.study}/report.md)" if there else row.study
        ours, n = "", ""
        if row.metric is None:
            outcome = "no test result is printed"
        elif row.values:
            (ours, outcome), n = judge(row), str(len(row.values))
            counts[outcome.partition(";")[0].partition(" ")[0]] += 1
        elif row.row in _read_unbundled(results, row.study):
            outcome = "run before results were kept in bundles: see its report"
        elif cost := plan.get((row.study, row.row)):
            outcome = f"not run: {'at most ' if cost.at_most else ''}{format_hours(cost.hours)} a seed"
            hours += cost.hours_of_all_seeds
        else:
            outcome = "not run"
        if row.other_settings:
            outcome += f"; {plural(row.other_settings, 'run')} of other settings than the page's left out"
        published = row.metric.text(row.published) if row.metric else ""
        yield f"| {study} | `{row.row}` | {published} | {ours} | {n} | {outcome} |"
    yield ""
    run = sum(bool(row.values) for row in rows)
    yield (
        f"{run} of {len(rows)} rows have runs in bundles: {counts['in']} in, {counts['out']} out, {counts['one']} with "
        f"one seed. All seeds of the rows that were not run would take {hours:,.0f} hours of one core "
        "([plan](plan.csv))."
    )


def format_hours(hours: float) -> str:
    """Return hours, of less than one the minutes."""
    return (
        f"{hours:,.0f} h" if hours >= 9.5 else f"{hours:.1f} h" if hours >= 0.95 else f"{max(1, round(hours * 60))} min"
    )


def main() -> int:
    """Write or check."""
    page = RESULTS / "README.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = write_lines(read_rows(CONF / "study", RESULTS), read_plan(RESULTS / "plan.csv"), RESULTS)
    fresh = before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after
    if "--check" in sys.argv:
        print(
            "docs/results/README.md is stale: python scripts/published_table.py" if fresh != text else "the table holds"
        )
        return int(fresh != text)
    page.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
