"""Tables of what rows say of the same test images: beside the baseline, seed by seed, and how far runs agree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convolt.reports import page
from convolt.reports.decisions import CLAIMS, Settling, VerdictRecord
from convolt.reports.formats import Metric, format_p_value, plural
from convolt.reports.image_predictions import ImagePredictions, RowPredictions
from convolt.reports.paired_images import PairedImages, measure_agreement, pair_images
from convolt.reports.records import Row, StudyRecord, finite
from convolt.reports.table import ROW, Column, Record, Table

ACCURACY = Metric("test/accuracy")
REMARKS = {
    "images": "the test set is the limit",
    "seeds": "the seeds are the limit",
    "": "",
}
MATRIX = 6
"""With more rows than this, agreement is shown with the baseline only; the CSV has it with every row."""
INTERVAL_METHOD = (
    "Paired images: runs of the same seed are compared on the same test images. Seeds and images are crossed, and the "
    "interval of the difference of accuracies is for other seeds and other images of the same kind together. Its "
    "squared half width is the sum of two: that of the t interval over seeds for these images, and that of the "
    "variance which images add (Banerjee 1960, Sankhya 22, 357-358); so it is never narrower than the first."
)
SEED_METHOD = (
    "The exact McNemar test (1947) of one seed asks whether two trained networks are equally accurate on other images. "
    "It says nothing about other seeds, is not corrected for their number, and no claim about a row rests on it."
)


@dataclass(frozen=True)
class PairedRow:
    """A row beside its baseline.

    Attributes:
        row: The row.
        baseline: The row that it is compared with.
        keys: What pairs their runs: seeds, or one path where there is none.
        found: The comparison; None where no two runs can be compared.
        half_width: Of the difference's interval; None: no interval, no claim.
        remark: One line; may be empty.
        look: In a settled study, the seeds of its look.
    """

    row: Row
    baseline: Row
    keys: tuple[int | str, ...] = ()
    found: PairedImages | None = None
    half_width: float | None = None
    remark: str = ""
    look: int | None = None


def pair_rows(study: StudyRecord, predictions: ImagePredictions) -> list[PairedRow]:
    """Compare every row that has a baseline with it, image by image."""
    pairs = [(row, baseline) for row in study.rows if (baseline := study.baseline_of(row))]
    return [_pair(row, baseline, predictions, study.settling) for row, baseline in pairs]


def _pair(row: Row, baseline: Row, predictions: ImagePredictions, settling: Settling | None) -> PairedRow:
    """Compare one row; in a settled study, over the seeds of its look."""
    own, others = predictions.of(row), predictions.of(baseline)
    if own is None or others is None:
        return PairedRow(row, baseline, remark="no predictions of these images")
    verdict = settling.verdicts.get((row.base, row.swept)) if settling and settling.metric == ACCURACY else None
    known = {run.key for run in others.runs}
    keys = [run.key for run in own.runs if run.key in known][: verdict.n if verdict else None]
    if keys:
        found = pair_images(own.select(keys), others.select(keys))
    elif len(own.runs) == len(others.runs) == 1:
        keys = [own.runs[0].key]
        found = pair_images(own.correct, others.correct)
    else:
        return PairedRow(row, baseline, remark="no common seed")
    paired = PairedRow(row, baseline, tuple(keys), found)
    if settling:
        return _judge(paired, found, settling, verdict)
    remark = REMARKS[found.find_limit()]
    if len(keys) == 1:
        remark = "one seed: it says nothing about other seeds"
        if keys[0] not in known:
            remark = "two networks of different seeds: it says nothing about the rows with other seeds"
    return replace(paired, half_width=found.find_half_width(), remark=remark)


def _judge(paired: PairedRow, found: PairedImages, settling: Settling, verdict: VerdictRecord | None) -> PairedRow:
    """Give a settled study's row the interval of its look."""
    if verdict is None or verdict.n is None or verdict.mean is None or verdict.half_width is None:
        return replace(paired, remark="no look judges it: no claim")
    if len(paired.keys) < verdict.n or abs(found.difference - verdict.mean) > 1e-6:
        return replace(paired, remark="not all predictions of its look are here: no claim")
    # Images are the same at every look, so that what they add has the last and smallest value of all looks.
    values = settling.critical_values[settling.looks.index(verdict.n)], settling.critical_values[-1]
    half, remark = found.find_half_width(values), REMARKS[found.find_limit(values)]
    low, high = found.difference - half, found.difference + half
    holds = not low <= 0 <= high
    if verdict.word == "negligible":
        holds = settling.margin is not None and -settling.margin < low and high < settling.margin
    if verdict.word in CLAIMS and not holds:
        remark = "; ".join(filter(None, (f"{verdict.word} for these test images, open for others", remark)))
    return replace(paired, half_width=half, remark=remark, look=verdict.n)


