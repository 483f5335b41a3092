"""What the runs of a table predict for each test image, as far as they have seen the same images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convolt.reports.formats import plural
from convolt.reports.records import Row, RunRecord, StudyRecord
from convolt.reports.words import join_names
from convolt.runs.predicted_classes import PredictedClasses, read_predicted_classes

UNREADABLE = "predictions that cannot be read"


@dataclass(frozen=True, eq=False)
class RowPredictions:
    """The predictions of the S runs of one row for the N test images.

    Attributes:
        row: The row.
        runs: Its runs that have predictions, by seed.
        predicted: (S, N), int32, classes.
        correct: (S, N), whether they are the true ones.
    """

    row: Row
    runs: tuple[RunRecord, ...]
    predicted: NDArray[np.int32]
    correct: NDArray[np.bool_]

    def select(self, keys: Sequence[int | str]) -> NDArray[np.bool_]:
        """Return `correct` (K, N) of the runs with these keys (see `RunRecord.key`), in this order."""
        places = {run.key: place for place, run in enumerate(self.runs)}
        return self.correct[[places[key] for key in keys]]


@dataclass(frozen=True, eq=False)
class ImagePredictions:
    """The predictions of all rows for the same N test images.

    Attributes:
        rows: The rows of which at least one run has predictions of these images, in the table's order; none where all
            predictions that there are cannot be read.
        targets: (N,), int32, true classes.
        indices: (N,), int64, places in the stored test array.
        classes: Names of the classes.
        dataset: Name of the prepared dataset.
        dataset_hash: Its digest.
        left_out: One line for each kind of runs that are not here, with the reason.
    """

    rows: tuple[RowPredictions, ...]
    targets: NDArray[np.int32]
    indices: NDArray[np.int64]
    classes: tuple[str, ...]
    dataset: str
    dataset_hash: str
    left_out: tuple[str, ...]

    def of(self, row: Row | None) -> RowPredictions | None:
        """Return the predictions of a row; None where it has none of these images."""
        return next((one for one in self.rows if row is not None and one.row.name == row.name), None)


def read_image_predictions(study: StudyRecord) -> ImagePredictions | None:
    """Read what the finished runs of a table predict.

    Runs of other test images (another prepared dataset, other stored places or true classes) cannot be compared image
    by image: the images that most runs share count, and `left_out` says which runs are not among them.

    Args:
        study: The table.

    Returns:
        The predictions; None where no run keeps predictions of whole images.
    """
    groups: list[tuple[str, PredictedClasses, list[tuple[Row, RunRecord, PredictedClasses]]]] = []
    reasons: dict[str, list[Row]] = {}
    for row, run, found in _read_all(study, reasons):
        digest = run.provenance("dataset_hash")
        for other, first, members in groups:
            if other == digest and first.shows_same_images(found):
                members.append((row, run, found))
                break
        else:
            groups.append((digest, found, [(row, run, found)]))
    if not groups:
        empty = np.empty(0, np.int32)
        lines = _describe_left_out(reasons)
        return ImagePredictions((), empty, empty.astype(np.int64), (), "", "", lines) if UNREADABLE in reasons else None
    digest, first, members = max(groups, key=lambda group: len(group[2]))  # of equally many, the first
    for other, _, rest in groups:
        if rest is not members:
            what = "another prepared dataset" if other != digest else "other test images of the same dataset"
            reasons.setdefault(what, []).extend(row for row, _, _ in rest)
    rows = []
    for row in study.rows:
        own = [(run, found) for other, run, found in members if other is row]
        if own:
            predicted = np.stack([found.predicted for _, found in own])
            rows.append(RowPredictions(row, tuple(run for run, _ in own), predicted, predicted == first.targets))
    result = members[0][1].result
    names = tuple(str(each.get("class")) for each in result.get("per_class") or [] if isinstance(each, dict))
    return ImagePredictions(
        tuple(rows),
        first.targets,
        first.indices,
        names,
        str(result.get("dataset", "")),
        digest,
        _describe_left_out(reasons),
    )


def _describe_left_out(reasons: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    """Say in a line for each reason how many runs are not compared, given the row of each."""
    return tuple(
        f"{plural(len(rows), 'run')} not compared image by image, {reason}: "
        + join_names(dict.fromkeys(f"'{row.name}'" for row in rows))
        for reason, rows in reasons.items()
    )


def _read_all(study: StudyRecord, reasons: dict[str, list[Row]]) -> Iterator[tuple[Row, RunRecord, PredictedClasses]]:
    """Yield the predictions of every finished run that has some; count why others have none."""
    for row in study.rows:
        for run in row.finished:
            try:
                found = read_predicted_classes(run.path)
            except ValueError:
                reasons.setdefault(UNREADABLE, []).append(row)
                continue
            if found is None:
                reasons.setdefault("no predicted classes kept", []).append(row)
            else:
                yield row, run, found
