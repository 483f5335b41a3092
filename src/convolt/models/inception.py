"""The inception block and the auxiliary head of GoogLeNet."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convolt.models.blocks import BatchNorm, ConvBlock, make_activation, output_size


class Widths(NamedTuple):
    """Channels of an inception block: of its convolutions, in the order of the paper's table 1."""

    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pool: int

    @property
    def out_channels(self) -> int:
        """Channels of the concatenated output."""
        return self.one + self.three + self.five + self.pool


GOOGLENET = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}
"""The nine blocks of https://arxiv.org/abs/1409.4842; auxiliary heads stand after 4a and 4d."""

AUXILIARY_AFTER = ("4a", "4d")

AUXILIARY_WEIGHT = 0.3
"""Share of each auxiliary head's loss in the loss."""


class Inception(nn.Module):
    """1x1 | 1x1, 3x3 | 1x1, 5x5 | 3x3 max pool, 1x1, concatenated; each convolution with BN and AF.

    (N, in_channels, H, W) to (N, widths.out_channels, H, W).

    Args:
        in_channels: Channels of the input.
        widths: Channels of the convolutions.
        five: Side of the third branch's kernel; torchvision has 3 in place of 5.
        options: `batchnorm` and `activation` of each `ConvBlock`.
    """

    def __init__(self, in_channels: int, widths: Widths, *, five: int = 5, **options: Any) -> None:
        super().__init__()
        conv: Callable[..., nn.Module] = partial(ConvBlock, **options)
        self.one = conv(in_channels, widths.one, 1)
        self.three = nn.Sequential(
            conv(in_channels, widths.reduce_three, 1), conv(widths.reduce_three, widths.three, 3)
        )
        self.five = nn.Sequential(conv(in_channels, widths.reduce_five, 1), conv(widths.reduce_five, widths.five, five))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(in_channels, widths.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, widths.out_channels, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class AuxiliaryHead(nn.Sequential):
    """5x5 average pool stride 3, 1x1, BN, AF, dense, AF, dropout, dense: (N, C, size, size) to logits (N, num_classes).

    Args:
        in_channels: Channels of the input.
        size: Side of the input; below 5 the pool takes all of it.
        num_classes: Width of the logits.
        hidden: Width of the hidden dense layer.
        dropout: Dropout after it.
        batchnorm: A resolved placement.
        activation: Name of the activation.
    """

    def __init__(
        self,
        in_channels: int,
        size: int,
        num_classes: int,
        *,
        batchnorm: BatchNorm,
        activation: str,
        hidden: int = 1024,
        dropout: float = 0.7,
    ) -> None:
        kernel_size = min(5, size)
        super().__init__(
            OrderedDict(
                pool=nn.AvgPool2d(kernel_size, 3),
                conv=ConvBlock(in_channels, 128, 1, batchnorm=batchnorm, activation=activation),
                flatten=nn.Flatten(),
                hidden=nn.Linear(128 * output_size(size, kernel_size, 3) ** 2, hidden),
                activation=make_activation(activation),
                dropout=nn.Dropout(dropout),
                dense=nn.Linear(hidden, num_classes),
            )
        )


def make_inceptions(
    in_channels: int,
    widths: Mapping[str, Widths],
    pools: Mapping[str, nn.Module],
    make_head: Callable[[int], nn.Module] | None,
    **options: Any,
) -> tuple[nn.Sequential, nn.ModuleDict, int]:
    """Make GoogLeNet's inception blocks with the pools between them, and its auxiliary heads.

    Args:
        in_channels: Channels of the input.
        widths: Channels of each block by its name in the paper.
        pools: The pools, by the name of the block that each precedes.
        make_head: Makes an auxiliary head from its input channels; None for no heads.
        options: Of each `Inception`.

    Returns:
        The stages; the heads by the name of the stage whose output they take; the channels of the last stage's output.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    heads = nn.ModuleDict()
    for name, block_widths in widths.items():
        if name in pools:
            stages[f"pool{int(name[0]) - 1}"] = pools[name]
        stages[f"inception{name}"] = Inception(in_channels, block_widths, **options)
        in_channels = block_widths.out_channels
        if make_head and name in AUXILIARY_AFTER:
            heads[f"inception{name}"] = make_head(in_channels)
    return nn.Sequential(stages), heads, in_channels


def apply_inceptions(stages: nn.Sequential, heads: nn.ModuleDict, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Apply the stages of `make_inceptions`; return their output and the auxiliary heads' logits."""
    auxiliary = []
    for name, stage in stages.named_children():
        x = stage(x)
        if name in heads:
            auxiliary.append(heads[name](x))
    return x, auxiliary