def build_image_tables(study: StudyRecord, predictions: ImagePredictions | None) -> list[Table]:
    """Build the tables of single images that have content: "paired_images", "mcnemar", "agreement".

    Args:
        study: The table of runs.
        predictions: What its runs predict.
    """
    if predictions is None or not predictions.rows:
        return []
    paired = pair_rows(study, predictions)
    tables = [build_paired_images(study, predictions, paired)] if paired else []
    # Where results decided how many seeds ran, nothing but the interval of the look has a claim.
    if study.settling is None and any(one.found for one in paired):
        tables.append(build_mcnemar(paired))
    if sum(len(row.runs) for row in predictions.rows) > 1:
        tables.append(build_agreement(study, predictions))
    return tables


def show_image_tables(tables: Sequence[Table]) -> list[str]:
    """Return the tables for the page."""
    return [
        page.collapsible("Each seed by itself", [page.table(table)]) if table.name == "mcnemar" else page.table(table)
        for table in tables
    ]


def describe_image_methods(tables: Sequence[Table]) -> list[str]:
    """Return the paragraphs on methods that the tables need."""
    methods = {"paired_images": INTERVAL_METHOD, "mcnemar": SEED_METHOD}
    return [methods[table.name] for table in tables if table.name in methods]


def build_paired_images(study: StudyRecord, predictions: ImagePredictions, paired: Sequence[PairedRow]) -> Table:
    """Build the table of rows beside the baseline on the same images."""
    columns = [
        ROW,
        Column("seeds", "pairs"),
        Column("only the row right", "only_row", "{:,.1f}".format),
        Column("only the baseline right", "only_baseline", "{:,.1f}".format),
        Column(
            f"difference ± {f'repeated {study.settling.level}' if study.settling else '95%'}",
            "difference",
            lambda mean, high: ACCURACY.interval(mean, high, signed=True),
            ("difference_high",),
        ),
    ]
    records = [_make_record(one) for one in paired]
    shares = any(record.get("share_seeds") is not None for record in records)
    if shares:
        label = "variance: seeds / images / rest, %"
        columns.append(Column(label, "share_seeds", _format_shares, ("share_images", "share_rest")))
    if any(one.remark for one in paired):
        columns.append(Column("remark", "remark", is_text=True))
    caption = (
        f"{plural(len(predictions.targets), 'test image')} of {predictions.dataset or 'one dataset'}. Images that the "
        f"row's run gets right and that of '{study.baseline}' with the same seed wrong, and the other way round, the "
        "mean over seeds; difference of their accuracies ± half of its interval for new seeds and new test images "
        "together (one seed: for new test images). "
    )
    if shares:
        caption += (
            "Variance: what seeds, images and the rest contribute to it; more seeds lower the first and the last, more "
            "images the second and the last. Where one is the limit, more of the other will not help. "
        )
    caption += _describe_settled(study.settling) if study.settling else "Each interval stands for itself."
    if predictions.left_out:
        caption += f" {'. '.join(predictions.left_out)}."
    return Table("paired_images", "The same images, beside the baseline", caption, columns, records)


def _describe_settled(settling: Settling) -> str:
    if settling.metric != ACCURACY:
        return f"Seeds were added until {settling.metric.words} was settled: no interval and no claim."
    return (
        "The interval is the repeated one of the row's look, widened by what images add: together, those of all rows "
        f"at all looks hold the true differences, for new seeds and new images, in at least {settling.level} of "
        "studies. Verdicts are about new seeds on these test images."
    )


def _make_record(one: PairedRow) -> Record:
    """Return the unrounded numbers of one row."""
    found, half = one.found, one.half_width
    numbers: dict[str, object] = {"row": one.row.name, "baseline": one.baseline.name}
    if found:
        numbers |= {"images": found.images, "pairs": found.seeds}
        numbers |= {"only_row": float(np.mean(found.only_row)), "only_baseline": float(np.mean(found.only_baseline))}
        numbers |= {"difference": found.difference}
        low, high = (None, None) if half is None else (found.difference - half, found.difference + half)
        numbers |= {"difference_low": low, "difference_high": high}
        # With one seed nothing is known of seeds, and without a look nothing may be said of the difference's spread.
        shares = found.shares if found.seeds > 1 and half is not None else (None, None, None)
        numbers |= dict(zip(("share_seeds", "share_images", "share_rest"), shares, strict=True))
    return numbers | {"look": one.look, "remark": one.remark or None}


