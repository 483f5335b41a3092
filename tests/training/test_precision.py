import pytest
import torch
from torch import nn

from convolt.models.precision import convert, make_plugins
from convolt.tasks.classification import ClassificationTask
from convolt.tasks.segmentation import SegmentationTask
from convolt.training.batch_size import find_batch_size


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_batch_norms_stay_in_float32_under_halves(precision: str) -> None:
    torch.manual_seed(0)
    half, full = network(), network()
    half[1].running_mean.copy_(value := torch.tensor([1.0001, 2, 3, 4]))  # type: ignore[union-attr,operator]
    convert(half, precision)
    assert {name for name, tensor in half.state_dict().items() if tensor.dtype == torch.float32} == {
        "1.weight", "1.bias", "1.running_mean", "1.running_var"
    }  # fmt: skip
    assert torch.equal(half[1].running_mean, value)  # type: ignore[arg-type]
    assert half(torch.ones(2, 1, 4, 4, dtype=half[0].weight.dtype)).dtype == half[0].weight.dtype  # type: ignore[arg-type]
    assert convert(full, "bf16-mixed") is full
    assert full[0].weight.dtype == torch.float32
    assert convert(full, "64-true")[1].running_mean.dtype == torch.float64  # type: ignore[index]


def test_running_statistics_move_by_less_than_a_half_can_tell() -> None:
    norm = convert(nn.Sequential(nn.BatchNorm1d(1, momentum=0.001)), "bf16-true")
    for _ in range(1000):
        norm(torch.full((4, 1), 2.0, dtype=torch.bfloat16))
    assert float(norm[0].running_mean) == pytest.approx(2 * (1 - 0.999**1000), rel=1e-3)  # type: ignore[index]


def test_lightnings_plugin_takes_the_place_of_its_own_for_halves_alone() -> None:
    assert [make_plugins(name) for name in ("32-true", "64-true", "16-mixed", "bf16-mixed")] == [[], [], [], []]
    for name in ("16-true", "bf16-true"):
        (plugin,) = make_plugins(name)
        assert plugin.precision == name
        assert plugin.convert_module(network())[1].weight.dtype == torch.float32  # type: ignore[index]


def test_the_loss_of_halves_is_float32_and_of_doubles_double() -> None:
    task = ClassificationTask(nn.Flatten(), 4, lambda p: torch.optim.SGD(p, lr=0.1))
    targets = torch.tensor([0, 1, 2])
    mixed = torch.full((3, 4), 0.25, dtype=torch.bfloat16)
    logits = torch.randn(3, 4)
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2):
        assert task.loss(logits.to(dtype), targets)[0].dtype == expected
    halves = logits.bfloat16()
    torch.testing.assert_close(task.loss(halves, mixed)[0], task.loss(halves.float(), mixed.float())[0])


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_of_classes_work_in_every_precision(precision: str) -> None:
    weights = [0.1, 1.0, 2.3]
    task = SegmentationTask(nn.Identity(), 3, lambda p: torch.optim.SGD(p, lr=0.1), class_weights=weights, loss="both")
    logits, targets = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    before = task.evaluation_loss(logits, targets)
    convert(task, precision)
    assert torch.equal(task.evaluation_loss(logits, targets), before)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_batch_is_searched_for_in_the_precision_of_the_run(precision: str) -> None:
    device = torch.device("cpu")
    assert find_batch_size(network(), torch.optim.SGD, (1, 4, 4), 3, device, precision, most=9) == 8
