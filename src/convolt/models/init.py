"""Initial weights by name: one function for all networks."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from convolt.errors import UserError, did_you_mean
from convolt.models.blocks import ConvBlock, PreActConv


def _fill_truncated_normal(weight: Tensor, std: float) -> Tensor:
    """Normal values cut at two standard deviations and widened so that `std` is what remains (Keras's correction)."""
    std /= 0.87962566103423978
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


FILLS: dict[str, Callable[[Tensor], object]] = {
    "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "kaiming_normal_fan_out": lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "lecun_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="linear"),
    "lecun_uniform": lambda weight: nn.init.uniform_(
        weight, -math.sqrt(3 / _fan_in(weight)), math.sqrt(3 / _fan_in(weight))
    ),
    "keras": nn.init.xavier_uniform_,
    "keras_he_normal": lambda weight: _fill_truncated_normal(weight, math.sqrt(2 / _fan_in(weight))),
    "orthogonal": nn.init.orthogonal_,
    "normal": lambda weight: nn.init.normal_(weight, std=0.01),
    "truncated_normal": lambda weight: nn.init.trunc_normal_(weight, std=0.01, a=-2, b=2),
}
"""How a scheme fills a weight; every scheme but "pytorch" sets biases to zero."""

CONVOLUTIONS_ONLY = "_convolutions"
"""Suffix of a scheme that is for convolutions alone; dense layers have PyTorch's default."""

INITS = ("auto", "pytorch", *FILLS)


def initialize(module: nn.Module, init: str, convolution: str = "pytorch", dense: str = "pytorch") -> None:
    """Fill the weights of all convolutions and dense layers; batch norms start at 1 and 0.

    Args:
        module: What to fill, in place.
        init: One of `INITS`, or "<scheme>_convolutions" for a scheme that leaves dense layers to PyTorch; "keras" is
            Keras's default: Glorot-uniform kernels, zero biases.
        convolution: The scheme of convolutions that "auto" stands for.
        dense: The scheme of dense layers that "auto" stands for.

    Raises:
        UserError: When there is no such scheme.
    """
    scheme = str(init).removesuffix(CONVOLUTIONS_ONLY)
    if scheme not in INITS:
        raise UserError(
            f"there is no initialization {init!r}{did_you_mean(scheme, INITS) or '; use ' + ', '.join(INITS)}"
        )
    if scheme != "auto":
        convolution, dense = scheme, "pytorch" if init != scheme else scheme
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            _fill(layer, convolution)
        elif isinstance(layer, nn.Linear):
            _fill(layer, dense)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.reset_parameters()


def scale_residual_branches(branches: Sequence[nn.Sequential]) -> None:
    """Divide the weights of the last convolution of each of n residual branches by the square root of n, in place.

    Without normalization each branch would double the variance of what it is added to, and 50 of them end in numbers
    that no precision holds (Hanin and Rolnick 2018, https://arxiv.org/abs/1803.01719).
    """
    with torch.no_grad():
        for branch in branches:
            last = [unit for unit in branch if isinstance(unit, ConvBlock | PreActConv)][-1]
            last.get_parameter("conv.weight").div_(math.sqrt(len(branches)))


def _fill(layer: nn.Conv2d | nn.Linear, scheme: str) -> None:
    if scheme == "pytorch":
        layer.reset_parameters()
        return
    FILLS[scheme](layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
