"""Which runs of a table are compared image by image."""

from html import unescape
from pathlib import Path

from convolt.reports.collect import read_study
from convolt.reports.image_predictions import read_image_predictions
from convolt.reports.report import main
from written_study import make_study, write_predictions


def test_rows_by_seed_and_what_is_left_out(tmp_path: Path) -> None:
    accuracy = {"sgd": {0: 0.5, 1: 0.5}, "adam": {0: 0.5, 1: 0.5, 2: 0.5}, "momentum": {0: 0.5}}
    study = make_study(tmp_path / "study", {row: dict(values) for row, values in accuracy.items()})
    targets = [0, 1, 2, 1]
    write_predictions(study / "sgd/seed=0", [0, 1, 2, 2], targets)
    write_predictions(study / "sgd/seed=1", [0, 0, 2, 1], targets)
    write_predictions(study / "adam/seed=0", [1, 1, 2, 1], targets)
    write_predictions(study / "adam/seed=1", [1, 1, 2, 1], targets, start=5)  # other images
    (study / "adam/seed=2/predictions.npz").write_bytes(b"nothing")

    found = read_image_predictions(read_study(study))

    assert found is not None
    assert [one.row.name for one in found.rows] == ["sgd", "adam"]
    assert found.classes == ("cat", "dog", "eel")
    assert found.targets.tolist() == targets
    sgd, adam = found.rows
    assert sgd.predicted.tolist() == [[0, 1, 2, 2], [0, 0, 2, 1]]
    assert sgd.correct.tolist() == [[True, True, True, False], [True, False, True, True]]
    assert sgd.select([1]).tolist() == [[True, False, True, True]]
    assert [run.seed for run in adam.runs] == [0]
    assert sorted(found.left_out) == [
        "1 run not compared image by image, no predicted classes kept: 'momentum'",
        "1 run not compared image by image, other test images of the same dataset: 'adam'",
        "1 run not compared image by image, predictions that cannot be read: 'adam'",
    ]
    assert found.of(found.rows[1].row) is adam
    assert found.of(None) is None


def test_no_predictions(tmp_path: Path) -> None:
    assert read_image_predictions(read_study(make_study(tmp_path / "study", {"sgd": {0: 0.5}}))) is None


def test_predictions_that_cannot_be_read_are_told_where_no_other_are(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", {"sgd": {0: 0.5, 1: 0.6}, "adam": {0: 0.5}})
    for run in study.glob("*/seed=*"):
        (run / "predictions.npz").write_bytes(b"nothing")
    found = read_image_predictions(read_study(study))
    line = "3 runs not compared image by image, predictions that cannot be read: 'sgd' and 'adam'"
    assert found is not None
    assert (found.rows, found.left_out) == ((), (line,))
    assert main([str(study), "--no-figures"]) == 0
    for name in ("report.md", "report.html"):
        text = unescape((study / "report" / name).read_text())
        assert text.count(line) == 1


def test_many_rows_of_other_images_are_one_line(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", {name: {0: 0.5} for name in "abcdef"})
    for start, name in enumerate("abcdef"):
        write_predictions(study / name / "seed=0", [0, 1], [0, 1], start=start // 2 * (start > 1))
    found = read_image_predictions(read_study(study))
    assert found is not None
    (line,) = found.left_out
    assert line == "4 runs not compared image by image, other test images of the same dataset: 'c', 'd' and 2 more"
