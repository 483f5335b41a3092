"""Sheets of test images under which stands what the runs of rows say, drawn where the dataset is at hand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convolt.data.prepared import open_test_images
from convolt.figures.grid import Pixels, draw_grid
from convolt.figures.style import one_line, shorten, to_bytes
from convolt.reports.deciding_images import Contrast, HardImages, find_most_frequent, name_class
from convolt.reports.formats import plural
from convolt.reports.image_predictions import ImagePredictions, RowPredictions
from convolt.reports.records import StudyRecord
from convolt.runs.files import RunFiles
from convolt.system.files import expand_home

SIDE, COLUMNS = 112, 6
"""Height of an image on a sheet in pixels, and images of a row."""

_LONGEST_NAME = 9
"""Letters of a row's name that fit below an image."""


def find_test_images(study: StudyRecord, images: ImagePredictions) -> NDArray[np.uint8] | None:
    """Open the stored test images that were predicted: those of the prepared dataset with the same digest.

    They are looked for in `data.root` of the runs, as seen from here and from the folders above the study, and in
    `data`, where datasets lie if nothing is said.

    Returns:
        (M, H, W, C), mapped; None where no folder has them.
    """
    folders = [Path(), *(study.source or study.path).absolute().parents]
    for root in dict.fromkeys([*_read_roots(images), "data"]):
        for folder in dict.fromkeys(folder / expand_home(root) / images.dataset for folder in folders):
            found = open_test_images(folder, images.dataset_hash)
            if found is not None and images.indices.max(initial=-1) < len(found):
                return found
    return None


def _read_roots(images: ImagePredictions) -> Iterator[str]:
    """Yield `data.root` of each row's first run, unless it depends on the environment."""
    for row in images.rows:
        data = RunFiles(row.runs[0].path).raw_settings().get("data")
        root = data.get("root") if isinstance(data, dict) else None
        if isinstance(root, str) and "${" not in root:
            yield root


def draw_contrast(
    images: ImagePredictions, pixels: NDArray[np.uint8], contrast: Contrast, names: dict[str, str]
) -> bytes:
    """Draw the images that one row gets right and another wrong.

    Args:
        images: All predictions.
        pixels: The stored test images.
        contrast: The rows and images.
        names: What stands for either row below each image, by its name.

    Returns:
        A PNG file.
    """
    captions = []
    for place in contrast.shown:
        lines = [_caption(images, int(place))]
        for row in (contrast.right, contrast.wrong):
            label, count = (int(each[0]) for each in find_most_frequent(row.predicted[:, [place]]))
            lines.append(f"{names[row.row.name]} {count}/{len(row.runs)}: {one_line(name_class(images, label))}")
        captions.append("\n".join(lines))
    rows = [f"{shown}: {name}" for name, shown in names.items() if shown != name]
    note = "Below each image: true class and #place in the test array; how many runs say what."
    return _draw(images, pixels, contrast.shown, describe_contrast(contrast), captions, "\n".join([note, *rows]))


def name_rows(first: RowPredictions, second: RowPredictions) -> dict[str, str]:
    """Return what stands for a row and its baseline below images: their names, if both are short."""
    names = [first.row.name, second.row.name]
    fits = max(map(len, names)) <= _LONGEST_NAME
    return dict(zip(names, names if fits else ("row", "base"), strict=True))


def describe_contrast(contrast: Contrast) -> str:
    """Return the title of a sheet."""
    shown = len(contrast.shown)
    right, wrong = (
        f"{f'all {n} runs' if (n := len(row.runs)) > 1 else 'the run'} of {shorten(row.row.name, 30)}"
        for row in (contrast.right, contrast.wrong)
    )
    if contrast.count:
        of = f"{shown} of {contrast.count:,} images" if contrast.count > shown else plural(shown, "image")
        return f"Right in {right},\nwrong in {wrong}: {of}"
    better, other = (shorten(row.row.name, 30) for row in (contrast.right, contrast.wrong))
    return f"More often right in runs of {better} than of {other}:\nthe largest differences (none is unanimous)"


def draw_hard_images(images: ImagePredictions, pixels: NDArray[np.uint8], hard: HardImages) -> bytes:
    """Draw the images that every run gets wrong, as a PNG file (see `draw_contrast`)."""
    runs = sum(len(row.runs) for row in images.rows)
    captions = [
        f"{_caption(images, int(place))}\n{count}/{runs}: {one_line(name_class(images, int(label)))}"
        for place, label, count in zip(hard.shown, hard.predicted, hard.agreeing, strict=True)
    ]
    note = "Below each image: true class and #place in the test array; how many runs say which other class."
    return _draw(images, pixels, hard.shown, describe_hard_images(images, hard), captions, note)


def describe_hard_images(images: ImagePredictions, hard: HardImages) -> str:
    """Return the title of the sheet."""
    runs, shown = sum(len(row.runs) for row in images.rows), len(hard.shown)
    of = f"{shown} of {hard.count:,} images" if hard.count > shown else plural(shown, "image")
    return f"Wrong in all {runs} runs: {of},\nthose first on whose other class most runs agree"


def _caption(images: ImagePredictions, place: int) -> str:
    return f"true {one_line(name_class(images, int(images.targets[place])))}, #{images.indices[place]}"


def _draw(
    images: ImagePredictions,
    pixels: NDArray[np.uint8],
    places: NDArray[np.int64],
    title: str,
    captions: list[str],
    note: str,
) -> bytes:
    stored = pixels[images.indices[places]].astype(np.float32) / np.float32(255)
    shown: list[Pixels] = list(stored[..., :3] if stored.shape[3] >= 3 else stored[..., :1])
    return to_bytes(draw_grid(shown, title, columns=COLUMNS, captions=captions, side=SIDE, gap=12, note=note))
