"""A residual network of nine layers that learns CIFAR-10 fast."""

from functools import partial

from torch import Tensor, nn

from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_image_size
from convolt.models.heads import PooledHead
from convolt.models.init import initialize


class Residual(nn.Module):
    """3x3, BN, AF, 3x3, BN, AF, added to the input; keeps the shape (N, channels, H, W)."""

    def __init__(self, channels: int, *, batchnorm: BatchNorm, activation: str) -> None:
        super().__init__()
        conv = partial(ConvBlock, channels, channels, 3, batchnorm=batchnorm, activation=activation)
        self.branch = nn.Sequential(conv(), conv())

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        out: Tensor = x + self.branch(x)
        return out


class ResNet9(nn.Module):
    """3x3; 3x3, pool, residual; 3x3, pool; 3x3, pool, residual; global max pooling, dense; logits times `logit_scale`.

    The shape that won DAWNBench on CIFAR-10 in 2018 (David Page, "How to train your ResNet"); pools are 2x2 max pools,
    convolutions have BN and AF.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; 8 or more.
        batchnorm: "auto" is before.
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal, the dense layer PyTorch's.
        width: Channels of the first convolution; the stages have 2, 4 and 8 times as many.
        logit_scale: Keeps the softmax soft at the start, where the dense layer sees large maxima.
        dropout: Dropout before the dense layer.

    Raises:
        UserError: When the images are too small or an option is none of these.
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
        width: int = 64,
        logit_scale: float = 0.125,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_image_size("ResNet-9", image_size, 8)
        batchnorm = batchnorm.resolve("ResNet-9", auto="before")
        conv = partial(ConvBlock, kernel_size=3, batchnorm=batchnorm, activation=activation)
        residual = partial(Residual, batchnorm=batchnorm, activation=activation)
        self.stem = conv(in_channels, width)
        self.stages = nn.Sequential(
            nn.Sequential(conv(width, 2 * width), nn.MaxPool2d(2), residual(2 * width)),
            nn.Sequential(conv(2 * width, 4 * width), nn.MaxPool2d(2)),
            nn.Sequential(conv(4 * width, 8 * width), nn.MaxPool2d(2), residual(8 * width)),
        )
        self.head = PooledHead(8 * width, num_classes, dropout, pool=nn.AdaptiveMaxPool2d)
        self.logit_scale = logit_scale
        initialize(self, init, convolution="kaiming_normal_fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.stages(self.stem(images))) * self.logit_scale
        return logits