def _format_shares(*shares: float) -> str:
    return " / ".join(f"{100 * share:.0f}" for share in shares)


def build_mcnemar(paired: Sequence[PairedRow]) -> Table:
    """Build the table of every seed by itself."""
    records = [
        {"row": one.row.name, "baseline": one.baseline.name, "seed": key, "images": one.found.images}
        | {"only_row": a, "only_baseline": b, "difference": (a - b) / one.found.images, "p_value": p}
        for one in paired
        if one.found
        for key, a, b, p in zip(one.keys, one.found.only_row, one.found.only_baseline, one.found.p_values, strict=True)
    ]
    columns = [
        ROW,
        Column("seed", "seed", is_text=True),
        Column("only the row right", "only_row", "{:,}".format),
        Column("only the baseline right", "only_baseline", "{:,}".format),
        Column("difference", "difference", ACCURACY.signed),
        Column("McNemar p", "p_value", format_p_value),
    ]
    caption = (
        "Two trained networks of one seed on the same test images; p: exact McNemar test, about these two networks "
        "alone and not corrected for the number of tests. It says nothing about other seeds."
    )
    return Table("mcnemar", "Images, seed by seed", caption, columns, records)


def build_agreement(study: StudyRecord, predictions: ImagePredictions) -> Table:
    """Build the table of how often runs of one row, and of two rows, predict the same."""
    rows = predictions.rows
    agreement = measure_agreement([each for one in rows for each in one.predicted], predictions.targets)
    places = np.split(np.arange(sum(len(one.runs) for one in rows)), np.cumsum([len(one.runs) for one in rows])[:-1])
    records: list[Record] = []
    for row, own in zip(rows, places, strict=True):
        record: dict[str, object] = {"row": row.row.name, "runs": len(own)}
        for other, theirs in zip(rows, places, strict=True):
            chosen = _choose_pairs(row, other)
            label = "its other seeds" if other is row else other.row.name
            for kind, values in (("same_class", agreement.predicted), ("same_mistake", agreement.mistakes)):
                found = values[np.ix_(own, theirs)][chosen]
                found = found[~np.isnan(found)]
                record[f"{kind}: {label}"] = float(found.mean()) if len(found) else None
        records.append(record)
    named = {one.row.name for one in rows}
    if len(rows) > MATRIX:
        named &= {row.name for row in study.rows if study.baseline in (row.name, row.base)}
    labels = ["its other seeds", *(one.row.name for one in rows if one.row.name in named and len(rows) > 1)]
    columns = [
        Column(label, f"same_class: {label}", _format_agreement, (f"same_mistake: {label}",)) for label in labels
    ]
    caption = (
        "Mean share, %, of test images for which two runs of different seeds (of the same one, where there is no "
        "other) predict the same class; in brackets, of the images that both get wrong, those that both take for the "
        "same class."
    )
    return Table("agreement", "How far runs agree", caption, [ROW, *columns], records)


def _choose_pairs(row: RowPredictions, other: RowPredictions) -> NDArray[np.bool_]:
    """Return which runs of two rows are set against each other, (runs, runs): those of different seeds, if any are."""
    differ = np.array([[a.key != b.key for b in other.runs] for a in row.runs])
    return differ if differ.any() or other is row else ~differ


def _format_agreement(same_class: float | None, same_mistake: float | None) -> str:
    mistake = finite(same_mistake)
    return f"{100 * (same_class or 0):.1f}" + ("" if mistake is None else f" ({100 * mistake:.0f})")


def join_tables(pairs: Sequence[tuple[Row, Row]], first: StudyRecord, second: StudyRecord) -> StudyRecord:
    """Return one table of pairs of rows, A's and B's, in which A's are the baselines of B's.

    Args:
        pairs: Rows of A and of B.
        first: A.
        second: B.
    """
    return StudyRecord(
        second.path, "runs", second.name, f"{first.name} / {second.name}", tuple(_rename(pairs)), baseline="A"
    )


def _rename(pairs: Sequence[tuple[Row, Row]]) -> Iterator[Row]:
    for index in (0, 1):
        for pair in pairs:
            label = "AB"[index]
            yield replace(pair[index], name=f"{label}: {pair[index].name}", base=label, swept=pair[0].name)
