"""Pictures of a run: what they show, that they are all there, and that they change nothing."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from convolt.config.compose import compose
from convolt.config.instantiate import build
from convolt.data.augment import Augmentation
from convolt.data.loader import BatchLoader, Preprocessing
from convolt.data.transforms import Crop, Mixup
from convolt.errors import UserError
from convolt.figures import classes, confusion, events, predictions, projection, samples, tensorboard
from convolt.figures.activations import most_varied_channels, record_activations
from convolt.figures.gradcam import grad_cam, overlay_evidence
from convolt.figures.grid import draw_grid
from convolt.figures.image_album import ImageAlbum
from convolt.figures.reliability import bin_by_confidence, draw_reliability
from convolt.figures.style import to_bytes
from convolt.metrics.class_report import classification_report, report_csv
from convolt.models.find_layers import find_default_layers, find_gradcam_layer, find_last_layers
from convolt.runs.config_hash import config_hash
from convolt.training.callbacks.pictures import Pictures

FIGURES = {
    "activations", "augmented", "classes", "confusion_counts", "confusion_matrix", "curves", "filters",
    "gradcam_mistakes", "gradcam_right", "map", "mistakes", "reliability", "right", "samples",
}  # fmt: skip


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_a_run_leaves_every_figure_with_its_numbers(finished: Path) -> None:
    figures = finished / "figures"
    assert {path.stem for path in figures.glob("*.png")} == FIGURES
    for path in figures.glob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.std() > 5, path.name  # something was drawn
    data = {path.stem for path in figures.iterdir() if path.suffix in (".csv", ".json")}
    assert data == FIGURES - {"confusion_counts"}  # whose numbers are those of confusion_matrix.csv
    assert "not drawn" not in (finished / "run.log").read_text()
    assert result_of(finished)["pictures_seconds"] > 0


def test_the_numbers_beside_the_figures_are_those_of_the_result(finished: Path) -> None:
    figures, result = finished / "figures", result_of(finished)
    matrix = [list(map(int, list(row.values())[1:])) for row in rows_of(figures / "confusion_matrix.csv")]
    assert matrix == result["confusion_matrix"]
    by_class = rows_of(figures / "classes.csv")
    for row, entry in zip(by_class, result["per_class"], strict=False):
        assert row["class"] == entry["class"]
        assert [float(row[name]) for name in ("precision", "recall", "f1")] == [
            entry[name] for name in ("precision", "recall", "f1")
        ]
    assert [row["class"] for row in by_class[-2:]] == ["macro average", "weighted average"]
    assert {name: float(by_class[-2][name]) for name in ("precision", "recall", "f1")} == {
        name: result["metrics"][f"test/{name}"] for name in ("precision", "recall", "f1")
    }
    error = json.loads((figures / "reliability.json").read_text())["calibration_error"]
    assert error == result["metrics"]["test/calibration_error"]
    curves = rows_of(figures / "curves.csv")
    assert float(curves[result["tested_epoch"] - 1]["val/accuracy"]) == result["metrics"]["val/accuracy"]


def test_the_kept_predictions_are_the_tested_ones_and_the_sheets_follow_them(finished: Path) -> None:
    result = result_of(finished)
    with np.load(finished / "predictions.npz") as stored:
        probabilities, targets, indices = stored["probabilities"], stored["targets"], stored["indices"]
    assert probabilities.shape == (359, 10)
    assert probabilities.dtype == np.float32
    assert indices.tolist() == list(range(359))
    guesses = probabilities.argmax(1)
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (targets, guesses), 1)
    assert matrix.tolist() == result["confusion_matrix"]
    sheet = rows_of(finished / "figures/mistakes.csv")
    confidences = [float(row["confidence"]) for row in sheet]
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[0] == pytest.approx(probabilities.max(1)[guesses != targets].max())
    assert all(guesses[int(row["index"])] != targets[int(row["index"])] for row in sheet)
    assert len(sheet) == min(40, int((guesses != targets).sum()))
    assert all(row["true"] == row["predicted"] for row in rows_of(finished / "figures/right.csv"))


def test_pictures_change_no_number(train: Any, tmp_path: Path) -> None:
    options = ("model.dropout=0.3", "augmentation=[crop,mixup]", "batchnorm=before", "scheduler=onecycle")
    without = train(*options, directory="off")
    every = ("pictures.enabled=true", "pictures.every_n_epochs=1", "pictures.tsne=true")
    drawn = train(*options, *every, directory="on")
    assert drawn["metrics"] == without["metrics"]
    assert drawn["confusion_matrix"] == without["confusion_matrix"]
    assert drawn["config_hash"] == without["config_hash"]
    first, second = (
        torch.load(tmp_path / name / "checkpoints/epoch-0002.ckpt", weights_only=True) for name in ("off", "on")
    )
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())
    for epoch in ("epoch-0001", "epoch-0002"):
        assert (tmp_path / "on/figures" / epoch / "confusion_matrix.png").exists()
    matrix = rows_of(tmp_path / "on/figures/epoch-0002/confusion_matrix.csv")
    assert sum(int(count) for row in matrix for count in list(row.values())[1:]) == 145  # of validation images
    assert {"tsne_1", "pca_1"} < rows_of(tmp_path / "on/figures/map.csv")[0].keys()
    assert not (tmp_path / "off/figures").exists()
    assert (tmp_path / "off/predictions.npz").exists()


def test_runs_of_before_there_were_pictures_keep_their_hash() -> None:
    cfg = compose(["model=resnet18"])
    older = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "pictures"])
    assert config_hash(older) == config_hash(cfg) == config_hash(compose(["model=resnet18", "pictures.tsne=true"]))


def test_a_drawing_that_fails_does_not_fail_the_run(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Pictures, "strict", False)
    monkeypatch.setattr(ImageAlbum, "draw_reliability", lambda _self: 1 / 0)
    train("pictures.enabled=true", "trainer.max_epochs=1")
    assert "not drawn: reliability (run.log says why)" in capsys.readouterr().out
    assert "ZeroDivisionError" in (tmp_path / "run/run.log").read_text()
    assert {path.stem for path in (tmp_path / "run/figures").glob("*.png")} == FIGURES - {"reliability"}


def test_a_layer_that_does_not_exist_is_named_before_the_training(train: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no layer 'stages\.3'.*did you mean 'stages\.\d"):
        train("pictures.enabled=true", "pictures.layers=[stages.3]")
    assert not (tmp_path / "run").exists()


def test_layers_can_be_chosen(train: Any, tmp_path: Path) -> None:
    train("pictures.enabled=true", "pictures.layers=[stages.1]", "pictures.map_images=0", "trainer.max_epochs=1")
    rows = rows_of(tmp_path / "run/figures/activations.csv")
    assert {row["layer"] for row in rows} == {"stages.1"}
    assert len(rows) == 10
    assert not (tmp_path / "run/figures/map.png").exists()


def test_tensorboard_has_images_text_graph_and_projector(finished: Path) -> None:
    found = EventAccumulator(str(finished)).Reload()
    tags = found.Tags()
    assert {f"figures/{name}" for name in FIGURES} <= set(tags["images"])
    shown = found.Images("figures/mistakes")[0]
    assert shown.encoded_image_string == (finished / "figures/mistakes.png").read_bytes()
    with Image.open(finished / "figures/mistakes.png") as image:
        assert (shown.width, shown.height) == image.size
    assert shown.step == result_of(finished)["tested_epoch"]
    assert "figures/classes/text_summary" in tags["tensors"]
    assert tags["graph"]
    assert any("Conv" in node.op or "convolution" in node.op for node in found.Graph().node)
    config = (finished / "projector_config.pbtxt").read_text()
    vectors = np.loadtxt(finished / "projector/tensors.tsv", delimiter="\t")
    labels = (finished / "projector/metadata.tsv").read_text().splitlines()
    assert vectors.shape == (359, 84)
    assert len(labels) == 359
    assert set(labels) == set("0123456789")
    assert 'tensor_path: "projector/tensors.tsv"' in config
    with Image.open(finished / "projector/sprite.png") as sprite:
        assert sprite.size == (19 * 32, 19 * 32)


def test_a_file_of_events_without_torch_is_read_by_tensorboard(finished: Path, tmp_path: Path) -> None:
    pictures = {name: (finished / f"figures/{name}.png").read_bytes() for name in ("mistakes", "curves")}
    (tmp_path / "events.out.tfevents.0.images").write_bytes(events.encode_pictures(pictures, 12.0))
    found = EventAccumulator(str(tmp_path)).Reload()  # leaves out what has a wrong checksum
    assert {tag: found.Images(tag)[0].encoded_image_string for tag in found.Tags()["images"]} == pictures
    assert found.Images("curves")[0].wall_time == 12.0


def test_light_pictures_leave_out_what_does_not_say_how_good_the_network_is(train: Any, tmp_path: Path) -> None:
    result = train("pictures.enabled=true", "pictures.detail=light", "trainer.max_epochs=1")
    names = {"confusion_matrix", "confusion_counts", "classes", "curves", "mistakes", "reliability"}
    assert {path.stem for path in (tmp_path / "run/figures").glob("*.png")} == names
    assert result["pictures_seconds"] > 0
    assert not (tmp_path / "run/projector").exists()
    assert not EventAccumulator(str(tmp_path / "run")).Reload().Tags()["graph"]
    assert config_hash(compose(["pictures.detail=light"])) == config_hash(compose([]))


def test_a_network_that_cannot_be_traced_has_no_graph_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    class Untraceable(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("not today")

    with SummaryWriter(str(tmp_path)) as writer:
        tensorboard.add_graph(writer, Untraceable(), torch.zeros(1, 1, 8, 8))
    assert "not today" in caplog.text
    assert capsys.readouterr().out == ""


def test_mistakes_are_the_most_confident_first_and_hits_go_class_by_class() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7], [0.99, 0.01]], np.float32)
    targets = np.array([1, 1, 1, 0, 0])
    assert predictions.find_mistakes(probabilities, targets, 9).tolist() == [0, 3, 2]
    assert predictions.find_mistakes(probabilities, targets, 1).tolist() == [0]
    assert predictions.find_hits(probabilities, targets, 9).tolist() == [4, 1]
    many = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], np.float32)
    assert predictions.find_hits(many, np.array([0, 0, 1]), 2).tolist() == [0, 2]


def test_reliability_by_hand() -> None:
    probabilities = np.array([[0.55, 0.45], [0.95, 0.05], [0.95, 0.05], [0.9, 0.1]], np.float32)
    data = bin_by_confidence(probabilities, np.array([1, 0, 1, 0]), 0.3375, bins=10)
    assert data["count"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 3]  # what is on an edge belongs above
    assert data["accuracy"][5] == 0
    assert data["accuracy"][9] == pytest.approx(2 / 3)
    assert data["confidence"][9] == pytest.approx(2.8 / 3)
    assert data["accuracy"][0] is None
    assert data["calibration_error"] == 0.3375
    assert to_bytes(draw_reliability(data, "title"))


def test_the_classification_report_averages() -> None:
    report = classification_report(np.array([[8, 2], [0, 30]]), ["a", "b"])
    assert report["accuracy"] == pytest.approx(38 / 40)
    assert report["macro_average"]["recall"] == pytest.approx((0.8 + 1) / 2)
    assert report["weighted_average"]["recall"] == pytest.approx((10 * 0.8 + 30) / 40)
    assert report["weighted_average"]["precision"] == pytest.approx((10 + 30 * 30 / 32) / 40)
    assert report_csv(report).splitlines()[-2].split(",")[0] == "macro average"


def test_predictions_carry_the_confusion_matrix_and_the_calibration_of_the_metrics() -> None:
    from convolt.metrics.images import ImageMetrics
    from convolt.training.callbacks.predictions import ClassPredictionCollector

    close = torch.tensor([[0.1, np.nextafter(np.float32(0.1), np.float32(1))]])  # equal after the softmax
    metrics, collector = ImageMetrics(2, training=False), ClassPredictionCollector()
    metrics.add(close, torch.tensor([1]), torch.tensor(0.5))
    collector._collect(close, torch.tensor([1]))
    predicted = collector._predictions("test", metrics.compute())
    assert predicted.probabilities.tolist() == [[0.5, 0.5]]
    assert predicted.targets.tolist() == [1]
    assert predicted.confusion_matrix.tolist() == [[0, 0], [0, 1]]  # by the logits
    assert predicted.calibration_error == pytest.approx(0.5)


def test_confusion_rates_are_of_the_true_class() -> None:
    found = confusion.rates_in_percent(np.array([[1, 3], [0, 0]]))
    assert found[0].tolist() == [25, 75]
    assert np.isnan(found[1]).all()
    assert to_bytes(confusion.draw_rates(np.array([[1, 3], [0, 0]]), ["a", "b"], "title"))


class Corners(nn.Module):
    """Class 0 is what is bright anywhere, class 1 what is dark: the evidence is in known places."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.layer.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.Tensor(self.relu(self.layer(images)).mean((2, 3)))


