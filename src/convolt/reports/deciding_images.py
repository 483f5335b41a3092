"""Which test images tell rows apart: right in every run of one and wrong in every run of the other, or wrong in all."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from convolt.reports.image_predictions import ImagePredictions, RowPredictions
from convolt.reports.records import StudyRecord

SHOWN = 24
"""Images of a sheet, and of its table."""

Places = NDArray[np.int64]
"""Places among the N test images of the predictions; `ImagePredictions.indices` says where those are stored."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """The images that speak for one row and against another.

    Attributes:
        right: The row whose runs are right.
        wrong: The row whose runs are wrong.
        count: Images that all runs of `right` and none of `wrong` get right.
        by_chance: How many these would be on average, were the runs of both rows dealt out to them at random.
        shown: Some of them; where there is none, those with the largest differences in the share of right runs.
    """

    right: RowPredictions
    wrong: RowPredictions
    count: int
    by_chance: float
    shown: Places


@dataclass(frozen=True, eq=False)
class RowContrasts:
    """A row beside its baseline: the images that speak for either.

    Attributes:
        won: Right in the row, wrong in the baseline.
        lost: The other way.
    """

    won: Contrast
    lost: Contrast

    @property
    def row(self) -> RowPredictions:
        """The row."""
        return self.won.right

    @property
    def baseline(self) -> RowPredictions:
        """Its baseline."""
        return self.won.wrong


@dataclass(frozen=True, eq=False)
class HardImages:
    """The images that every run of every row gets wrong.

    Attributes:
        count: How many there are.
        shown: Some of them, those first on whose class most runs agree.
        predicted: That class of each.
        agreeing: How many runs predict it.
    """

    count: int
    shown: Places
    predicted: NDArray[np.int64]
    agreeing: NDArray[np.int64]


def find_most_frequent(predicted: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the class that most runs predict for each image, of equally frequent ones the first, and how many do.

    Args:
        predicted: (S, N).
    """
    images = np.arange(predicted.shape[1])
    counts = np.zeros((len(images), int(predicted.max(initial=0)) + 1), np.int16)
    for run in predicted:
        counts[images, run] += 1
    classes = counts.argmax(1)
    return classes, counts[images, classes].astype(np.int64)


def find_contrasts(study: StudyRecord, images: ImagePredictions) -> list[RowContrasts]:
    """Return the contrasts of every row that has a baseline."""
    found = []
    for row in images.rows:
        baseline = images.of(study.baseline_of(row.row))
        if baseline is not None:
            found.append(RowContrasts(find_contrast(row, baseline), find_contrast(baseline, row)))
    return found


def find_contrast(right: RowPredictions, wrong: RowPredictions) -> Contrast:
    """Return the images that one row gets right and another wrong.

    Those come first that differ most in the share of right runs, then those on whose class the wrong row's runs agree,
    then in the order of the test images. Under a random deal of the runs, an image that as many runs get right as
    `right` has is such an image with the chance 1 / C(runs of both, runs of `right`).
    """
    seeds, others = len(right.correct), len(wrong.correct)
    hits, misses = right.correct.sum(0), others - wrong.correct.sum(0)
    unanimous = (hits == seeds) & (misses == others)
    share = hits / seeds + misses / others - 1
    candidates = np.flatnonzero(unanimous if unanimous.any() else share > 0)
    _, agreeing = find_most_frequent(wrong.predicted[:, candidates])
    order = np.lexsort((-agreeing, -share[candidates]))
    possible = int((hits + others - misses == seeds).sum())
    return Contrast(
        right, wrong, int(unanimous.sum()), possible / comb(seeds + others, seeds), candidates[order[:SHOWN]]
    )


def find_hard_images(images: ImagePredictions) -> HardImages:
    """Return the images that every run gets wrong; a wrong label is often found among the first of them.

    The more runs of different rows agree on one other class, the less it is chance of one training (compare Northcutt,
    Athalye and Mueller 2021, arXiv:2103.14749).
    """
    wrong = np.flatnonzero(~np.any([row.correct.any(0) for row in images.rows], axis=0))
    classes, agreeing = find_most_frequent(np.concatenate([row.predicted[:, wrong] for row in images.rows]))
    order = np.argsort(-agreeing, kind="stable")[:SHOWN]
    return HardImages(len(wrong), wrong[order], classes[order], agreeing[order])


def name_class(images: ImagePredictions, label: int) -> str:
    """Return the name of a class; its number where the results name none."""
    return images.classes[label] if label < len(images.classes) else str(label)


def write_images_csv(images: ImagePredictions) -> bytes:
    """Return a CSV of every test image: its class, the share of right runs over all and by row, what most say."""
    rows = images.rows
    runs = sum(len(row.runs) for row in rows)
    labels, agreeing = find_most_frequent(np.concatenate([row.predicted for row in rows]))
    names = [name_class(images, label) for label in range(1 + max(labels.max(), images.targets.max()))]
    hits = [row.correct.sum(0) for row in rows]
    head = ["index", "class", "right", "most_predicted", "runs_predicting_it", "runs"]
    columns: list[Sequence[object]] = [
        images.indices.tolist(),
        [names[label] for label in images.targets.tolist()],
        _shares(np.sum(hits, axis=0), runs),
        [names[label] for label in labels.tolist()],
        agreeing.tolist(),
        [runs] * len(labels),
        *(_shares(each, len(row.runs)) for each, row in zip(hits, rows, strict=True)),
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *(f"right: {row.row.name}" for row in rows)])
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue().encode()


def _shares(hits: NDArray[np.int64], runs: int) -> list[str]:
    """Return hits as shares of the runs, in six digits; each is written once, which takes a tenth of the time."""
    texts = [f"{hit / runs:.6g}" for hit in range(runs + 1)]
    return [texts[hit] for hit in hits.tolist()]
