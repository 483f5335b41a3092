"""The two networks of the report agrawal2020 that differ from AlexNet and GoogLeNet by more than options."""

import math
from collections import OrderedDict
from dataclasses import replace

import torch
from torch import Tensor, nn

from convolt.models.blocks import (
    AS_PUBLISHED,
    BatchNorm,
    ConvBlock,
    check_choice,
    check_image_size,
    logits_and_auxiliary,
    make_activation,
    output_size,
)
from convolt.models.heads import DenseHead
from convolt.models.inception import AUXILIARY_AFTER, AUXILIARY_WEIGHT, GOOGLENET, AuxiliaryHead, Inception
from convolt.models.init import initialize

WIDTHS = {
    **GOOGLENET,
    "4c": GOOGLENET["4c"]._replace(five=24),
    "4e": GOOGLENET["4e"]._replace(reduce_three=120),
}
"""The report's inception blocks: two numbers differ from the paper's."""


class AlexNet(nn.Module):
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
        batchnorm = batchnorm.settle("agrawal2020's AlexNet", auto="after")
        without = replace(batchnorm, placement="none")

        def conv(inputs: int, outputs: int) -> ConvBlock:
            return ConvBlock(inputs, outputs, 3, batchnorm=without, activation=activation)

        self.stages = nn.Sequential(
            ConvBlock(in_channels, 96, 3, stride=4, padding=0, bias=True, batchnorm=batchnorm, activation=activation),
            nn.MaxPool2d(2),
            ConvBlock(96, 256, 5, bias=True, batchnorm=batchnorm, activation=activation),
            nn.MaxPool2d(2),
            conv(256, 384),
            conv(384, 384),
            conv(384, 256),
            nn.MaxPool2d(2),
        )
        size = output_size(image_size, 3, 4) // 8
        self.head = DenseHead(256 * size**2, (4096, 4096), num_classes, activation=activation, dropout=dropout)
        initialize(self, init, convolution="keras", dense="keras")

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, image_size, image_size) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.stages(images))
        return logits


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
        inception_norm = batchnorm.settle("agrawal2020's GoogLeNet", auto="none")
        batchnorm = batchnorm.settle("agrawal2020's GoogLeNet", auto="before")
        self.sums = auxiliary == "sum"

        def conv(inputs: int, outputs: int, stride: int = 1) -> ConvBlock:
            return ConvBlock(
                inputs, outputs, 3, stride=stride, padding=0, bias=True, batchnorm=batchnorm, activation=activation
            )

        self.stem = nn.Sequential(
            nn.ZeroPad2d(3),
            conv(in_channels, 32, 2),
            nn.MaxPool2d(2, 1),
            conv(32, 192),
            conv(192, 192),
            nn.MaxPool2d(2, 1),
        )
        size = output_size(image_size + 6, 3, 2) - 6
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        heads = {}
        channels = 192
        for name, widths in WIDTHS.items():
            if name in ("4a", "5a"):
                stages[f"pool{int(name[0]) - 1}"] = nn.MaxPool2d(2, 1)
                size -= 1
            stages[f"inception{name}"] = Inception(channels, widths, batchnorm=inception_norm, activation=activation)
            channels = widths.out_channels
            if auxiliary != "none" and name in AUXILIARY_AFTER:
                heads[f"inception{name}"] = AuxiliaryHead(
                    channels,
                    size,
                    num_classes,
                    hidden=256,
                    dropout=dropout,
                    batchnorm=inception_norm,
                    activation=activation,
                )
        self.stages = nn.Sequential(stages)
        self.auxiliary = nn.ModuleDict(heads)
        self.head = nn.Sequential(
            nn.AvgPool2d(7, 1),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * (size - 6) ** 2, 1000),
            make_activation(activation),
            nn.Linear(1000, num_classes),
        )
        initialize(self, init, convolution="keras", dense="keras")

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, in_channels, image_size, image_size) to logits (N, num_classes), or in training to all heads' logits."""
        x = self.stem(images)
        auxiliary = []
        for name, stage in self.stages.named_children():
            x = stage(x)
            if name in self.auxiliary and (self.training or self.sums):
                auxiliary.append(self.auxiliary[name](x))
        logits: Tensor = self.head(x)
        if self.sums:
            return self._sum(logits, auxiliary)
        return logits_and_auxiliary(logits, auxiliary)

    def _sum(self, logits: Tensor, auxiliary: list[Tensor]) -> Tensor:
        """The logarithm of the weighted mean of the softmaxes: cross-entropy takes it as it takes logits."""
        total = 1 + self.auxiliary_weight * len(auxiliary)
        weights = [1.0] + [self.auxiliary_weight] * len(auxiliary)
        logs = [
            head.log_softmax(-1) + math.log(weight / total)
            for head, weight in zip((logits, *auxiliary), weights, strict=True)
        ]
        return torch.stack(logs).logsumexp(0)