def test_grad_cam_finds_the_evidence_where_it_is() -> None:
    network = Corners().eval()
    images = torch.zeros(1, 1, 8, 8)
    images[0, 0, :3, :3], images[0, 0, 6:, 6:] = 1, -0.5
    for layer in ("layer", "relu"):
        for label, place in ((0, (slice(0, 3), slice(0, 3))), (1, (slice(6, 8), slice(6, 8)))):
            evidence = grad_cam(network, images, torch.tensor([label]), layer)[0]
            expected = np.zeros((8, 8), np.float32)
            expected[place] = 1
            assert np.allclose(evidence, expected, atol=1e-5), (layer, label)
    assert network.layer.weight.grad is None
    with torch.inference_mode():  # as at the end of a test
        assert grad_cam(network, images, torch.tensor([0]), "layer")[0, 0, 0] == pytest.approx(1)
    assert overlay_evidence(np.zeros((8, 8, 1), np.float32), evidence).shape == (8, 8, 3)


def network_of(model: str) -> nn.Module:
    cfg = compose([f"model={model}", "data=cifar10"])
    made: nn.Module = build(cfg.model, "model").eval()
    return made


def test_activations_are_those_of_a_forward_by_hand() -> None:
    network, images = network_of("lenet"), torch.randn(2, 3, 32, 32)
    found = record_activations(network, images, ["stages.0", "head"])
    assert list(found) == ["stages.0"]  # the head puts out no maps
    with torch.no_grad():
        assert np.array_equal(found["stages.0"], network.get_submodule("stages.0")(images).numpy())
    maps = np.zeros((2, 3, 4, 4), np.float32)
    maps[1, 2], maps[1, 0] = 5, 1
    assert most_varied_channels(maps, 2).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("model", "layers", "evidence"),
    [
        ("lenet", ["stages.0.0.conv", "stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1"], "stages.1.1"),
        ("resnet20", ["stem.0.conv", "stages.0", "stages.1", "stages.2"], "stages.2"),
    ],
)
def test_the_layers_shown_are_the_first_convolution_and_the_ends_of_stages(
    model: str, layers: list[str], evidence: str
) -> None:
    network, image = network_of(model), torch.zeros(1, 3, 32, 32)
    assert find_default_layers(network, image) == layers
    assert find_gradcam_layer(network, image) == evidence
    assert len(find_last_layers(network, 10)) == 1


