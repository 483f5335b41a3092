"""The images that decide: which they are, what is written of them, and that the sheets show those very images."""

import csv
import io
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event

from convolt.data.prepared import open_prepared, open_test_images
from convolt.reports.collect import read_study
from convolt.reports.deciding_images import find_contrasts, find_hard_images, find_most_frequent
from convolt.reports.deciding_section import EVENTS, NOT_AT_HAND, DecidingSection, build_deciding_section
from convolt.reports.formats import Metric
from convolt.reports.image_predictions import ImagePredictions, read_image_predictions
from convolt.reports.records import StudyRecord
from convolt.reports.study_report import build_report
from written_study import make_study, write_predictions

TARGETS = [0, 1, 2, 0, 1, 2, 0, 1]
SGD = ([1, 1, 2, 0, 2, 1, 0, 1], [1, 1, 2, 0, 2, 1, 0, 2], [2, 1, 2, 0, 2, 1, 0, 0])
"""By seed: wrong about images 0, 4 and 5 in every run, about image 7 in two of them."""
ADAM = ([0, 1, 0, 0, 2, 1, 0, 1], [0, 1, 0, 0, 2, 0, 0, 1], [0, 1, 1, 0, 2, 1, 1, 1])
"""Right about image 0 in every run; wrong about images 2, 4 and 5 in every run, about image 6 in one."""


def write_study(folder: Path, rows: dict[str, tuple[list[int], ...]], **result: str) -> StudyRecord:
    accuracy: dict[str, dict[int, float | None]] = {
        row: dict.fromkeys(range(len(runs)), 0.5) for row, runs in rows.items()
    }
    study = make_study(folder / "study", accuracy, **{f"row_{row}": dict(result) for row in rows})
    for row, runs in rows.items():
        for seed, predicted in enumerate(runs):
            write_predictions(study / row / f"seed={seed}", predicted, TARGETS)
    return read_study(study)


def predictions_of(study: StudyRecord) -> ImagePredictions:
    found = read_image_predictions(study)
    assert found is not None
    return found


def test_planted_images_are_found_with_their_number_by_chance(tmp_path: Path) -> None:
    study = write_study(tmp_path, {"sgd": SGD, "adam": ADAM})
    images = predictions_of(study)
    (found,) = find_contrasts(study, images)
    assert (found.row.row.name, found.baseline.row.name) == ("adam", "sgd")
    assert (found.won.count, found.won.shown.tolist()) == (1, [0])
    assert (found.lost.count, found.lost.shown.tolist()) == (1, [2])

    correct = np.concatenate([row.correct for row in images.rows])
    deals = [np.isin(np.arange(6), deal) for deal in combinations(range(6), 3)]
    by_chance = np.mean([(correct[deal].all(0) & ~correct[~deal].any(0)).sum() for deal in deals])
    assert found.won.by_chance == found.lost.by_chance == pytest.approx(by_chance)


def test_where_none_is_unanimous_the_largest_differences_stand_first(tmp_path: Path) -> None:
    adam = ([1, 1, 2, 0, 1, 1, 0, 1], [0, 1, 2, 0, 1, 1, 1, 1])
    study = write_study(tmp_path, {"sgd": SGD, "adam": adam})
    (found,) = find_contrasts(study, predictions_of(study))
    assert (found.won.count, found.won.shown.tolist()) == (1, [4])
    assert (found.lost.count, found.lost.shown.tolist()) == (0, [6])  # right in 3 of 3, and in 1 of 2


def test_images_that_every_run_gets_wrong_are_ranked_by_agreement(tmp_path: Path) -> None:
    hard = find_hard_images(predictions_of(write_study(tmp_path, {"sgd": SGD, "adam": ADAM})))
    assert hard.count == 2
    assert hard.shown.tolist() == [4, 5]
    assert hard.predicted.tolist() == [2, 1]
    assert hard.agreeing.tolist() == [6, 5]


def test_of_equally_frequent_classes_the_first_counts() -> None:
    classes, agreeing = find_most_frequent(np.array([[2, 0], [1, 0], [2, 0], [1, 3]], np.int32))
    assert (classes.tolist(), agreeing.tolist()) == ([1, 0], [2, 3])


def test_every_test_image_stands_in_the_csv(tmp_path: Path) -> None:
    files = build_deciding_section(*_study_and_predictions(tmp_path, {"sgd": SGD, "adam": ADAM[:1]})).files
    rows = list(csv.DictReader(io.StringIO(files["tables/images.csv"].decode())))
    assert [row["index"] for row in rows] == list("01234567")
    assert rows[0] == {
        "index": "0", "class": "cat", "right": "0.25", "most_predicted": "dog", "runs_predicting_it": "2", "runs": "4",
        "right: sgd": "0", "right: adam": "1",
    }  # fmt: skip
    assert (rows[7]["right"], rows[7]["right: sgd"], rows[7]["most_predicted"]) == ("0.5", "0.333333", "dog")
    assert [row["right: adam"] for row in rows] == ["1", "1", "0", "1", "0", "0", "1", "1"]


def test_one_run_alone_has_its_csv(tmp_path: Path) -> None:
    section = build_deciding_section(*_study_and_predictions(tmp_path, {"sgd": SGD[:1]}))
    assert list(section.files) == ["tables/images.csv"]
    assert (section.tables, section.page) == ([], [])


def _study_and_predictions(
    folder: Path, rows: dict[str, tuple[list[int], ...]], **result: str
) -> tuple[StudyRecord, ImagePredictions]:
    study = write_study(folder, rows, **result)
    return study, predictions_of(study)


