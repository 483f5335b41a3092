"""Losses and metrics of labeled pixels, against numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convolt.errors import UserError
from convolt.metrics.class_report import segmentation_report
from convolt.metrics.pixels import METRICS, PixelMetrics
from convolt.runs.predictions import PredictedMasks
from convolt.tasks.losses import dice_loss, pixel_cross_entropy
from convolt.tasks.segmentation import SegmentationTask

# Rows are true classes. Class 0: TP 3, FP 1, FN 1. Class 1: TP 2, FP 1, FN 2. Class 2: TP 0, FP 1, FN 0.
# Class 3 occurs nowhere.
MATRIX = torch.tensor([[3, 1, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and true labels (1, 2, 5) with this matrix, two of the pixels ignored."""
    true = torch.tensor([[[0, 0, 0, 0, 1], [1, 1, 1, 255, 255]]])
    predicted = torch.tensor([[[0, 0, 0, 1, 0], [1, 1, 2, 3, 0]]])
    return predicted, true


def logits_of(labels: torch.Tensor, count: int) -> torch.Tensor:
    return F.one_hot(labels, count).movedim(-1, 1).float() * 5


def metrics() -> PixelMetrics:
    return PixelMetrics(4)


def test_the_metrics_equal_numbers_worked_out_by_hand() -> None:
    found = metrics()
    predicted, true = pairs()
    found.add(logits_of(predicted, 4), true, torch.tensor(0.5))
    values = found.compute()
    assert values["confusion_matrix"].tolist() == MATRIX.tolist()
    assert float(values["accuracy"]) == pytest.approx(5 / 8)
    # IoU 3/5, 2/5 and, for what was predicted and never true, 0; what occurs nowhere counts nowhere.
    assert float(values["mean_iou"]) == pytest.approx((3 / 5 + 2 / 5 + 0) / 3)
    assert float(values["dice"]) == pytest.approx((6 / 8 + 4 / 7 + 0) / 3)
    assert float(values["loss"]) == 0.5


def test_an_absent_class_counts_nowhere_and_a_predicted_one_counts_as_zero() -> None:
    absent, values = measured([0, 0, 0, 0], [0, 0, 0, 0])
    assert float(values["mean_iou"]) == float(values["dice"]) == absent["macro_average"]["iou"] == 1
    assert [row["iou"] for row in absent["per_class"]] == [1, None, None, None]
    invented, values = measured([0, 0, 0, 1], [0, 0, 0, 0])
    assert float(values["mean_iou"]) == invented["macro_average"]["iou"] == pytest.approx((3 / 4 + 0) / 2)
    nothing, values = measured([0, 1], [255, 255])
    assert all(values[name].isnan() for name in METRICS)
    assert nothing["accuracy"] is nothing["macro_average"]["iou"] is nothing["weighted_average"]["dice"] is None


def test_the_report_and_the_metrics_are_the_same_numbers_and_those_of_before() -> None:
    random = torch.Generator().manual_seed(5)
    for _ in range(20):
        predicted, true = (torch.randint(0, 4, (300,), generator=random).tolist() for _ in range(2))
        report, values = measured(predicted, true)
        macro = report["macro_average"]
        assert (report["accuracy"], macro["iou"], macro["dice"]) == tuple(
            float(values[name]) for name in ("accuracy", "mean_iou", "dice")
        )
        counts = values["confusion_matrix"].double()
        hits, both = counts.diagonal(), counts.sum(0) + counts.sum(1)
        assert torch.equal(values["mean_iou"], (hits / (both - hits)).nanmean().float())
        assert torch.equal(values["dice"], (2 * hits / both).nanmean().float())


