"""What a report says of single test images: its tables, sheets, files, and how they stand in the page."""

from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import strptime

import numpy as np
from numpy.typing import NDArray

from convolt.figures.events import encode_pictures
from convolt.reports import image_sheets, page
from convolt.reports.deciding_images import (
    SHOWN,
    Contrast,
    HardImages,
    RowContrasts,
    find_contrasts,
    find_hard_images,
    find_most_frequent,
    name_class,
    write_images_csv,
)
from convolt.reports.document import link_figure, slug
from convolt.reports.formats import plural
from convolt.reports.image_predictions import ImagePredictions
from convolt.reports.records import StudyRecord
from convolt.reports.table import ROW, Column, Record, Table, escape_markdown, to_markdown

EVENTS = "tensorboard/events.out.tfevents.0.images"
"""The sheets for TensorBoard, in one file that each report replaces."""

HARD = "images_wrong_in_every_run"
"""The file of that sheet."""

NOT_AT_HAND = (
    "No pictures: the prepared dataset with the digest of these results is not at hand. Make the report where "
    "data.root of the runs can be found; tables/images.csv says which images are meant."
)


@dataclass(frozen=True)
class DecidingSection:
    """The images that decide, in the forms of a report.

    Attributes:
        page: Parts of the page.
        markdown: Parts of report.md.
        tables: To be written beside the others.
        files: Further files, by path relative to the report's folder.
    """

    page: Sequence[str] = ()
    markdown: Sequence[str] = ()
    tables: Sequence[Table] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def build_deciding_section(study: StudyRecord, images: ImagePredictions | None, draw: bool = True) -> DecidingSection:
    """Find the images that decide, and say and show them.

    Args:
        study: The table.
        images: What its runs predict; None: nothing is said.
        draw: Whether to draw sheets.
    """
    if images is None:
        return DecidingSection()
    said = images.rows and any(map(study.baseline_of, study.rows))  # below the table of paired images
    remarks = [] if said else [f"{line}." for line in images.left_out]
    if not images.rows:
        return DecidingSection([*map(page.paragraph, remarks)], [*map(escape_markdown, remarks)])
    contrasts = find_contrasts(study, images)
    runs = sum(len(row.runs) for row in images.rows)
    hard = find_hard_images(images) if runs > 1 else None  # the mistakes of one run stand in its own pictures
    pixels = image_sheets.find_test_images(study, images) if draw and (contrasts or hard) else None
    sheets = {} if pixels is None else dict(_draw_sheets(images, pixels, contrasts, hard))
    tables = []
    remarks += [NOT_AT_HAND] if draw and pixels is None and (contrasts or hard) else []
    shown = [*map(page.paragraph, remarks)]
    if contrasts:
        counts, listed = build_counts(contrasts), build_list(images, contrasts)
        tables += [counts, listed]
        shown.append(page.table(counts))
        for number, one in enumerate(contrasts, 1):
            pictures = [sheets[name] for name in _name_sheets(number, one) if name in sheets]
            own = replace(listed, records=[each for each in listed.records if each["row"] == one.row.row.name])
            numbers = page.collapsible("The images in numbers", [page.table(own, heading=False)])
            shown.append(page.collapsible(f"{one.row.row.name}: {_summarize(one)}", [*map(_show, pictures), numbers]))
    if hard and hard.count:
        table = build_hard_images(images, hard)
        tables.append(table)
        shown += map(_show, [sheets[HARD]] if HARD in sheets else [])
        shown.append(page.collapsible("The images that every run gets wrong in numbers", [page.table(table, False)]))
    files = {"tables/images.csv": write_images_csv(images)}
    files |= {f"figures/{name}.png": sheet.png for name, sheet in sheets.items()}
    if sheets:
        tagged = {f"images/{sheet.tag}": sheet.png for sheet in sheets.values()}
        files[EVENTS] = encode_pictures(tagged, _find_last_end(images))
    return DecidingSection(
        page=shown,
        markdown=[
            *(to_markdown(table) for table in tables if table.name == "deciding"),
            *(link_figure(name, " ".join(sheet.title.split())) for name, sheet in sheets.items()),
            *map(escape_markdown, remarks),
            "Every test image stands in [tables/images.csv](tables/images.csv).",
        ],
        tables=tables,
        files=files,
    )


@dataclass(frozen=True)
class _Sheet:
    """A drawn sheet: its title, its name in TensorBoard, and the PNG file."""

    title: str
    tag: str
    png: bytes


def _draw_sheets(
    images: ImagePredictions, pixels: NDArray[np.uint8], contrasts: Sequence[RowContrasts], hard: HardImages | None
) -> Iterator[tuple[str, _Sheet]]:
    """Yield the sheets that have images, with the names of their files."""
    for number, one in enumerate(contrasts, 1):
        names = image_sheets.name_rows(one.row, one.baseline)
        tags = (f"{one.row.row.name}, right", f"{one.row.row.name}, wrong")
        for file, tag, contrast in zip(_name_sheets(number, one), tags, (one.won, one.lost), strict=True):
            if len(contrast.shown):
                png = image_sheets.draw_contrast(images, pixels, contrast, names)
                yield file, _Sheet(image_sheets.describe_contrast(contrast), tag, png)
    if hard and hard.count:
        png = image_sheets.draw_hard_images(images, pixels, hard)
        yield HARD, _Sheet(image_sheets.describe_hard_images(images, hard), "wrong in every run", png)


