from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import classification_report
from torch import Tensor, nn
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from convolt.metrics.class_report import CLASSIFICATION_RATES, report_csv, report_markdown
from convolt.metrics.class_report import classification_report as report_on
from convolt.metrics.images import ImageMetrics
from convolt.metrics.rates import per_class_rates
from convolt.tasks.classification import ClassificationTask


class Heads(nn.Module):
    """Two auxiliary heads in training."""

    auxiliary_weight = 0.3

    def forward(self, images: Tensor) -> Any:
        logits = images.flatten(1)
        return (logits, 2 * logits, 3 * logits) if self.training else logits


def task(network: nn.Module | None = None, **more: Any) -> ClassificationTask:
    return ClassificationTask(
        network or nn.Flatten(), 4, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01), **more
    )


def test_the_loss_is_cross_entropy_with_label_smoothing() -> None:
    logits, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    loss, main = task(label_smoothing=0.1).loss(logits, targets)
    smooth = F.one_hot(targets, 4) * 0.9 + 0.1 / 4
    torch.testing.assert_close(loss, -(smooth * logits.log_softmax(1)).sum(1).mean())
    assert main is logits


def test_the_loss_of_mixed_targets_weights_both_classes() -> None:
    logits = torch.randn(3, 4)
    targets = torch.tensor([[0.7, 0.3, 0, 0], [0, 1, 0, 0], [0.5, 0, 0, 0.5]])
    loss, _ = task().loss(logits, targets)
    torch.testing.assert_close(loss, -(targets * logits.log_softmax(1)).sum(1).mean())


def test_auxiliary_heads_count_with_the_networks_weight() -> None:
    images, targets = torch.randn(5, 4, 1, 1), torch.tensor([0, 1, 2, 3, 0])
    network = Heads()
    loss, logits = task(network).loss(network(images), targets)
    x = images.flatten(1)
    expected = F.cross_entropy(x, targets) + 0.3 * (F.cross_entropy(2 * x, targets) + F.cross_entropy(3 * x, targets))
    torch.testing.assert_close(loss, expected)
    assert torch.equal(logits, x)


def test_predictions_are_counted_without_a_table_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(60, 4), torch.randint(0, 4, (60,))
    loss = torch.tensor(0.5)

    def measured() -> dict[str, Tensor]:
        metrics = ImageMetrics(4, training=False)
        metrics.add(logits, targets, loss)
        return metrics.compute()

    plain = measured()
    torch.use_deterministic_algorithms(True)
    try:
        monkeypatch.setattr(Tensor, "repeat", None)  # by which torchmetrics would make it
        repeatable = measured()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(value, repeatable[name]) for name, value in plain.items())


def test_epoch_metrics_equal_those_of_all_predictions_together() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(60, 12), torch.randint(0, 12, (60,))
    metrics = ImageMetrics(12, training=False)
    for start in range(0, 60, 16):
        chosen = slice(start, start + 16)
        metrics.add(logits[chosen], targets[chosen], F.cross_entropy(logits[chosen], targets[chosen]))
    values = metrics.compute()
    report = classification_report(targets, logits.argmax(1), output_dict=True, zero_division=0)
    assert float(values["accuracy"]) == pytest.approx(report["accuracy"])
    for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        assert float(values[ours]) == pytest.approx(report["macro avg"][theirs], abs=1e-6)
    top5 = (logits.topk(5).indices == targets[:, None]).any(1).float().mean()
    assert float(values["top5_accuracy"]) == pytest.approx(float(top5))
    assert float(values["loss"]) == pytest.approx(float(F.cross_entropy(logits, targets)), abs=1e-6)
    assert int(values["confusion_matrix"].sum()) == 60


def test_epoch_metrics_start_anew() -> None:
    metrics = ImageMetrics(2, training=True)
    right = torch.tensor([[2.0, 0.0]])
    metrics.add(right, torch.tensor([0]), torch.tensor(0.1))
    assert float(metrics.compute()["accuracy"]) == 1
    metrics.add(right, torch.tensor([1]), torch.tensor(2.0))
    values = metrics.compute()
    assert float(values["accuracy"]) == 0
    assert float(values["loss"]) == 2


def test_top5_is_measured_for_more_than_ten_classes_only() -> None:
    assert "top5_accuracy" not in ImageMetrics(10, training=True).metrics
    assert "top5_accuracy" in ImageMetrics(11, training=True).metrics


