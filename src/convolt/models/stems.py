"""First layers that several networks share, chosen by the size of the images or by name."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from convolt.models.blocks import ConvBlock, check_choice, make_conv

SMALL_IMAGE = 64
"""Images narrower than this get the small-image stem where `stem` is "auto"."""

STEMS = ("auto", "imagenet", "small", "three3x3", "three3x3_no_pool", "three3x3_no_stride", "three3x3_flat")


def resolve_stem(stem: str, image_size: int, stems: Sequence[str] = STEMS) -> str:
    """Turn "auto" into "small" for images narrower than `SMALL_IMAGE`, into "imagenet" for others.

    Raises:
        UserError: When the stem is not one of `stems`.
    """
    check_choice("stem", stem, stems)
    if stem != "auto":
        return stem
    return "small" if image_size < SMALL_IMAGE else "imagenet"


class ResidualStem(nn.Sequential):
    """The first layers of a ResNet or DenseNet, (N, in_channels, S, S) to (N, width, S', S').

    "imagenet": 7x7 stride 2, BN, AF, 3x3 max pool stride 2; S' = S / 4.
    "three3x3": 3x3 stride 2, BN, AF, 3x3, BN, AF, 3x3, BN, AF, 3x3 max pool stride 2 (widths width/2, width/2, width;
    https://arxiv.org/abs/1812.01187, ResNet-C); S' = S / 4.
    "three3x3_no_pool": the same without the pool; S' = S / 2. "three3x3_no_stride": with stride 1; S' = S / 2.
    "three3x3_flat": without both; S' = S.
    "small": 3x3, BN, AF; S' = S.

    Args:
        kind: One of these.
        in_channels: Channels of the images.
        width: Channels of the output.
        options: `batchnorm`, `activation` and `bias` of each `ConvBlock`.
    """

    def __init__(self, kind: str, in_channels: int, width: int, **options: Any) -> None:
        conv: Callable[..., nn.Module] = partial(ConvBlock, **options)
        half, pool = width // 2, nn.MaxPool2d(3, 2, 1)
        if kind == "small":
            super().__init__(conv(in_channels, width, 3))
        elif kind == "imagenet":
            super().__init__(conv(in_channels, width, 7, stride=2), pool)
        else:
            stride = 2 if kind in ("three3x3", "three3x3_no_pool") else 1
            pools = [pool] if kind in ("three3x3", "three3x3_no_stride") else []
            super().__init__(
                conv(in_channels, half, 3, stride=stride), conv(half, half, 3), conv(half, width, 3), *pools
            )


def make_preact_stem(kind: str, in_channels: int, width: int, *, activation: str, **options: Any) -> nn.Module:
    """Make the first layers of a pre-activation network: a bare 3x3 for "small", else a `ResidualStem`."""
    if kind == "small":
        return make_conv(in_channels, width, 3, **options)
    return ResidualStem(kind, in_channels, width, activation=activation, **options)
