"""The two networks of the report agrawal2020 that differ from AlexNet and GoogLeNet by more than options."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convolt.models.blocks import (
    AS_PUBLISHED,
    BatchNorm,
    ConvBlock,
    check_choice,
    check_image_size,
    make_activation,
    output_size,
)
from convolt.models.heads import DenseHead
from convolt.models.inception import AUXILIARY_WEIGHT, GOOGLENET, AuxiliaryHead, apply_inceptions, make_inceptions
from convolt.models.init import initialize

WIDTHS = {
    **GOOGLENET,
    "4c": GOOGLENET["4c"]._replace(five=24),
    "4e": GOOGLENET["4e"]._replace(reduce_three=120),
}
"""The report's inception blocks: two numbers differ from the paper's."""


class AlexNet(nn.Sequential):
    """96 3x3 stride 4, AF, BN, pool; 256 5x5, AF, BN, pool; 384, 384, 256 3x3, AF, pool; dense 4096, 4096, classes.

    Pools are 2x2 max pools; the first convolution has no padding; only the first two have batch norm.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; 31 or more.
        batchnorm: "auto" is after; for the first two convolutions.
        activation: Name of the activation.
        init: Initial weights; "auto" is Keras's default.
        dropout: Dropout after each hidden dense layer.

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
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        check_image_size("agrawal2020's AlexNet", image_size, 31)
        batchnorm = batchnorm.resolve("agrawal2020's AlexNet", auto="after")
        conv = partial(ConvBlock, batchnorm=BatchNorm("none"), activation=activation)
        conv_norm = partial(ConvBlock, bias=True, batchnorm=batchnorm, activation=activation)
        self.stages = nn.Sequential(
            conv_norm(in_channels, 96, 3, stride=4, padding=0),
            nn.MaxPool2d(2),
            conv_norm(96, 256, 5),
            nn.MaxPool2d(2),
            conv(256, 384, 3),
            conv(384, 384, 3),
            conv(384, 256, 3),
            nn.MaxPool2d(2),
        )
        size = output_size(image_size, 3, 4) // 8
        self.head = DenseHead(256 * size**2, (4096, 4096), num_classes, activation=activation, dropout=dropout)
        initialize(self, init, convolution="keras", dense="keras")


class GoogLeNet(nn.Module):
    """Zero pad 3, 32 3x3 stride 2, BN, AF, pool, twice 192 3x3, BN, AF, pool, and inceptions as in GoogLeNet.

    Pools are 2x2 max pools of stride 1; at the end a 7x7 average pool of stride 1, dropout, flatten, dense 1000, AF,
    dense. Convolutions of the stem have no padding.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; 25 or more.
        batchnorm: "auto" is before in the stem and none in the inceptions; others are for all convolutions.
        activation: Name of the activation.
        init: Initial weights; "auto" is Keras's default.
        auxiliary: "losses": in training `(logits, logits after 4a, logits after 4d)`; "sum": the report's own output
            in training and test, the logarithm of (softmax + 0.3 softmax + 0.3 softmax) / 1.6; "none": no such heads.
        dropout: Dropout of the last feature maps and in the auxiliary heads.

    Raises:
        UserError: When the images are too small or an option is none of these.
    """

    auxiliary_weight = AUXILIARY_WEIGHT

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        batchnorm: BatchNorm = AS_PUBLISHED,
        activation: str = "relu",
        init: str = "auto",
        auxiliary: str = "losses",
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        check_choice("auxiliary", auxiliary, ("losses", "sum", "none"))
        check_image_size("agrawal2020's GoogLeNet", image_size, 25)
        inception_norm = batchnorm.resolve("agrawal2020's GoogLeNet", auto="none")
        options: dict[str, Any] = {"batchnorm": inception_norm, "activation": activation}
        batchnorm = batchnorm.resolve("agrawal2020's GoogLeNet", auto="before")
        self.sums = auxiliary == "sum"

        conv = partial(ConvBlock, kernel_size=3, padding=0, bias=True, batchnorm=batchnorm, activation=activation)
        self.stem = nn.Sequential(
            nn.ZeroPad2d(3),
            conv(in_channels, 32, stride=2),
            nn.MaxPool2d(2, 1),
            conv(32, 192),
            conv(192, 192),
            nn.MaxPool2d(2, 1),
        )
        size = output_size(image_size + 6, 3, 2) - 7
        head = partial(AuxiliaryHead, size=size, num_classes=num_classes, hidden=256, dropout=dropout, **options)
        self.stages, self.auxiliary, channels = make_inceptions(
            192,
            WIDTHS,
            {"4a": nn.MaxPool2d(2, 1), "5a": nn.MaxPool2d(2, 1)},
            None if auxiliary == "none" else head,
            **options,
        )
        self.head = nn.Sequential(
            nn.AvgPool2d(7, 1),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * (size - 7) ** 2, 1000),
            make_activation(activation),
            nn.Linear(1000, num_classes),
        )
        initialize(self, init, convolution="keras", dense="keras")

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, in_channels, image_size, image_size) to logits (N, num_classes), or in training to all heads' logits."""
        if not (self.auxiliary and (self.training or self.sums)):
            logits: Tensor = self.head(self.stages(self.stem(images)))
            return logits
        x, auxiliary = apply_inceptions(self.stages, self.auxiliary, self.stem(images))
        heads = (self.head(x), *auxiliary)
        return self._log_mean_softmax(heads) if self.sums else heads

    def _log_mean_softmax(self, heads: tuple[Tensor, ...]) -> Tensor:
        """Return the logarithm of the weighted mean of the softmaxes, which cross-entropy takes like logits."""
        weights = [1.0] + [self.auxiliary_weight] * (len(heads) - 1)
        total = 1 + self.auxiliary_weight * (len(heads) - 1)
        logs = [head.log_softmax(-1) + math.log(weight / total) for head, weight in zip(heads, weights, strict=True)]
        return torch.stack(logs).logsumexp(0)