def _name_sheets(number: int, one: RowContrasts) -> tuple[str, str]:
    name = f"{number:02}_{slug(one.row.row.name)}"
    return f"images_right_{name}", f"images_wrong_{name}"


def _show(sheet: _Sheet) -> str:
    return page.picture(sheet.png, " ".join(sheet.title.split()), wide=True)


def _summarize(one: RowContrasts) -> str:
    """Say in a few words how many images decide."""
    if not one.won.count and not one.lost.count:
        return f"no image separates all its runs from those of {one.baseline.row.name}"
    return f"{plural(one.won.count, 'image')} right and {one.lost.count:,} wrong against {one.baseline.row.name}"


def _find_last_end(images: ImagePredictions) -> float:
    """Return when the last run ended, in seconds since 1970, by which equal results give equal files; 0: unknown."""
    ends = [0]
    for row in images.rows:
        for run in row.runs:
            with suppress(ValueError):
                ends.append(timegm(strptime(str(run.result.get("finished")), "%Y-%m-%dT%H:%M:%S+0000")))
    return float(max(ends))


def build_counts(contrasts: Sequence[RowContrasts]) -> Table:
    """Return how many images each row gets right alone, and wrong alone."""
    records = [
        {
            "row": one.row.row.name,
            "baseline": one.baseline.row.name,
            "runs": len(one.row.runs),
            "runs_baseline": len(one.baseline.runs),
            "right": one.won.count,
            "right_by_chance": one.won.by_chance,
            "wrong": one.lost.count,
            "wrong_by_chance": one.lost.by_chance,
        }
        for one in contrasts
    ]
    return Table(
        "deciding",
        "Images that separate a row from its baseline",
        "Right here: every run of the row gets the image right and every run of the baseline wrong; wrong here: the "
        "other way. By chance: how many there would be on average if the same runs were dealt out to the two rows at "
        "random. The counts describe these runs and these test images; they test nothing.",
        [
            ROW,
            Column("baseline", "baseline", is_text=True),
            Column("runs", "runs", lambda own, other: f"{own} : {other}", ("runs_baseline",)),
            Column("right here", "right", "{:,}".format),
            Column("by chance", "right_by_chance", "{:.1f}".format),
            Column("wrong here", "wrong", "{:,}".format),
            Column("by chance", "wrong_by_chance", "{:.1f}".format),
        ],
        records,
    )


def build_list(images: ImagePredictions, contrasts: Sequence[RowContrasts]) -> Table:
    """Return the images of the sheets, with what the runs of both rows say."""
    return Table(
        "deciding_images",
        "The images in numbers",
        f"At most {SHOWN} of each kind, as on the sheets; index: place in the test array of the prepared dataset; "
        "predicted: what most runs say, of equally many the first class.",
        [
            ROW,
            Column("side", "side", is_text=True),
            Column("index", "index"),
            Column("true class", "class", is_text=True),
            Column("row predicts", "predicted", _say, ("agreeing", "runs"), is_text=True),
            Column("baseline predicts", "base_predicted", _say, ("base_agreeing", "base_runs"), is_text=True),
        ],
        [
            record
            for one in contrasts
            for side, contrast in (("right here", one.won), ("wrong here", one.lost))
            for record in _list_images(images, one, side, contrast)
        ],
    )


def _list_images(images: ImagePredictions, one: RowContrasts, side: str, contrast: Contrast) -> Iterator[Record]:
    said = [find_most_frequent(row.predicted[:, contrast.shown]) for row in (one.row, one.baseline)]
    for place, own, agreeing, base, base_agreeing in zip(contrast.shown, *said[0], *said[1], strict=True):
        yield {
            "row": one.row.row.name,
            "side": side,
            "index": int(images.indices[place]),
            "class": name_class(images, int(images.targets[place])),
            "predicted": name_class(images, int(own)),
            "agreeing": int(agreeing),
            "runs": len(one.row.runs),
            "base_predicted": name_class(images, int(base)),
            "base_agreeing": int(base_agreeing),
            "base_runs": len(one.baseline.runs),
        }


def build_hard_images(images: ImagePredictions, hard: HardImages) -> Table:
    """Return the images that every run gets wrong."""
    runs = sum(len(row.runs) for row in images.rows)
    return Table(
        "hard_images",
        "Images that every run gets wrong",
        f"{hard.count:,} in all; {len(hard.shown)} of them, those first on whose other class most of the {runs} runs "
        "agree: among them wrong labels are often found. All stand in tables/images.csv, with 0 for right.",
        [
            Column("index", "index"),
            Column("true class", "class", is_text=True),
            Column("most predict", "predicted", _say, ("agreeing", "runs"), is_text=True),
        ],
        [
            {
                "index": int(images.indices[place]),
                "class": name_class(images, int(images.targets[place])),
                "predicted": name_class(images, int(label)),
                "agreeing": int(agreeing),
                "runs": runs,
            }
            for place, label, agreeing in zip(hard.shown, hard.predicted, hard.agreeing, strict=True)
        ],
    )


def _say(label: str, agreeing: int, runs: int) -> str:
    return f"{label} ({agreeing} of {runs})"