def measured(predicted: list[int], true: list[int]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the report and the metrics of pixels, of four classes."""
    found = metrics()
    found.add(logits_of(torch.tensor([[predicted]]), 4), torch.tensor([[true]]), torch.tensor(0.5))
    values = found.compute()
    return segmentation_report(values["confusion_matrix"].numpy(), ["a", "b", "c", "d"]), values


def test_batches_add_up_and_the_next_epoch_starts_anew() -> None:
    random = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, 4, (6, 3, 5), generator=random)
    true = torch.randint(0, 4, (6, 3, 5), generator=random)
    whole, parts = metrics(), metrics()
    whole.add(logits_of(predicted, 4), true, torch.tensor(1.0))
    assert parts.running_stats() is None
    for part in (slice(0, 2), slice(2, 6)):
        parts.add(logits_of(predicted[part], 4), true[part], torch.tensor(1.0))
    running_stats = parts.running_stats()
    assert running_stats is not None
    assert running_stats.tolist() == pytest.approx([1, float((predicted == true).float().mean())])
    first, second = whole.compute(), parts.compute()
    assert all(torch.equal(first[name], second[name]) for name in first)
    parts.add(logits_of(predicted[:1], 4), predicted[:1], torch.tensor(0.0))
    assert float(parts.compute()["mean_iou"]) == 1


def test_mean_iou_and_dice_equal_torchmetrics_where_all_classes_occur() -> None:
    from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex

    random = torch.Generator().manual_seed(1)
    predicted, true = (torch.randint(0, 4, (2, 30, 30), generator=random) for _ in range(2))
    true[:, :3] = 255
    found = metrics()
    found.add(logits_of(predicted, 4), true, torch.tensor(0.0))
    values = found.compute()
    theirs = MulticlassJaccardIndex(4, ignore_index=255)(predicted, true)
    assert float(values["mean_iou"]) == pytest.approx(float(theirs), abs=1e-6)
    theirs = MulticlassF1Score(4, ignore_index=255)(predicted, true)  # Dice is F1
    assert float(values["dice"]) == pytest.approx(float(theirs), abs=1e-6)


def test_the_report_says_none_where_a_class_has_no_rate() -> None:
    report = segmentation_report(MATRIX.numpy(), ["a", "b", "c", "d"])
    a, _, c, d = report["per_class"]
    assert a == {"class": "a", "iou": 3 / 5, "dice": 6 / 8, "precision": 3 / 4, "recall": 3 / 4, "support": 4}
    assert (c["iou"], c["recall"], c["precision"]) == (0, None, 0)
    assert [d[name] for name in ("iou", "dice", "precision", "recall", "support")] == [None, None, None, None, 0]
    assert report["macro_average"]["iou"] == pytest.approx(1 / 3)
    assert report["weighted_average"]["iou"] == pytest.approx((4 * 3 / 5 + 4 * 2 / 5) / 8)
    assert report["accuracy"] == 5 / 8


def test_each_images_mean_iou_is_over_its_own_classes() -> None:
    targets = np.array([[[0, 0], [1, 1]], [[2, 2], [2, 255]], [[255, 255], [255, 255]]], np.uint8)
    masks = np.array([[[0, 0], [1, 0]], [[2, 2], [2, 0]], [[0, 0], [0, 0]]], np.uint8)
    predicted = PredictedMasks("test", masks, targets, np.array([[2, 0, 0], [1, 1, 0], [0, 0, 3]]))
    iou = predicted.mean_iou()
    assert iou[:2] == pytest.approx([(2 / 3 + 1 / 2) / 2, 1])
    assert np.isnan(iou[2])
    assert np.array_equal(predicted.matrices.sum(0), predicted.confusion_matrix)


# --- losses


def test_cross_entropy_is_pytorchs_and_leaves_255_out() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=random)
    targets = torch.randint(0, 3, (2, 4, 4), generator=random)
    targets[0, :2] = 255
    weights = torch.tensor([0.5, 1.0, 3.0])
    for options in ({}, {"weight": weights}, {"label_smoothing": 0.1}):
        expected = F.cross_entropy(logits, targets, ignore_index=255, **options)
        found = pixel_cross_entropy(logits, targets, options.get("weight"), options.get("label_smoothing", 0.0))
        assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", [pixel_cross_entropy, dice_loss])
def test_a_batch_without_any_label_has_no_loss_and_no_gradient(loss) -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = loss(logits, torch.full((1, 2, 2), 255))
    value.backward()
    assert float(value.detach()) == 0
    assert not logits.grad.any()


def test_the_dice_loss_equals_its_formula() -> None:
    # Two pixels count, the third is ignored; class 2 is not among the targets.
    probabilities = torch.tensor([[[0.7, 0.2, 0.9], [0.1, 0.6, 0.05], [0.2, 0.2, 0.05]]])[:, :, None]
    targets = torch.tensor([[[0, 1, 255]]])
    dice = [2 * 0.7 / (0.9 + 1), 2 * 0.6 / (0.7 + 1)]
    assert float(dice_loss(probabilities.log(), targets)) == pytest.approx(1 - sum(dice) / 2)
    weighted = dice_loss(probabilities.log(), targets, torch.tensor([3.0, 1.0, 5.0]))
    assert float(weighted) == pytest.approx(1 - (3 * dice[0] + dice[1]) / 4)
    assert float(dice_loss(logits_of(torch.tensor([[[0, 1]]]), 2) * 20, torch.tensor([[[0, 1]]]))) == pytest.approx(0)


def test_the_gradient_of_the_dice_loss_equals_its_formula() -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float32).requires_grad_()
    targets = torch.randint(0, 2, (2, 4, 5), generator=random)  # class 2 does not occur
    targets[1, 0] = 255
    dice_loss(logits, targets).backward()

    p = logits.detach().softmax(1)
    seen = (targets != 255)[:, None].float()
    t = F.one_hot(targets.clamp(max=2), 3).movedim(-1, 1) * seen
    p = p * seen
    both, total = (p * t).sum((0, 2, 3)), p.sum((0, 2, 3)) + t.sum((0, 2, 3))
    # d loss / d p = -1/C (2 t / total - 2 both / total^2), for the C = 2 classes that occur.
    shape = (1, 3, 1, 1)
    by_p = -(2 * t / total.view(shape) - (2 * both / total**2).view(shape)) / 2
    by_p[:, 2] = 0
    by_p = by_p * seen
    expected = p * (by_p - (by_p * p).sum(1, keepdim=True))  # through the softmax
    assert torch.allclose(logits.grad, expected, atol=1e-7)
    assert expected.abs().max() > 1e-4


def task(**options: object) -> SegmentationTask:
    return SegmentationTask(torch.nn.Conv2d(3, 3, 1), 3, torch.optim.SGD, **options)


def test_both_losses_are_their_sum_and_weights_count() -> None:
    logits, targets = torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 255]]])
    parts = [float(task(loss=name).loss(logits, targets)[0]) for name in ("cross_entropy", "dice", "both")]
    assert parts[2] == pytest.approx(parts[0] + parts[1])
    only_first = task(class_weights=[1, 0, 0]).loss(logits, targets)[0]
    assert float(only_first) == pytest.approx(float(F.cross_entropy(logits[:, :, 0, 0], targets[:, 0, 0])))
    smoothed = task(label_smoothing=0.2)
    assert float(smoothed.loss(logits, targets)[0]) != float(smoothed.evaluation_loss(logits, targets))
    assert "class_weights" not in task(class_weights=[1, 1, 1]).state_dict()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "dise"}, "task.loss=dise is not one of cross_entropy, dice, both; did you mean 'dice'"),
        ({"metrics": ["iou"]}, "task.metrics names the unknown 'iou'"),
        ({"class_weights": [1.0, 2.0]}, "for each of the 3 classes"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "not all 0"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        task(**options)
    assert said in str(caught.value)
