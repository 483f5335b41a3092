"""ResNet with the activation after the addition, and its kin: CIFAR ResNet v1, Wide ResNet-50-2, ResNeXt, SE-ResNet."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from convolt.errors import UserError
from convolt.models.blocks import (
    AS_PUBLISHED,
    BatchNorm,
    ConvBlock,
    PostActivation,
    SqueezeExcitation,
    check_choice,
    make_residual_stages,
    make_shortcut,
)
from convolt.models.heads import PooledHead
from convolt.models.init import initialize, scale_residual_branches
from convolt.models.stems import STEMS, ResidualStem, resolve_stem

KERAS_STEM = "keras"


class ResidualBlock(nn.Module):
    """A branch and a shortcut, added, then AF; (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride).

    "basic": 3x3, BN, AF, 3x3, BN. "bottleneck": 1x1, BN, AF, 3x3, BN, AF, 1x1, BN. Both end with squeeze and excitation
    where asked for. With batch norm after the activation the last convolution of the branch and the projection
    have none of their own: the block ends with addition, AF, BN.

    Args:
        kind: "basic" or "bottleneck".
        in_channels: Channels of the input.
        width: Channels of the 3x3 convolutions.
        out_channels: Channels of the output.
        stride: Stride of the block.
        stride_on_1x1: Whether a bottleneck strides in its first 1x1 rather than in its 3x3.
        groups: Groups of a bottleneck's 3x3.
        shortcut: How the shortcut changes shape, as in `make_shortcut`.
        se_reduction: Reduction of squeeze and excitation; 0 for none.
        bias: Whether the convolutions have a bias; None as in `ConvBlock`.
        batchnorm: A resolved placement.
        activation: Name of the activation.
    """

    def __init__(
        self,
        kind: str,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        batchnorm: BatchNorm,
        activation: str,
        stride: int = 1,
        stride_on_1x1: bool = False,
        groups: int = 1,
        shortcut: str = "projection",
        se_reduction: int = 0,
        bias: bool | None = None,
    ) -> None:
        super().__init__()

        conv = partial(ConvBlock, batchnorm=batchnorm, activation=activation, bias=bias)
        last = partial(conv, activation=None)
        if kind == "basic":
            branch = [conv(in_channels, width, 3, stride=stride), last(width, out_channels, 3)]
        else:
            first, second = (stride, 1) if stride_on_1x1 else (1, stride)
            branch = [
                conv(in_channels, width, 1, stride=first),
                conv(width, width, 3, stride=second, groups=groups),
                last(width, out_channels, 1),
            ]
        self.branch = nn.Sequential(*branch)
        if se_reduction:
            self.branch.append(SqueezeExcitation(out_channels, se_reduction))
        self.shortcut = make_shortcut(
            shortcut, in_channels, out_channels, stride=stride, batchnorm=batchnorm, bias=bias
        )
        self.activation = PostActivation(out_channels, batchnorm, activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out: Tensor = self.activation(self.branch(x) + self.shortcut(x))
        return out


class KerasStem(nn.Sequential):
    """Zero pad 3, 7x7 stride 2 "same", BN, AF, 3x3 max pool stride 2 without padding: Keras's way with an even size.

    (N, in_channels, S, S) to (N, width, S', S'), S' about S / 4. "Same" puts the odd zero to the right and below.
    """

    def __init__(self, in_channels: int, width: int, *, image_size: int, **options: Any) -> None:
        before, after = (2, 3) if image_size % 2 == 0 else (3, 3)
        super().__init__(
            nn.ZeroPad2d((3 + before, 3 + after, 3 + before, 3 + after)),
            ConvBlock(in_channels, width, 7, stride=2, padding=0, **options),
            nn.MaxPool2d(3, 2),
        )


class ResNet(nn.Sequential):
    """A stem, stages of residual blocks, global average pooling and a dense layer.

    He et al. 2016, https://arxiv.org/abs/1512.03385; ResNeXt by `groups` and `group_width`
    (https://arxiv.org/abs/1611.05431), Wide ResNet-50-2 by `group_width=128` (https://arxiv.org/abs/1605.07146).

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; it decides the stem.
        batchnorm: "auto" is before.
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal (fan out), the dense layer PyTorch's. Without batch norm the
            branches are scaled down, whatever the scheme (`scale_residual_branches`).
        block: "basic" or "bottleneck".
        layers: Blocks of each stage.
        widths: Base width of each stage; a bottleneck puts out four times as much.
        stem: "imagenet", "three3x3" and its variants, "small" (see `ResidualStem`), "keras" (see `KerasStem`);
            "auto" is by image size.
        shortcut: "projection" (1x1, BN), "convolution" (1x1) or "pad" (zeros for new channels, no weights).
        groups: Groups of the bottlenecks' 3x3 convolutions.
        group_width: Width of a group where the base width is 64.
        stride_on: The convolution of a bottleneck that strides: "3x3" (today's form) or "1x1" (the paper's).
        se_reduction: Reduction of squeeze and excitation (16 in https://arxiv.org/abs/1709.01507); 0 for none.
        conv_bias: Whether convolutions have a bias; None for where no batch norm follows at once.
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
        block: str = "basic",
        layers: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: str = "auto",
        shortcut: str = "projection",
        groups: int = 1,
        group_width: int = 64,
        stride_on: str = "3x3",
        se_reduction: int = 0,
        conv_bias: bool | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("block", block, ("basic", "bottleneck"))
        check_choice("stride_on", stride_on, ("3x3", "1x1"))
        if len(layers) != len(widths):
            raise UserError(
                f"model.layers has {len(layers)} stages and model.widths {len(widths)}: give as many of both"
            )
        if block == "basic" and (groups, group_width, stride_on) != (1, 64, "3x3"):
            raise UserError("model.groups, group_width and stride_on are for bottlenecks: use model.block=bottleneck")
        batchnorm = batchnorm.resolve("ResNet", auto="before")
        stem = resolve_stem(stem, image_size, (*STEMS, KERAS_STEM))
        make_stem: Callable[..., nn.Module] = partial(ResidualStem, stem)
        if stem == KERAS_STEM:
            make_stem = partial(KerasStem, image_size=image_size)
        options: dict[str, Any] = {"batchnorm": batchnorm, "activation": activation, "bias": conv_bias}
        self.stem = make_stem(in_channels, widths[0], **options)
        make_block = partial(
            ResidualBlock,
            block,
            stride_on_1x1=stride_on == "1x1",
            groups=groups,
            shortcut=shortcut,
            se_reduction=se_reduction,
            **options,
        )
        inner_widths = [width * group_width // 64 * groups for width in widths]
        out_widths = [width if block == "basic" else 4 * width for width in widths]
        self.stages, channels = make_residual_stages(make_block, widths[0], layers, inner_widths, out_widths)
        self.head = PooledHead(channels, num_classes, dropout)
        initialize(self, init, convolution="kaiming_normal_fan_out")
        if batchnorm.placement == "none":
            scale_residual_branches([block.branch for block in self.modules() if isinstance(block, ResidualBlock)])
