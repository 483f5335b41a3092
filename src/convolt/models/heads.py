"""Last layers that several networks share: from (N, C, H, W) to logits (N, num_classes)."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from convolt.models.blocks import BatchNorm, check_choice, make_activation


def make_head_pool(head: str, size: int, pooled: int) -> tuple[nn.Module, int]:
    """Make what brings the last feature maps to the dense layers of a network that was built for ImageNet.

    Args:
        head: "imagenet" averages them to `pooled` x `pooled`, "flatten" leaves them unchanged; "auto" is "imagenet"
            where they are that large.
        size: Their side.
        pooled: The side that ImageNet's weights expect.

    Returns:
        The pool, and the side of its output.

    Raises:
        UserError: When there is no such head.
    """
    check_choice("head", head, ("auto", "imagenet", "flatten"))
    if head == "imagenet" or (head == "auto" and size >= pooled):
        return nn.AdaptiveAvgPool2d(pooled), pooled
    return nn.Identity(), size


class PooledHead(nn.Sequential):
    """Global pooling, dropout, dense: (N, channels, H, W) to logits (N, num_classes).

    Args:
        channels: Channels of the input.
        num_classes: Width of the logits.
        dropout: Dropout before the dense layer.
        pool: Makes the pool from the side of its output; average pooling by default.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        dropout: float = 0.0,
        pool: Callable[[int], nn.Module] = nn.AdaptiveAvgPool2d,
    ) -> None:
        super().__init__(
            OrderedDict(
                pool=pool(1),
                flatten=nn.Flatten(),
                dropout=nn.Dropout(dropout),
                dense=nn.Linear(channels, num_classes),
            )
        )


class ConvHead(nn.Sequential):
    """1x1 to the classes, global average pooling: (N, channels, H, W) to logits (N, num_classes)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            OrderedDict(conv=nn.Conv2d(channels, num_classes, 1), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
        )


class DenseHead(nn.Sequential):
    """Flatten, then dense, BN, AF, dropout for each hidden layer, then dense: (N, C, H, W) to logits (N, num_classes).

    Args:
        in_features: C * H * W.
        hidden: Widths of the hidden layers.
        num_classes: Width of the last layer.
        activation: Name of the activation.
        dropout: Share of the hidden features that training drops.
        dropout_first: Whether dropout stands before each hidden layer rather than after it.
        batchnorm: A resolved placement, or None for hidden layers without normalization.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        num_classes: int,
        *,
        activation: str,
        dropout: float = 0.0,
        dropout_first: bool = False,
        batchnorm: BatchNorm | None = None,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            unit: list[nn.Module] = [nn.Linear(in_features, width)]
            if batchnorm is not None and batchnorm.before:
                unit.append(batchnorm.dense_layer(width))
            unit.append(make_activation(activation))
            if batchnorm is not None and batchnorm.after:
                unit.append(batchnorm.dense_layer(width))
            if dropout:
                unit.insert(0 if dropout_first else len(unit), nn.Dropout(dropout))
            layers += unit
            in_features = width
        super().__init__(*layers, nn.Linear(in_features, num_classes))