def write_dataset(folder: Path, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], str]:
    """Write a prepared dataset below `folder`; return its test images and its digest."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (len(TARGETS), *shape), np.uint8)
    for split in ("train", "test"):
        np.save(folder / f"{split}_images.npy", images)
        np.save(folder / f"{split}_labels.npy", np.array(TARGETS, np.int64))
    (folder / "dataset.json").write_text('{"name": "tiny", "classes": ["cat", "dog", "eel"]}')
    return images, open_prepared(folder).digest


def read_png(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("shape", [(28, 28, 1), (16, 14, 3), (8, 8, 4)])
def test_a_sheet_shows_the_pixels_of_its_images(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    pixels, digest = write_dataset(tmp_path / "data/tiny", shape)
    files = _deciding_section(tmp_path, digest).files
    times = 112 // shape[0]
    for name, places in (("right_01_adam", [0]), ("wrong_01_adam", [2]), ("wrong_in_every_run", [4, 5])):
        sheet = read_png(files[f"figures/images_{name}.png"])
        for column, place in enumerate(places):
            left = 8 + column * (shape[1] * times + 12)
            tile = sheet[58 : 58 + shape[0] * times, left : left + shape[1] * times]
            shown = np.broadcast_to(pixels[place][..., :3], (*shape[:2], 3))
            assert np.array_equal(tile, np.kron(shown, np.ones((times, times, 1), np.uint8)))


def test_sheets_stand_in_the_report(tmp_path: Path) -> None:
    _, digest = write_dataset(tmp_path / "data/tiny", (8, 8, 1))
    study = write_study(tmp_path, {"sgd": SGD, "adam": ADAM}, dataset="tiny", dataset_hash=digest)
    report = build_report(study, Metric("test/accuracy"))
    page, text = (report.files[f"report.{form}"].decode() for form in ("html", "md"))
    assert "Right in all 3 runs of adam, wrong in all 3 runs of sgd: 1 image" in page
    assert "1 image right and 1 wrong against sgd" in page
    assert "No pictures" not in page
    for name in ("right_01_adam", "wrong_01_adam", "wrong_in_every_run"):
        assert f"figures/images_{name}.png" in text
        assert f"figures/images_{name}.png" in report.files
    assert report.files["report.html"].decode().count('<figure class="wide"><img alt="Right in ') == 2  # they scroll
    tables = build_report(study, Metric("test/accuracy"), draw=False).files
    assert not [name for name in tables if name.startswith(("figures", "tensorboard"))]
    assert tables["tables/images.csv"] == report.files["tables/images.csv"]


def test_large_images_are_drawn_smaller(tmp_path: Path) -> None:
    folder = tmp_path / "data/tiny"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        np.save(folder / f"{split}_images.npy", np.full((8, 224, 448, 3), (10, 20, 30), np.uint8))
        np.save(folder / f"{split}_labels.npy", np.array(TARGETS, np.int64))
    (folder / "dataset.json").write_text('{"name": "tiny", "classes": ["cat", "dog", "eel"]}')
    digest = open_prepared(folder).digest
    section = _deciding_section(tmp_path, digest)
    tile = read_png(section.files["figures/images_right_01_adam.png"])[58:170, 8:232]
    assert (tile == (10, 20, 30)).all()


def _deciding_section(folder: Path, digest: str) -> DecidingSection:
    rows = {"sgd": SGD, "adam": ADAM}
    return build_deciding_section(*_study_and_predictions(folder, rows, dataset="tiny", dataset_hash=digest))


def test_changed_and_other_images_are_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "data/tiny"
    pixels, digest = write_dataset(folder, (8, 8, 1))
    assert open_test_images(folder, "d" * 64) is None
    assert np.array_equal(open_test_images(folder, digest), pixels)
    pixels[3, 4, 4] ^= 1
    np.save(folder / "test_images.npy", pixels)  # of the same size
    before = (folder / "dataset.json").read_bytes()
    section = _deciding_section(tmp_path, digest)
    assert not [name for name in section.files if name.startswith(("figures", "tensorboard"))]
    assert "No pictures" in section.page[0]
    assert NOT_AT_HAND in section.markdown
    assert [table.name for table in section.tables] == ["deciding", "deciding_images", "hard_images"]
    assert section.tables[1].records[0] == {
        "row": "adam", "side": "right here", "index": 0, "class": "cat",
        "predicted": "cat", "agreeing": 3, "runs": 3, "base_predicted": "dog", "base_agreeing": 2, "base_runs": 3,
    }  # fmt: skip
    assert (folder / "dataset.json").read_bytes() == before


def test_the_sheets_are_one_file_of_events(tmp_path: Path) -> None:
    _, digest = write_dataset(tmp_path / "data/tiny", (8, 8, 1))
    files = _deciding_section(tmp_path, digest).files
    shown = {value.tag: value.image.encoded_image_string for value in read_events(files[EVENTS])}
    assert shown == {
        "images/adam, right": files["figures/images_right_01_adam.png"],
        "images/adam, wrong": files["figures/images_wrong_01_adam.png"],
        "images/wrong in every run": files["figures/images_wrong_in_every_run.png"],
    }


def read_events(content: bytes) -> list[Any]:
    """Read the values of all events, past lengths and checksums."""
    found, start = [], 0
    while start < len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        found += Event.FromString(content[start + 12 : start + 12 + length]).summary.value
        start += 16 + length
    return found
