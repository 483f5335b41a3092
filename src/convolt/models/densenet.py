"""DenseNet-BC."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convolt.models.blocks import AS_PUBLISHED, BatchNorm, PreActConv, PreActivation
from convolt.models.heads import PooledHead
from convolt.models.init import initialize
from convolt.models.stems import make_preact_stem, resolve_stem


class DenseLayer(nn.Module):
    """BN, AF, 1x1, BN, AF, 3x3, dropout, concatenated to the input: (N, C, H, W) to (N, C + growth, H, W)."""

    def __init__(self, in_channels: int, growth: int, *, bottleneck: int, dropout: float, **options: Any) -> None:
        super().__init__()
        conv: Callable[..., nn.Module] = partial(PreActConv, **options)
        self.branch = nn.Sequential(conv(in_channels, bottleneck * growth, 1), conv(bottleneck * growth, growth, 3))
        if dropout:
            self.branch.append(nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + growth, H, W)."""
        return torch.cat([x, self.branch(x)], 1)


class DenseNet(nn.Sequential):
    """A stem, dense blocks with BN, AF, 1x1, 2x2 average pool between them, BN, AF, global average pooling, dense.

    Huang et al. 2017, https://arxiv.org/abs/1608.06993: with bottlenecks and compression (BC). DenseNet-BC-100-12 is
    layers (16, 16, 16) and growth 12, DenseNet-121 layers (6, 12, 24, 16) and growth 32.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; it decides the stem.
        batchnorm: "auto" is before; after makes no sense, since a layer begins with the activation.
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal, the dense layer PyTorch's.
        layers: Layers of each dense block.
        growth: Channels that a layer adds.
        stem: "imagenet", "three3x3" and its variants, "small" (a bare 3x3) or "auto", by the image size;
            twice the growth wide.
        bottleneck: Width of the 1x1 convolutions in growths.
        compression: Share of the channels that a transition keeps.
        dropout: Dropout at the end of each layer.

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
        layers: Sequence[int] = (16, 16, 16),
        growth: int = 12,
        stem: str = "auto",
        bottleneck: int = 4,
        compression: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        batchnorm = batchnorm.resolve("DenseNet", auto="before", allowed=("before", "none"))
        channels = 2 * growth
        options: dict[str, Any] = {"batchnorm": batchnorm, "activation": activation}
        self.stem = make_preact_stem(resolve_stem(stem, image_size), in_channels, channels, **options)
        make_layer: Callable[..., nn.Module] = partial(
            DenseLayer, growth=growth, bottleneck=bottleneck, dropout=dropout, **options
        )
        self.stages = nn.Sequential()
        for index, count in enumerate(layers):
            stage = nn.Sequential()
            if index:
                fewer = int(channels * compression)
                stage.append(PreActConv(channels, fewer, 1, **options))
                stage.append(nn.AvgPool2d(2))
                channels = fewer
            for _ in range(count):
                stage.append(make_layer(channels))
                channels += growth
            self.stages.append(stage)
        self.final = PreActivation(channels, batchnorm, activation)
        self.head = PooledHead(channels, num_classes)
        initialize(self, init, convolution="kaiming_normal")
