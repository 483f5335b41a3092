"""Pre-activation ResNets: PreAct ResNet-18, CIFAR ResNet v2, Wide ResNet."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from convolt.errors import UserError
from convolt.models.blocks import (
    AS_PUBLISHED,
    BatchNorm,
    PreActConv,
    PreActivation,
    check_choice,
    make_conv,
    make_residual_stages,
    make_shortcut,
)
from convolt.models.heads import PooledHead
from convolt.models.init import initialize, scale_residual_branches
from convolt.models.stems import make_preact_stem, resolve_stem


class PreActBlock(nn.Module):
    """A branch and a shortcut, added; (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride).

    "basic": BN, AF, 3x3, BN, AF, dropout, 3x3. "bottleneck": BN, AF, 1x1, BN, AF, 3x3, BN, AF, dropout, 1x1. A
    bottleneck strides in its first 1x1 or in its 3x3. The shortcut is a plain 1x1 where the shape changes.

    Args:
        kind: "basic" or "bottleneck".
        in_channels: Channels of the input.
        width: Channels of the 3x3 convolutions.
        out_channels: Channels of the output.
        stride: Stride of the block.
        stride_on_1x1: Whether a bottleneck strides in its first 1x1 rather than in its 3x3.
        share_activation: Whether the 1x1 of the shortcut takes the branch's first activation rather than the input.
        dropout: Dropout before the last convolution.
        bias: Whether the convolutions have a bias; None for where the network has no batch norm.
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
        share_activation: bool = True,
        dropout: float = 0.0,
        bias: bool | None = None,
    ) -> None:
        super().__init__()

        conv = partial(make_conv, batchnorm=batchnorm, bias=bias)
        unit = partial(PreActConv, width, batchnorm=batchnorm, activation=activation, bias=bias)
        self.preactivation = PreActivation(in_channels, batchnorm, activation)
        if kind == "basic":
            branch = [conv(in_channels, width, 3, stride=stride), unit(out_channels, 3, dropout=dropout)]
        else:
            first, second = (stride, 1) if stride_on_1x1 else (1, stride)
            branch = [
                conv(in_channels, width, 1, stride=first),
                unit(width, 3, stride=second),
                unit(out_channels, 1, dropout=dropout),
            ]
        self.branch = nn.Sequential(*branch)
        self.shortcut = make_shortcut(
            "convolution", in_channels, out_channels, stride=stride, batchnorm=batchnorm, bias=bool(bias)
        )
        self.share_activation = share_activation and not isinstance(self.shortcut, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        activated = self.preactivation(x)
        out: Tensor = self.branch(activated) + self.shortcut(activated if self.share_activation else x)
        return out


class PreActResNet(nn.Sequential):
    """A stem, stages of pre-activation blocks, BN, AF, global average pooling and a dense layer.

    He et al. 2016, https://arxiv.org/abs/1603.05027.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; it decides the stem.
        batchnorm: "auto" is before; after makes no sense, since a block begins with the activation.
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal (fan out), the dense layer PyTorch's. Without batch norm the
            branches are scaled down, whatever the scheme (`scale_residual_branches`).
        block: "basic" or "bottleneck".
        layers: Blocks of each stage.
        widths: Width of the 3x3 convolutions of each stage.
        out_widths: Channels that each stage puts out; None for the widths, four times them for bottlenecks.
        stem_width: Channels of the stem; None for the first width.
        stem: "imagenet", "three3x3" and its variants, "small" (a bare 3x3) or "auto", by the image size.
        shortcut_from: What a 1x1 of a shortcut takes: "activation" (shared with the branch) or "input", as in Keras's
            CIFAR-10 example, where only the first block, which follows BN and AF of the stem, shares it.
        stride_on: The convolution of a bottleneck that strides: "3x3" or "1x1".
        conv_bias: Whether convolutions have a bias; None for only without batch norm.
        dropout: Dropout before the last convolution of each block (Wide ResNet's).

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
        out_widths: Sequence[int] | None = None,
        stem_width: int | None = None,
        stem: str = "auto",
        shortcut_from: str = "activation",
        stride_on: str = "3x3",
        conv_bias: bool | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("block", block, ("basic", "bottleneck"))
        check_choice("shortcut_from", shortcut_from, ("activation", "input"))
        check_choice("stride_on", stride_on, ("3x3", "1x1"))
        if out_widths is None:
            out_widths = [width * (1 if block == "basic" else 4) for width in widths]
        if not len(layers) == len(widths) == len(out_widths):
            raise UserError("model.layers, model.widths and model.out_widths need one number for each stage")
        batchnorm = batchnorm.resolve("a pre-activation ResNet", auto="before", allowed=("before", "none"))
        channels = widths[0] if stem_width is None else stem_width
        options: dict[str, Any] = {"batchnorm": batchnorm, "activation": activation, "bias": conv_bias}
        self.stem = make_preact_stem(resolve_stem(stem, image_size), in_channels, channels, **options)

        def make_block(inputs: int, width: int, outputs: int, stride: int) -> PreActBlock:
            return PreActBlock(
                block,
                inputs,
                width,
                outputs,
                stride=stride,
                stride_on_1x1=stride_on == "1x1",
                # The only shortcut of stride 1 with weights is the first block's.
                share_activation=shortcut_from == "activation" or stride == 1,
                dropout=dropout,
                **options,
            )

        self.stages, channels = make_residual_stages(make_block, channels, layers, widths, out_widths)
        self.final = PreActivation(channels, batchnorm, activation)
        self.head = PooledHead(channels, num_classes)
        initialize(self, init, convolution="kaiming_normal_fan_out")
        if batchnorm.placement == "none":
            scale_residual_branches([block.branch for block in self.modules() if isinstance(block, PreActBlock)])


class WideResNet(PreActResNet):
    """A pre-activation ResNet of three stages with basic blocks, by depth and width.

    Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; it decides the stem.
        batchnorm: As for `PreActResNet`.
        activation: Name of the activation.
        init: As for `PreActResNet`.
        depth: 6 n + 4 for n blocks a stage, counted as in the paper.
        width: The stages are 16, 32 and 64 times as wide.
        stem: As for `PreActResNet`.
        dropout: Dropout between the convolutions of each block.

    Raises:
        UserError: When there is no such depth, or an option is none of these.
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
        depth: int = 28,
        width: int = 10,
        stem: str = "auto",
        dropout: float = 0.0,
    ) -> None:
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise UserError(f"model.depth={depth}: a Wide ResNet has 6 n + 4 layers, e.g. 10, 16, 22, 28, 34 or 40")
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
            batchnorm=batchnorm,
            activation=activation,
            init=init,
            layers=(blocks,) * 3,
            widths=(16 * width, 32 * width, 64 * width),
            stem_width=16,
            stem=stem,
            dropout=dropout,
        )