def test_the_map_is_the_principal_components_and_keeps_neighbors() -> None:
    random = np.random.default_rng(0)
    centers = random.normal(0, 8, (4, 20))
    labels = np.arange(200) % 4
    features = (centers[labels] + random.normal(size=(200, 20))).astype(np.float32)
    flat, share = projection.pca(features, 2)
    usual = PCA(2).fit(features)
    assert np.allclose(np.abs(flat), np.abs(usual.transform(features)), atol=1e-3)
    assert np.allclose(share, usual.explained_variance_ratio_, atol=1e-5)
    layout = projection.tsne(features)
    assert np.array_equal(layout, projection.tsne(features))
    assert trustworthiness(features, layout, n_neighbors=10) > 0.9
    means = np.stack([layout[labels == label].mean(0) for label in range(4)])
    nearest = np.square(layout[:, None] - means).sum(2).argmin(1)
    assert (nearest == labels).all()
    for few in (np.zeros((5, 3), np.float32), features[:4, :1]):
        assert np.isfinite(projection.tsne(few)).all()


def test_augmented_images_are_those_of_the_epoch() -> None:
    images = torch.randint(0, 256, (24, 8, 8, 1), dtype=torch.uint8)
    labels = torch.arange(24) % 3
    augmentation = Augmentation({"crop": Crop(padding=2), "mixup": Mixup(alpha=1.0)})
    loader = BatchLoader(
        images, labels, torch.arange(24), Preprocessing(0, 8, [0.5], [0.5]), 10, torch.device("cpu"),
        seed=3, epoch=lambda: 2, augmentation=augmentation, num_classes=3,
    )  # fmt: skip
    seen = next(iter(loader))[0]
    order = loader.epoch_order(2)[:10]
    assert torch.equal(loader.augmented(order, 2)[0], seen)
    assert not torch.equal(loader.augmented(order, 1)[0], seen)


