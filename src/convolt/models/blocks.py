"""The blocks that the networks share.

In the docstrings BN is batch normalization and AF the activation function. A block that says "conv, BN, AF" has that
order for `batchnorm.placement` "before" (the activation), "conv, AF, BN" for "after" and "conv, AF" for "none".
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from convolt.errors import UserError, did_you_mean

PLACEMENTS = ("auto", "before", "after", "none")


@dataclass(frozen=True)
class BatchNorm:
    """Where batch normalization stands and how it averages (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167).

    Attributes:
        placement: "before" or "after" the activation, "none", or "auto": as the network was published.
        momentum: Weight of the new batch in the running statistics (Keras's momentum is 1 minus this).
        eps: Added to the variance.

    Raises:
        UserError: When the placement is none of these, or a number is out of range.
    """

    placement: str = "auto"
    momentum: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.placement not in PLACEMENTS:
            raise UserError(
                f"batchnorm placement {self.placement!r} is not one of {', '.join(PLACEMENTS)}"
                f"{did_you_mean(self.placement, PLACEMENTS)}"
            )
        if not 0 <= self.momentum <= 1:
            raise UserError(f"batchnorm momentum {self.momentum} must lie between 0 and 1")
        if self.eps <= 0:
            raise UserError(f"batchnorm eps {self.eps} must be greater than 0")

    def resolve(self, network: str, auto: str, allowed: Sequence[str] = ("before", "after", "none")) -> "BatchNorm":
        """Turn "auto" into the network's own placement and refuse one that the network does not support.

        Args:
            network: The network's name, for the error.
            auto: The placement that "auto" stands for.
            allowed: The placements that make sense for the network.

        Raises:
            UserError: When the placement is not allowed.
        """
        placement = auto if self.placement == "auto" else self.placement
        if placement not in allowed:
            raise UserError(
                f"batchnorm={placement} makes no sense for {network}: "
                f"choose batchnorm={' or '.join(('auto', *allowed))}"
            )
        return replace(self, placement=placement)

    @property
    def before(self) -> bool:
        """Whether normalization comes between the convolution and the activation."""
        return self.placement == "before"

    @property
    def after(self) -> bool:
        """Whether normalization comes after the activation."""
        return self.placement == "after"

    def layer(self, channels: int) -> nn.BatchNorm2d:
        """Make the layer for (N, channels, H, W)."""
        return nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum)

    def dense_layer(self, features: int) -> nn.BatchNorm1d:
        """Make the layer for (N, features)."""
        return nn.BatchNorm1d(features, eps=self.eps, momentum=self.momentum)


AS_PUBLISHED = BatchNorm()
"""Every network's default."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """Make an activation by its name.

    Args:
        name: A key of `ACTIVATIONS`; "leaky_relu:0.3" sets the negative slope (0.01 alone; Keras's default is 0.3).

    Raises:
        UserError: When there is no such activation.
    """
    kind, _, slope = str(name).partition(":")
    if kind not in ACTIVATIONS:
        raise UserError(
            f"there is no activation {name!r}{did_you_mean(kind, ACTIVATIONS) or '; use ' + ', '.join(ACTIVATIONS)}"
        )
    if not slope:
        return ACTIVATIONS[kind]()
    try:
        if kind != "leaky_relu":
            raise ValueError
        return nn.LeakyReLU(float(slope))
    except ValueError:
        raise UserError(f"activation {name!r}: only leaky_relu takes a number, e.g. leaky_relu:0.3") from None


def make_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    batchnorm: BatchNorm,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool | None = None,
) -> nn.Conv2d:
    """Make a convolution, which has a bias unless batch norm stands before the activation.

    (N, in_channels, H, W) to (N, out_channels, H', W').

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        batchnorm: A resolved placement.
        stride: Stride of the convolution.
        padding: Zeros on each side; None for (kernel_size - 1) // 2, which keeps H' = H / stride for odd kernels.
        groups: Groups of the convolution.
        bias: Whether the convolution has a bias; None for where no normalization follows it at once.
    """
    padding = (kernel_size - 1) // 2 if padding is None else padding
    bias = not batchnorm.before if bias is None else bias
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)


class ConvBlock(nn.Sequential):
    """Conv, BN, AF in the order of `batchnorm`; with no activation conv, BN ("before") or conv alone.

    (N, in_channels, H, W) to (N, out_channels, H', W').

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        batchnorm: A resolved placement.
        activation: Name of the activation, or None for a convolution whose block adds something before it activates.
        options: Stride, padding, groups and bias of the convolution, as in `make_conv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        batchnorm: BatchNorm,
        activation: str | None,
        **options: Any,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = make_conv(in_channels, out_channels, kernel_size, batchnorm=batchnorm, **options)
        if batchnorm.before:
            layers["norm"] = batchnorm.layer(out_channels)
        if activation is not None:
            layers["activation"] = make_activation(activation)
            if batchnorm.after:
                layers["norm"] = batchnorm.layer(out_channels)
        super().__init__(layers)


class PreActivation(nn.Sequential):
    """BN, AF; AF without normalization. Keeps the shape (N, channels, H, W)."""

    def __init__(self, channels: int, batchnorm: BatchNorm, activation: str) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if batchnorm.before:
            layers["norm"] = batchnorm.layer(channels)
        layers["activation"] = make_activation(activation)
        super().__init__(layers)


class PreActConv(nn.Sequential):
    """BN, AF, dropout, conv: the pre-activation unit; AF, dropout, conv without normalization.

    (N, in_channels, H, W) to (N, out_channels, H', W'). The arguments are `ConvBlock`'s, and dropout (none by default).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        batchnorm: BatchNorm,
        activation: str,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        layers = OrderedDict(PreActivation(in_channels, batchnorm, activation).named_children())
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        layers["conv"] = make_conv(in_channels, out_channels, kernel_size, batchnorm=batchnorm, **options)
        super().__init__(layers)


class PostActivation(nn.Sequential):
    """AF; AF, BN where normalization comes after the activation: the end of a residual block. Keeps the shape."""

    def __init__(self, channels: int, batchnorm: BatchNorm, activation: str) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(activation=make_activation(activation))
        if batchnorm.after:
            layers["norm"] = batchnorm.layer(channels)
        super().__init__(layers)


class SqueezeExcitation(nn.Module):
    """Global average pooling, 1x1, ReLU, 1x1, sigmoid, which then scale the channels of the input.

    Keeps the shape (N, channels, H, W). Hu et al. 2018, https://arxiv.org/abs/1709.01507.

    Args:
        channels: Channels of the input.
        reduction: The inner width is `channels // reduction`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, inner, 1)
        self.excite = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        scale: Tensor = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * scale.sigmoid()


class PadShortcut(nn.Module):
    """Every stride-th pixel, zeros for the channels that are new: the shortcut without weights of the CIFAR ResNets.

    (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride); option A of https://arxiv.org/abs/1512.03385.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


SHORTCUTS = ("projection", "convolution", "pad")


def make_shortcut(
    kind: str, in_channels: int, out_channels: int, *, stride: int, batchnorm: BatchNorm, bias: bool | None = None
) -> nn.Module:
    """Make the shortcut around a residual branch; the identity where the shape stays the same.

    Args:
        kind: "projection" (1x1, BN), "convolution" (1x1) or "pad" (zeros for new channels).
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the branch.
        batchnorm: A resolved placement.
        bias: Whether a convolution has a bias; None as in `ConvBlock`.

    Raises:
        UserError: When there is no such kind.
    """
    check_choice("shortcut", kind, SHORTCUTS)
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    if kind == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    if kind == "convolution":
        batchnorm = replace(batchnorm, placement="none")
    return ConvBlock(in_channels, out_channels, 1, stride=stride, batchnorm=batchnorm, activation=None, bias=bias)


def make_residual_stages(
    make_block: Callable[..., nn.Module],
    in_channels: int,
    layers: Sequence[int],
    widths: Sequence[int],
    out_widths: Sequence[int],
) -> tuple[nn.Sequential, int]:
    """Make the stages of a residual network, each but the first of which begins with a block of stride 2.

    Args:
        make_block: Makes a block from (in_channels, width, out_channels, stride=...).
        in_channels: Channels of the input.
        layers: Blocks of each stage.
        widths: Inner width of the blocks of each stage.
        out_widths: Channels of the output of each stage.

    Returns:
        The stages, and the channels of their output.
    """
    stages = nn.Sequential()
    for index, (count, width, out_channels) in enumerate(zip(layers, widths, out_widths, strict=True)):
        stage = nn.Sequential()
        for number in range(count):
            stage.append(make_block(in_channels, width, out_channels, stride=2 if index and not number else 1))
            in_channels = out_channels
        stages.append(stage)
    return stages, in_channels


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of the choices.

    Raises:
        UserError: Naming the key, the value and the choices.
    """
    if value not in choices:
        raise UserError(f"model.{key}={value} is not one of {', '.join(choices)}{did_you_mean(value, choices)}")


def check_image_size(network: str, image_size: int, smallest: int) -> None:
    """Refuse images that are too small for a network.

    Raises:
        UserError: Naming the smallest size.
    """
    if image_size < smallest:
        raise UserError(
            f"{network} cannot take {image_size}x{image_size} images: use data.image_size={smallest} or more"
        )


def output_size(size: int, kernel_size: int, stride: int = 1, padding: int = 0, ceil: bool = False) -> int:
    """Return the side of the output of a convolution or pool; `ceil` is PyTorch's `ceil_mode`."""
    span = size + 2 * padding - kernel_size
    if not ceil:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + padding else out
