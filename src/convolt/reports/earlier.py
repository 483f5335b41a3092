"""What the report of a study said before: seeds that were added after it spoil the intervals of fixed seeds."""

import csv

from convolt.reports.records import StudyRecord

SEEDS_ADDED = (
    "seeds were added after a report was made: p-values and intervals of fixed-seed studies do not hold for seeds that "
    "are added after looking; use hydra.sweeper.settle"
)


def find_added_seeds(study: StudyRecord) -> dict[str, int]:
    """Return how many seeds each row had that was reported with an interval before seeds were added to it.

    Seeds that were planned and had not finished are not added ones. The number stands in `tables/results.csv` of each
    later report, so that the next one still knows it.

    Args:
        study: The table; those that are no study of fixed seeds have no rows here.
    """
    if study.kind != "study" or study.settling is not None:
        return {}
    try:
        with (study.path / "report" / "tables" / "results.csv").open(encoding="utf-8", newline="") as file:
            lines = {str(line.get("row")): line for line in csv.DictReader(file)}
    except (OSError, ValueError, csv.Error):
        return {}
    found = {}
    for row in study.rows:
        line = lines.get(row.name, {})
        before = _whole(line.get("seeds_at_first_report"))
        planned = _whole(line.get("runs_expected"))
        if before is None and (_whole(line.get("n")) or 0) > 1:
            before = planned
        if before is not None and before < len(row.runs):
            found[row.name] = before
    return found


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
