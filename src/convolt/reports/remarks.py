"""What was done to the images of a table's runs, or left out of them."""

from collections import Counter
from typing import Any

from convolt.errors import some
from convolt.reports.records import StudyRecord


def remarks(study: StudyRecord) -> list[str]:
    """Return a line for each thing that the finished runs tell of their images, with how many tell it if not all do."""
    finished = [run for run in study.runs if run.state == "finished"]
    counts = Counter(line for run in finished for line in _lines(run.result))
    return [line if n == len(finished) else f"{line} ({n} of {len(finished)} runs)" for line, n in counts.items()]


def _lines(result: dict[str, Any]) -> list[str]:
    """Return what one `result.json` tells; those of older versions tell nothing."""
    skipped, notes = result.get("skipped"), result.get("notes")
    files = skipped.get("files") if isinstance(skipped, dict) else None
    lines = [str(note) for note in notes] if isinstance(notes, list) else []
    if isinstance(files, list) and files:
        lines.insert(
            0, f"files that could not be read and were left out ({len(files):,}): {some(map(str, files), '; ')}"
        )
    return lines
