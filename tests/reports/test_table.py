"""A table's cells, footnotes and CSV follow from its columns and records."""
# ruff: noqa: RUF001 (the dash of empty cells)

import math

import pytest

from convolt.reports.formats import Metric, format_count, format_p_value, plural
from convolt.reports.table import ROW, Column, Note, Table, footnote_letter, to_csv, to_latex, to_markdown

ACCURACY = Metric("test/accuracy")
COLUMNS = [
    ROW,
    Column("mean ± 95%", "mean", ACCURACY.interval, more_keys=("_high",)),
    Column("inside", "inside", lambda inside: "yes" if inside else "no", is_text=True),
]
RECORDS = [
    {"row": "a", "mean": 0.5, "inside": True, "_high": 0.625, "more": 1 / 3},
    {"row": "b_", "mean": None, "inside": None, "_high": None, "more": None},
]
NOTES = [Note("b_", "row", "late"), Note("a", "mean", "early"), Note("a", "row", "late")]


def test_every_form_follows_from_columns_and_records() -> None:
    table = Table("t", "Title", "Caption.", COLUMNS, RECORDS, NOTES)
    assert [[tuple(cell) for cell in row] for row in table.rows] == [
        [("a", "a", ["a"]), ("50.00 ± 12.50", 0.5, ["b"]), ("yes", "True", [])],
        [("b_", "b_", ["a"]), ("–", None, []), ("–", None, [])],
    ]
    assert table.footnotes == {"a": "late", "b": "early"}
    assert to_csv(table).splitlines() == ["row,mean,inside,more", f"a,0.5,True,{1 / 3}", "b_,,,"]
    assert "| a<sup>a</sup> | 50.00 ± 12.50<sup>b</sup> | yes |\n| b_<sup>a</sup> | – | – |" in to_markdown(table)
    assert r"b\_\textsuperscript{a} & -- & -- \\" in to_latex(table)
    assert r"\begin{tabular}{lrl}" in to_latex(table)


@pytest.mark.parametrize("value", [None, "high", True, math.nan, math.inf, [1]])
def test_a_column_of_numbers_shows_nothing_else(value: object) -> None:
    assert Column("n", "n", ACCURACY.text).cell({"n": value}) == ("–", None, ())


def test_formats() -> None:
    assert [format_count(x) for x in (0.0, 999, 1000, 61706, 11_170_000, 1.81e9)] == [
        *("0", "999", "1.0 k", "61.7 k", "11.17 M", "1.81 G")
    ]
    assert [format_p_value(x) for x in (0.00099, 0.001, 0.5)] == ["<0.001", "0.001", "0.500"]
    assert [plural(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert ACCURACY.interval(0.5, None) == "50.00 ± –"
    assert ACCURACY.interval(0.01, 0.03, signed=True) == "+1.00 ± 2.00"
    assert [footnote_letter(i) for i in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]
