"""MobileNet v1."""

from typing import Any

from torch import nn

from convolt.errors import UserError
from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock
from convolt.models.heads import PooledHead
from convolt.models.init import initialize
from convolt.models.stems import resolve_stem

LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Width and stride of each depthwise separable convolution."""


class SeparableConv(nn.Sequential):
    """3x3 depthwise, BN, AF, 1x1, BN, AF; (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, **options: Any) -> None:
        super().__init__(
            ConvBlock(in_channels, in_channels, 3, stride=stride, groups=in_channels, **options),
            ConvBlock(in_channels, out_channels, 1, **options),
        )


class MobileNet(nn.Sequential):
    """3x3, BN, AF, thirteen depthwise separable convolutions, global average pooling and a dense layer: 28 layers.

    Howard et al. 2017, https://arxiv.org/abs/1704.04861.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; it decides the stem.
        batchnorm: "auto" is before.
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal (fan out), the dense layer PyTorch's.
        width_multiplier: Every width is multiplied by this.
        stem: The first convolution has stride 2 ("imagenet") or 1 ("small"); "auto" is by the image size.
        dropout: Dropout before the dense layer.

    Raises:
        UserError: When an option is none of these.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        batchnorm: BatchNorm = AS_PUBLISHED,
        activation: str = "relu",
        init: str = "auto",
        width_multiplier: float = 1.0,
        stem: str = "auto",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels = int(32 * width_multiplier)
        if channels < 1:
            raise UserError(f"model.width_multiplier={width_multiplier} leaves no channels: use 1/32 or more")
        batchnorm = batchnorm.resolve("MobileNet", auto="before")
        stride = 2 if resolve_stem(stem, image_size, ("auto", "imagenet", "small")) == "imagenet" else 1
        self.stem = ConvBlock(in_channels, channels, 3, stride=stride, batchnorm=batchnorm, activation=activation)
        self.stages = nn.Sequential()
        for base, stride in LAYERS:
            width = int(base * width_multiplier)
            self.stages.append(SeparableConv(channels, width, stride, batchnorm=batchnorm, activation=activation))
            channels = width
        self.head = PooledHead(channels, num_classes, dropout)
        initialize(self, init, convolution="kaiming_normal_fan_out")
