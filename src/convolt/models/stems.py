"""First layers that several networks share: by the size of the images, or as asked."""

from collections.abc import Sequence

from torch import nn

from convolt.models.blocks import BatchNorm, ConvBlock, check_choice, plain_conv

SMALL_IMAGE = 64
"""Images narrower than this get the small-image stem where `stem` is "auto"."""

STEMS = ("auto", "imagenet", "small", "three3x3")


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
    "small": 3x3, BN, AF; S' = S.
    """

    def __init__(
        self,
        kind: str,
        in_channels: int,
        width: int,
        *,
        batchnorm: BatchNorm,
        activation: str,
        bias: bool | None = None,
    ) -> None:
        def conv(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> ConvBlock:
            return ConvBlock(
                inputs, outputs, kernel_size, stride=stride, batchnorm=batchnorm, activation=activation, bias=bias
            )

        if kind == "small":
            super().__init__(conv(in_channels, width, 3))
            return
        if kind == "imagenet":
            convs = [conv(in_channels, width, 7, 2)]
        else:
            convs = [conv(in_channels, width // 2, 3, 2), conv(width // 2, width // 2, 3), conv(width // 2, width, 3)]
        super().__init__(*convs, nn.MaxPool2d(3, 2, 1))


def make_preact_stem(
    kind: str,
    in_channels: int,
    width: int,
    *,
    batchnorm: BatchNorm,
    activation: str,
    bias: bool | None = None,
) -> nn.Module:
    """Make the first layers of a pre-activation network: a bare 3x3 for "small", else a `ResidualStem`."""
    if kind == "small":
        return plain_conv(in_channels, width, 3, batchnorm=batchnorm, bias=bias)
    return ResidualStem(kind, in_channels, width, batchnorm=batchnorm, activation=activation, bias=bias)
