"""Runs that label pixels, from data to prediction; and that what labels images knows nothing of them."""

import csv
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convolt.config.compose import compose
from convolt.data.sources import Shapes
from convolt.data.sources.decoding import voc_palette
from convolt.errors import UserError
from convolt.inference.evaluate import main as evaluate
from convolt.inference.export import main as export
from convolt.inference.mask_report import MaskPredictionReport
from convolt.inference.predict import main as predict
from convolt.inference.prediction_report import FilePrediction
from convolt.reports.report import main as report
from convolt.runs.history import read_rows
from convolt.system.installation import CONF
from convolt.tasks.segmentation import SegmentationTask
from convolt.training.run import run
from data.test_sources_masks import serve_voc, voc_image
from local_server import Server, server

__all__ = ["server"]

SHAPES = (
    "data=shapes", "data.image_size=32", "data.num_classes=3", "data.train_images=60", "data.test_images=12",
    "data.batch_size=8", "model=fcn8s", "model.width=0.1", "trainer.precision=32-true",
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two epochs on shapes, with all its pictures; to be read only."""
    folder = tmp_path_factory.mktemp("drawn") / "run"
    options = ["trainer.threads=1", "trainer.max_epochs=2", "augmentation=[flip,rotate,color]", "summary=true"]
    run(compose([f"data.root={data_root}", *SHAPES, *options]), folder)
    return folder


def test_a_run_leaves_what_the_contract_says(drawn: Path) -> None:
    result = json.loads((drawn / "result.json").read_text())
    metrics = result["metrics"]
    assert {f"{s}/{m}" for s in ("train", "val", "test") for m in ("loss", "mean_iou", "dice", "accuracy")} == set(
        metrics
    )
    assert (result["headline"], result["monitor"]) == ("test/mean_iou", "val/mean_iou")
    matrix = np.array(result["confusion_matrix"])
    assert matrix.sum() == 12 * 32 * 32
    assert metrics["test/accuracy"] == pytest.approx(matrix.trace() / matrix.sum())
    ious = [row["iou"] for row in result["per_class"] if row["iou"] is not None]
    assert metrics["test/mean_iou"] == pytest.approx(np.mean(ious))
    with np.load(drawn / "predictions.npz") as stored:
        assert stored["masks"].shape == (12, 32, 32)
        assert stored["masks"].dtype == np.uint8


def test_all_pictures_are_drawn_with_their_numbers(drawn: Path) -> None:
    names = {path.name for path in (drawn / "figures").iterdir()}
    drawings = {"confusion_matrix", "confusion_counts", "classes", "curves", "activations", "filters", "worst", "best"}
    assert {f"{name}.png" for name in (*drawings, "samples", "augmented")} <= names
    with (drawn / "figures/worst.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    scores = [float(row["mean_iou"]) for row in rows]
    assert scores == sorted(scores)
    assert list(rows[0]) == ["index", "mean_iou", "accuracy", "iou_background", "iou_disk", "iou_square"]
    with (drawn / "figures/best.csv").open() as lines:
        assert float(next(csv.DictReader(lines))["mean_iou"]) == max(
            float(row["mean_iou"]) for row in csv.DictReader((drawn / "figures/best.csv").read_text().splitlines())
        )
    assert "mean_iou" in (drawn / "figures/curves.csv").read_text()


def test_evaluation_equals_the_run_bit_for_bit(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate([str(drawn)]) == 0
    said = capsys.readouterr().out
    assert "bit for bit" in said
    assert re.search(r"class +iou +dice +precision +recall +support", said)
    assert "mean_iou" in said
    written = {path.name for path in next((drawn / "evaluations").iterdir()).iterdir()}
    assert {"worst.png", "best.png", "confusion_matrix.png", "report.json", "report.csv", "predictions.npz"} <= written


def test_evaluation_on_labels_of_another_kind_is_one_line(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate([str(drawn), "data=digits"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_evaluation_on_a_folder_of_masks(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Shapes(image_size=40, num_classes=3)
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for number in range(5):
        image, mask = source.scene(np.random.default_rng(number))
        Image.fromarray(image[:36]).save(tmp_path / f"own/images/{number}.png")
        Image.fromarray(mask[:36]).save(tmp_path / f"own/masks/{number}.png")
    folder = ["data=masks", f"data.path={tmp_path / 'own'}", f"data.root={tmp_path / 'data'}", "split=train"]
    assert evaluate([str(drawn), *folder, "data.class_names=[square,background,disk]"]) == 0
    assert "3 train images" in capsys.readouterr().out  # one tests, one validates
    written = json.loads(next(drawn.glob("evaluations/own*/report.json")).read_text())
    assert written["classes"] == ["background", "disk", "square"]  # the network's own order
    assert np.array(written["confusion_matrix"]).sum() == 3 * 32 * 32
    assert evaluate([str(drawn), *folder, "data.class_names=[a,b,c]"]) == 2
    assert "does not have the network's 3 classes" in capsys.readouterr().err


def test_prediction_writes_masks_of_the_images_own_size(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((41, 67, 3), 90, np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(np.full((30, 20), 90, np.uint8)).save(tmp_path / "tall.jpg")
    (tmp_path / "broken.png").write_bytes(b"none")
    output = tmp_path / "masks"
    assert predict([str(drawn), str(tmp_path), "--output", str(output), "--json"]) == 1
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert "broken.png" in told.err
    assert len(document["predictions"]) == 2
    for entry, size in zip(document["predictions"], ((20, 30), (67, 41)), strict=True):
        with Image.open(entry["mask"]) as mask:
            assert (mask.mode, mask.size) == ("P", size)
            assert np.array(mask.getpalette()).reshape(-1, 3).tolist() == voc_palette().tolist()
            labels = np.asarray(mask)
        with Image.open(entry["overlay"]) as over:
            assert (over.mode, over.size) == ("RGB", size)
        assert set(np.unique(labels)) <= {0, 1, 2, 255}
        side = min(size)
        assert (labels != 255).sum() == side * side  # the center that the network saw
        assert sum(row["share"] for row in entry["top"]) == pytest.approx(1)
    assert predict([str(drawn), str(tmp_path / "wide.png"), "--output", str(output)]) == 0
    assert re.search(r"image +class +pixels +mask", capsys.readouterr().out)
    assert (output / "wide_mask.png").is_file()


def test_export_gives_the_networks_logits(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export([str(drawn), "--output", str(tmp_path)]) == 0
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert program(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)


def test_a_report_judges_by_mean_iou(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([str(drawn), "--out", str(tmp_path), "--no-figures"]) == 0
    page = (tmp_path / "report.md").read_text()
    assert "test mean iou, %" in page
    with (tmp_path / "tables/per_class.csv").open() as lines:
        assert {"iou", "dice", "precision", "recall"} <= set(next(csv.DictReader(lines)))


@pytest.mark.parametrize("loss", ["dice", "both"])
def test_each_loss_learns(loss: str, train: Any, tmp_path: Path) -> None:
    options = ("task.class_weights=[1,2,2]", "trainer.max_epochs=8", "optim.lr=0.003", "scheduler=constant")
    train(*SHAPES, f"task.loss={loss}", *options)
    rows = read_rows(tmp_path / "run/metrics.csv")
    assert rows[-1]["train/loss"] < 0.8 * rows[0]["train/loss"]
    assert rows[-1]["train/mean_iou"] > rows[0]["train/mean_iou"] + 0.05


def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = settings(*SHAPES, "trainer.max_epochs=3", "augmentation=[crop,affine,color,cutout]")
    whole = run(cfg, tmp_path / "whole")
    step = SegmentationTask.training_step

    def stop(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 2:
            raise KeyError("cut off")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", stop)
        with pytest.raises(KeyError):
            run(cfg, tmp_path / "cut")
    continued = run(cfg, tmp_path / "cut")
    for key in ("metrics", "confusion_matrix", "per_class"):
        assert continued[key] == whole[key]


def test_smoke_rerun_and_the_largest_batch(train: Any, command_here: Any, tmp_path: Path) -> None:
    train(*SHAPES, "debug=smoke", directory="first")
    done = command_here(f"rerun={tmp_path / 'first'}")
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in done.stdout
    found = train(*SHAPES, "trainer.find_batch_size=true", "debug=smoke", directory="found")
    assert found["batch_size"] >= 2


def test_overfit_learns_some_images_by_heart(train: Any) -> None:
    options = ("debug=overfit", "debug.overfit_images=4", "debug.epochs=80", "debug.batch_size=2", "model.dropout=0")
    result = train(*SHAPES, *options, "model.width=0.25", "optim.lr=0.003")
    assert result["metrics"]["train/accuracy"] > 0.95


def test_voc2012_from_download_to_prediction(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_voc(server, monkeypatch)
    options = ["data=voc2012", "data.image_size=64", "model=fcn16s", "trainer.max_epochs=2", "trainer.threads=1"]
    options += ["data.batch_size=2", "data.val_fraction=0.3", "trainer.precision=32-true", "augmentation=[flip,crop]"]
    folder = tmp_path / "run"
    result = run(compose([f"data.root={tmp_path / 'data'}", *options]), folder)
    assert result["images"] == {"train": 4, "test": 3, "val": 2}
    assert len(result["per_class"]) == 21
    stored = np.load(tmp_path / "data/voc2012_64_stretch/test_labels.npy")
    assert np.array(result["confusion_matrix"]).sum() == (stored != 255).sum()
    absent = [row["class"] for row in result["per_class"] if row["iou"] is None]
    assert "tvmonitor" in absent
    assert evaluate([str(folder), f"data.root={tmp_path / 'data'}"]) == 0
    assert "bit for bit" in capsys.readouterr().out
    voc_image(7)[0].save(tmp_path / "odd.jpg")
    assert predict([str(folder), str(tmp_path / "odd.jpg")]) == 0
    with Image.open(folder / "predictions/odd_mask.png") as mask:
        assert mask.size == voc_image(7)[0].size
        assert np.asarray(mask).max() <= 20  # stretched images are seen whole
    assert (folder / "predictions/odd_overlay.png").is_file()


def test_masks_of_files_with_bad_metadata_and_of_files_that_have_gone(tmp_path: Path) -> None:
    input_spec = SimpleNamespace(classes=["a", "b"], white=None, stored_size=4, padding=0, resize="stretch")
    answers = MaskPredictionReport(SimpleNamespace(folder=tmp_path, input_spec=input_spec), 2, None)  # type: ignore[arg-type]
    image = Image.new("RGB", (8, 6))
    image.save(tmp_path / "here.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\1")
    probabilities = np.stack([np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("here.jpg", "gone.jpg"):
            answers.add(FilePrediction(tmp_path / name, probabilities))
    assert [each["top"] for each in answers.document()["predictions"]] == [[{"class": "b", "share": 1.0}]]
    assert [each.file.name for each in answers.skipped] == ["gone.jpg"]
    assert np.asarray(Image.open(tmp_path / "predictions/here_mask.png")).shape == (6, 8)


# --- mistakes


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["data=shapes"], "model=lenet labels whole images, but data=shapes has a label for every pixel"),
        (["model=fcn8s"], "model=fcn8s labels every pixel, but data=digits has one label an image"),
        ([*SHAPES, "augmentation=mixup"], "blend labels of whole images"),
        ([*SHAPES, "task.class_weights=[1,2]"], "one number of 0 or more for each of the 3 classes"),
    ],
)
def test_what_does_not_go_together_is_one_line_before_training(
    typed: list[str], said: str, settings: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        run(settings(*typed), tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_metrics_of_the_other_kind_cannot_be_watched() -> None:
    with pytest.raises(UserError, match="val/mean_iou is no metric that is measured"):
        compose(["trainer.checkpoint.monitor=val/mean_iou"])
    with pytest.raises(UserError, match="val/f1 is no metric that is measured"):
        compose(["data=shapes", "model=fcn8s", "trainer.checkpoint.monitor=val/f1"])
    compose(["data=shapes", "model=fcn8s", "trainer.early_stopping.monitor=val/dice"])


# --- the two kinds know nothing of each other

OF_THEIR_OWN = {
    "src/convolt/tasks/segmentation.py",
    "src/convolt/metrics/class_report.py",  # has the report of either task
    "src/convolt/figures/mask_album.py",
    "src/convolt/figures/album.py",  # these three have a table of what belongs to a task
    "src/convolt/inference/prediction_report.py",
    "src/convolt/training/callbacks/predictions.py",
    "scripts/compare_bits.py",
    "src/convolt/data/sources/voc.py",
    "conf/segmentation.yaml",
    "conf/data/masks.yaml",
    "conf/data/shapes.yaml",
    "conf/data/voc2012.yaml",
    "conf/model/fcn8s.yaml",
    "conf/model/fcn16s.yaml",
    "conf/model/fcn32s.yaml",
    "conf/study/segmentation.yaml",
    "conf/study/chhipani2021_segmentation.yaml",
}
"""What may say the word: the table and the report of both tasks, and files that no run on labels of images reads."""


def test_nothing_in_the_path_of_classification_says_the_word() -> None:
    root = CONF.parent
    files = [path for folder in ("src", "conf", "scripts") for path in (root / folder).rglob("*") if path.is_file()]
    files += root.glob("*.py")
    texts = (path for path in files if path.suffix in (".py", ".yaml"))
    saying = {path.relative_to(root).as_posix() for path in texts if "segment" in path.read_text().lower()}
    assert saying == OF_THEIR_OWN


def test_a_run_on_labels_of_images_imports_nothing_of_it(data_root: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from types import SimpleNamespace
from convolt.config.compose import compose
from convolt.training.run import run
run(compose(["data.root={data_root}", "debug=smoke", "trainer.threads=1"]), Path("run"))
own = ("convolt.tasks.segmentation", "convolt.metrics.pixels", "convolt.tasks.losses", "convolt.data.masks",
       "convolt.training.callbacks.masks", "convolt.figures.mask_album", "convolt.metrics.segmentation",
       "convolt.models.fcn")
print([name for name in own if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
