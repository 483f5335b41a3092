"""Layers that repeat their bits on a GPU: the same values, and no operation left for which PyTorch has no such form."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convolt.models.repeatable import flatten_pixels, make_repeatable
from models.networks import build_meta, names
from models.repeatable import UNREPEATABLE, Recorded, training_operations


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def gradients(layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a layer makes of images, and the gradient of a weighted sum of it."""
    images = images.clone().requires_grad_()
    out = layer(images)
    weights = torch.arange(out.numel(), dtype=out.dtype).view(out.shape).cos()
    (out * weights).sum().backward()
    assert images.grad is not None
    return out.detach(), images.grad


@pytest.mark.parametrize("side", [(1, 1), (2, 3), (7, 7), (13, 9), (14, 14)])
@pytest.mark.parametrize(
    "layer",
    [
        nn.AdaptiveAvgPool2d(7), nn.AdaptiveAvgPool2d((3, None)), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1),
        nn.AdaptiveMaxPool2d((2, 5)), nn.LocalResponseNorm(5, alpha=5e-4, k=2), nn.LocalResponseNorm(4),
    ],
    ids=str,
)  # fmt: skip
def test_layers_have_pytorchs_values_and_gradients(layer: nn.Module, side: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 6, *side, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    expected = gradients(layer, images)
    twin = copy.deepcopy(layer)
    make_repeatable(nn.Sequential(twin))
    assert type(twin) is not type(layer)
    for found, wanted in zip(gradients(twin, images), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_means_of_halves_are_rounded_once() -> None:
    images = (torch.arange(98.0) / 7).view(1, 2, 7, 7).bfloat16()
    twin = nn.Sequential(nn.AdaptiveAvgPool2d(3))
    make_repeatable(twin)
    assert torch.equal(twin(images), F.adaptive_avg_pool2d(images.float(), 3).bfloat16())


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("vgg11", ("model.head=imagenet",), 32), ("alexnet", ("model.head=imagenet",), 64), ("alexnet_paper", (), 64),
        ("resnet9", (), 32), ("resnet18", (), 32), *((name, (), 32) for name in names(of_pixels=True)),
    ],
)  # fmt: skip
def test_no_operation_without_a_repeatable_form_is_left(
    deterministic: None, name: str, options: tuple[str, ...], size: int
) -> None:
    """`tests/training/test_determinism.py` asks it of every network."""
    operations = training_operations(build_meta(name, *options, size=size), size)
    assert {"convolution_backward", "nll_loss_forward"} <= operations
    assert operations.isdisjoint(UNREPEATABLE)


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d(7), nn.AdaptiveMaxPool2d(1), nn.LocalResponseNorm(5)], ids=str)
def test_the_list_sees_what_it_is_made_for(layer: nn.Module) -> None:
    with Recorded() as recorded:
        layer(torch.empty(2, 3, 4, 4, device="meta", requires_grad=True)).sum().backward()
    assert not recorded.names.isdisjoint(UNREPEATABLE)


def test_pixels_are_laid_out_by_rows_on_a_gpu_that_must_repeat_its_bits(deterministic: None) -> None:
    logits, targets = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    assert flatten_pixels(logits, targets)[0] is logits  # the CPU keeps its bits
    flat, rows = flatten_pixels(logits.to("meta"), targets.to("meta"))
    assert (flat.shape, rows.shape) == ((40, 3), (40,))
    rowwise = F.cross_entropy(logits.movedim(1, -1).flatten(0, -2), targets.flatten())
    torch.testing.assert_close(rowwise, F.cross_entropy(logits, targets))
