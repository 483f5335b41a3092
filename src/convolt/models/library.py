"""Networks of other libraries by name: torchvision's classifiers and timm's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from convolt.errors import UserError, did_you_mean
from convolt.models.blocks import AS_PUBLISHED, BatchNorm
from convolt.models.inception import AUXILIARY_WEIGHT


class Torchvision(nn.Module):
    """Any of torchvision's classifiers, (N, in_channels, S, S) to logits (N, num_classes).

    In training, networks with auxiliary heads (GoogLeNet, Inception v3) give `(logits, *auxiliary_logits)`.

    Args:
        in_channels: Channels of the images; for other than 3 the first convolution is replaced.
        num_classes: Width of the logits.
        image_size: Side of the images; only the vision transformers are built for it.
        batchnorm: "auto": torchvision's networks are used unchanged.
        activation: "relu", that is, unchanged.
        init: "auto", that is, torchvision's.
        name: The function's name in `torchvision.models`, e.g. mobilenet_v3_small.
        pretrained: Whether to download torchvision's best ImageNet weights; other class numbers get a new last layer.
        kwargs: Further arguments of the function.

    Raises:
        UserError: When there is no such network, it does not take an argument, or weights cannot be had.
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
        name: str,
        pretrained: bool = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import torchvision

        _refuse_options(f"torchvision's {name}", batchnorm, activation, init)
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise UserError(
                f"torchvision has no classifier {name!r}{did_you_mean(name, names)} "
                "(python -c 'import torchvision; print(torchvision.models.list_models(torchvision.models))')"
            )
        arguments = dict(kwargs or {})
        if name.startswith("vit_") and not pretrained:
            arguments.setdefault("image_size", image_size)
        if name in ("googlenet", "inception_v3") and not pretrained:
            arguments.setdefault("init_weights", True)
        if not pretrained:
            arguments["num_classes"] = num_classes
        weights = "DEFAULT" if pretrained else None
        with _explain_errors(f"torchvision's {name}"):
            self.network: nn.Module = torchvision.models.get_model(name, weights=weights, **arguments)
        if pretrained:
            _resize_last_layers(self.network, num_classes)
        if in_channels != 3:
            _resize_first_convolution(self.network, in_channels)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, in_channels, S, S) to logits (N, num_classes), in training in a tuple with the auxiliary heads'."""
        output: Tensor | tuple[Tensor | None, ...] = self.network(images)
        if isinstance(output, Tensor):
            return output
        logits, *auxiliary = (part for part in output if part is not None)
        return (logits, *auxiliary) if auxiliary else logits


class Timm(nn.Module):
    """Any network of timm (Xception, Inception-v4, CBAM and the like), (N, in_channels, S, S) to (N, num_classes).

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; timm's own argument for it, where a network has one, belongs in `kwargs`.
        batchnorm: "auto": timm's networks are used unchanged.
        activation: "relu", that is, unchanged.
        init: "auto", that is, timm's.
        name: timm's name, e.g. xception41.
        pretrained: Whether to download timm's weights.
        kwargs: Further arguments of `timm.create_model`.

    Raises:
        UserError: When timm is not installed, has no such network, or weights cannot be had.
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
        name: str,
        pretrained: bool = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise UserError("model=timm needs timm: pip install 'convolt[timm]'") from error

        _refuse_options(f"timm's {name}", batchnorm, activation, init)
        names = timm.list_models()
        if name.partition(".")[0] not in names:
            raise UserError(f"timm has no network {name!r}{did_you_mean(name, names)}")
        with _explain_errors(f"timm's {name}"):
            self.network: nn.Module = timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **(kwargs or {})
            )

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, S, S) to logits (N, num_classes)."""
        logits: Tensor = self.network(images)
        return logits


@contextmanager
def _explain_errors(network: str) -> Iterator[None]:
    """Turn what a library raises while it builds a network into a user's mistake in one line."""
    try:
        yield
    except (OSError, TypeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"no weights for {network} ({reason}): connect to the internet or use model.pretrained=false"
            if isinstance(error, OSError)
            else f"{network} does not take these settings: {reason}"
        ) from error


def _refuse_options(network: str, batchnorm: BatchNorm, activation: str, init: str) -> None:
    if batchnorm != AS_PUBLISHED or activation != "relu" or init != "auto":
        raise UserError(
            f"{network} is used unchanged: leave out batchnorm, model.activation and model.init, or use our networks"
        )


def _resize_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution new weights for images of other than three channels."""
    conv = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == 3)
    conv.in_channels = in_channels
    conv.weight = nn.Parameter(
        conv.weight.new_empty(len(conv.weight), in_channels // conv.groups, *conv.weight.shape[2:])
    )
    conv.reset_parameters()


def _resize_last_layers(network: nn.Module, num_classes: int) -> None:
    """Give every layer that computes ImageNet's 1000 logits new weights where there are other classes."""
    if num_classes == 1000:
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and layer.out_features == 1000:
            layer.out_features = num_classes
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == 1000:
            layer.out_channels = num_classes
        else:
            continue
        layer.weight = nn.Parameter(layer.weight.new_empty(num_classes, *layer.weight.shape[1:]))
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.new_empty(num_classes))
        layer.reset_parameters()
