"""Last layers that several networks share: from (N, C, H, W) to logits (N, num_classes)."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from convolt.models.blocks import BatchNorm, make_activation


class PooledHead(nn.Sequential):
    """Global average pooling, dropout, dense: (N, channels, H, W) to logits (N, num_classes)."""

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1),
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
        batchnorm: A settled placement, or None for hidden layers without normalization.
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