def test_per_class_figures_equal_scikit_learns() -> None:
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 4, 200), random.integers(0, 4, 200)
    matrix = np.zeros((4, 4), np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    report = classification_report(truth, predicted, output_dict=True)
    for row in per_class_rates(matrix, list("0123"), CLASSIFICATION_RATES):
        theirs = report[row["class"]]
        assert (row["precision"], row["recall"], row["f1"], row["support"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
        assert row["accuracy"] == row["recall"]


def test_a_rate_over_nothing_is_none_and_counts_nowhere() -> None:
    # Class b is never true and never predicted, c is predicted and never true, d is true and never predicted.
    matrix = np.array([[3, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]])
    report = report_on(matrix, list("abcd"))
    _, b, c, d = report["per_class"]
    assert b == {"class": "b", "accuracy": None, "precision": None, "recall": None, "f1": None, "support": 0}
    assert c == {"class": "c", "accuracy": None, "precision": 0, "recall": None, "f1": 0, "support": 0}
    assert d == {"class": "d", "accuracy": 0, "precision": None, "recall": 0, "f1": 0, "support": 2}
    macro, weighted = report["macro_average"], report["weighted_average"]
    assert macro["recall"] == pytest.approx((3 / 4 + 0) / 2)
    assert macro["precision"] == pytest.approx((3 / 4 + 0) / 2)
    assert macro["f1"] == pytest.approx((6 / 8 + 0 + 0) / 3)
    assert (weighted["recall"], weighted["precision"]) == pytest.approx((3 / 6, 3 / 4))
    assert report_csv(report).splitlines()[2] == "b,,,,,0"
    assert "| b |  |  |  |  | 0 |" in report_markdown(report)
    logits = torch.eye(4)[torch.tensor([0, 0, 0, 2, 0, 2])]
    targets = torch.tensor([0, 0, 0, 0, 3, 3])
    metrics = ImageMetrics(4, training=True)
    metrics.add(logits, targets, torch.tensor(1.0))
    values = metrics.compute()
    assert values["confusion_matrix"].tolist() == matrix.tolist()
    assert {name: float(values[name]) for name in ("precision", "recall", "f1")} == {
        name: macro[name] for name in ("precision", "recall", "f1")
    }
    assert report_on(np.zeros((2, 2), np.int64), ["a", "b"])["macro_average"]["f1"] is None


@pytest.mark.parametrize("count", [2, 3, 7, 10, 37, 100, 1000])
def test_where_all_classes_occur_the_metrics_are_torchmetrics_to_the_bit(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    targets = torch.arange(20 * count) % count
    logits = torch.randn(len(targets), count, generator=generator) + 3 * torch.eye(count)[targets]
    logits[:count] += 100 * torch.eye(count)  # every class is predicted
    metrics = ImageMetrics(count, training=False)
    metrics.add(logits, targets, torch.tensor(1.0))
    values = metrics.compute()
    theirs = {
        "accuracy": MulticlassAccuracy(count, average="micro"),
        "precision": MulticlassPrecision(count, average="macro"),
        "recall": MulticlassRecall(count, average="macro"),
        "f1": MulticlassF1Score(count, average="macro"),
        "calibration_error": MulticlassCalibrationError(count, n_bins=15),
        "confusion_matrix": MulticlassConfusionMatrix(count),
    }
    assert all(torch.equal(values[name], metric(logits, targets)) for name, metric in theirs.items())
    report = report_on(values["confusion_matrix"].numpy(), list(map(str, range(count))))
    assert report["accuracy"] == float(values["accuracy"])
    assert all(report["macro_average"][name] == float(values[name]) for name in ("precision", "recall", "f1"))


def test_the_calibration_error_is_of_probabilities_also_where_the_logits_look_like_some() -> None:
    logits, targets = torch.tensor([[0.9, 0.1], [0.2, 0.3]]), torch.tensor([0, 0])
    metrics = ImageMetrics(2, training=False)
    metrics.add(logits, targets, torch.tensor(1.0))
    sure = logits.softmax(1).max(1).values
    assert float(metrics.compute()["calibration_error"]) == pytest.approx(float((1 - sure[0] + sure[1]) / 2))


def test_weight_decay_can_leave_out_biases_and_normalization() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 4))
    everything = task(network)._parameter_groups()
    assert len(everything) == 6
    decayed, spared = task(network, weight_decay_on="weights")._parameter_groups()
    assert [p.dim() for p in decayed["params"]] == [4, 2]
    assert [tuple(p.shape) for p in spared["params"]] == [(2,), (2,), (2,), (4,)]
    assert spared["weight_decay"] == 0


def test_running_stats_are_the_mean_loss_and_the_recent_accuracy() -> None:
    metrics = ImageMetrics(2, training=True)
    assert metrics.running_stats() is None
    right = torch.tensor([[2.0, 0.0]])
    metrics.add(right, torch.tensor([0]), torch.tensor(1.0))
    metrics.add(right, torch.tensor([1]), torch.tensor(2.0))
    running_stats = metrics.running_stats()
    assert running_stats is not None
    assert running_stats.tolist() == [1.5, 0.5]