def test_a_grid_has_each_image_pixel_by_pixel_in_its_place() -> None:
    images = [np.full((4, 4, 1), shade, np.float32) for shade in (0.0, 0.2, 0.4, 0.6)]
    figure = draw_grid(images, "t", columns=2, captions=["a", "b", "c", "d" * 90], side=40, gap=5)
    path = to_bytes(figure)
    with Image.open(io.BytesIO(path)) as opened:
        pixels = np.asarray(opened.convert("L")).astype(int)
    shades, counts = np.unique(pixels, return_counts=True)
    found = dict(zip(shades.tolist(), counts.tolist(), strict=True))
    for shade in (51, 102, 153):
        assert found[shade] >= 1600

    def first(shade: int) -> list[int]:
        return [int(axis.min()) for axis in np.nonzero(pixels[60:] == shade)]

    assert first(51)[1] == first(153)[1] > first(102)[1]  # the second and the fourth stand in the right column
    assert first(51)[0] < first(102)[0] == first(153)[0]  # the third and the fourth in the lower row


def test_a_hundred_classes_are_drawn() -> None:
    random = np.random.default_rng(0)
    names = [f"a rather long class name {k}" for k in range(100)]
    matrix = random.integers(0, 9, (100, 100)) + 90 * np.eye(100, dtype=np.int64)
    report = classification_report(matrix, names)
    images = [[random.random((32, 32, 3), np.float32)] * 3 for _ in names]
    figures = {
        "rates": confusion.draw_rates(matrix, names, "t"),
        "counts": confusion.draw_counts(matrix, names, "t"),
        "classes": classes.draw_classes(report, "t"),
        "samples": samples.draw_samples(images, names, "t"),
        "map": projection.draw_projection(
            {"PCA": random.random((500, 2), np.float32)}, np.arange(500) % 100, names, "t"
        ),
    }
    for name, figure in figures.items():
        with Image.open(io.BytesIO(to_bytes(figure))) as image:
            assert max(image.size) < 3000, name
