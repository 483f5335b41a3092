"""What the runs of a table were made with, and which of its rows were made differently."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from convolt.errors import some
from convolt.reports.records import Row, RunRecord, StudyRecord
from convolt.reports.table import Note

PROVENANCE = {
    "git_commit": "commit",
    "dataset_hash": "prepared data",
    "device": "device",
    "precision": "precision",
    "torch": "PyTorch",
    "checkpoint": "tested checkpoint",
}
CHECKPOINTS = {"best": "the one that was best on validation", "last": "the last epoch's"}


def shorten_hash(key: str, value: str) -> str:
    """Shorten a commit or a digest to what people quote."""
    if key == "dataset_hash":
        return value[:12]
    return re.sub(r"^([0-9a-f]{8})[0-9a-f]+", r"\1", value) if key == "git_commit" else value


def count_provenance(runs: Iterable[RunRecord], key: str) -> Counter[str]:
    """Count the values of one entry of `PROVENANCE` over the finished runs."""
    finished = (run for run in runs if run.state == "finished" and not (key == "checkpoint" and run.diverged))
    return Counter(shorten_hash(key, run.provenance(key)) for run in finished)


def collect_provenance(study: StudyRecord) -> list[tuple[str, str]]:
    """Return what the runs of a table were made with, as (what, values with their counts where they differ)."""
    facts = []
    for key, name in PROVENANCE.items():
        counts = count_provenance(study.runs, key)
        values = [value if len(counts) == 1 else f"{value} ({n} runs)" for value, n in counts.most_common()]
        if values:
            facts.append((name, ", ".join(values)))
    return facts


def note_provenance(study: StudyRecord) -> list[Note]:
    """Mark the rows that were not made like most runs of the table; prepared data: of those with the same `data`."""
    notes = []
    for row in study.rows:
        extended = Counter(run.extended for run in row.finished if run.extended)
        texts = [row.note] if row.note else []
        notes += [Note(row.name, "row", text) for text in texts + _with_counts(extended, len(row.finished))]
    for key, name in PROVENANCE.items():
        counts: dict[tuple[str, ...], Counter[str]] = {}
        found = [(row, count_provenance(row.runs, key), _get_data(row, key)) for row in study.rows]
        for _, own, data in found:
            counts.setdefault(data, Counter()).update(own)
        for row, own, data in found:
            usual, _ = next(iter(counts[data].most_common(1)), ("", 0))
            for other in sorted({*own} - {usual}):
                notes.append(Note(row.name, "row", f"{name} {other}; most runs of this table: {usual}"))
    return notes


def _get_data(row: Row, key: str) -> tuple[str, ...]:
    """Return the overrides by which a row chooses its data, where a provenance is about them."""
    return tuple(text for text in row.overrides if text.startswith("data=")) if key == "dataset_hash" else ()


def find_unlike_rows(study: StudyRecord) -> list[str]:
    """Return the rows that `note_provenance` marks, but for what the study's author wrote."""
    marks = {(note.row, note.text) for note in note_provenance(study)}
    return [row.name for row in study.rows if any(name == row.name and text != row.note for name, text in marks)]


def _with_counts(counts: Counter[str], total: int) -> list[str]:
    """Return remarks on runs, each with how many of them it holds for if not for all."""
    return [text if n == total else f"{text} ({n} of {total} runs)" for text, n in counts.items()]


def describe_checkpoint(study: StudyRecord) -> str:
    """Say in a sentence which checkpoint was tested."""
    tested = sorted(count_provenance(study.runs, "checkpoint"))
    if not tested:
        return "No run has finished." if not study.runs or "finished" not in study.states else "Every run has diverged."
    if not any(name.startswith("test/") for run in study.runs for name in run.result.get("metrics", {})):
        return "Nothing was tested (trainer.test=none): numbers of the checkpoint that would be."
    if tested == ["not recorded"]:
        return "The runs do not record which checkpoint was tested."
    if len(tested) > 1:
        return f"Tested checkpoints differ: {', '.join(tested)}."
    return f"Tested checkpoint: {CHECKPOINTS.get(tested[0], tested[0])}."


def describe_data(study: StudyRecord) -> list[str]:
    """Return what the finished runs record about their images: files left out, and what was done to the others."""
    finished = [run for run in study.runs if run.state == "finished"]
    return _with_counts(Counter(line for run in finished for line in _list_remarks(run.result)), len(finished))


def _list_remarks(result: dict[str, Any]) -> list[str]:
    """Return the remarks of one `result.json`; those of older versions have none."""
    skipped, notes = result.get("skipped"), result.get("notes")
    files = skipped.get("files") if isinstance(skipped, dict) else None
    lines = [str(note) for note in notes] if isinstance(notes, list) else []
    if isinstance(files, list) and files:
        left_out = f"files that could not be read and were left out ({len(files):,}): {some(map(str, files), '; ')}"
        lines.insert(0, left_out)
    return lines
