"""Networks of other libraries by name: torchvision's classifiers and timm's."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from convolt.errors import UserError, did_you_mean
from convolt.models.blocks import AS_PUBLISHED, BatchNorm, logits_and_auxiliary

AUXILIARY_WEIGHT = 0.3


class Torchvision(nn.Module):
    """Any of torchvision's classifiers, (N, in_channels, S, S) to logits (N, num_classes).

    In training, networks with auxiliary heads (GoogLeNet, Inception v3) give `(logits, *auxiliary_logits)`.

    Args:
        in_channels: Channels of the images; for other than 3 the first convolution is made anew.
        num_classes: Width of the logits.
        image_size: Side of the images; only the vision transformers are built for it.
        batchnorm: "auto": torchvision's networks are taken as they are.
        activation: "relu", that is as they are.
        init: "auto", that is torchvision's.
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
        try:
            self.network: nn.Module = torchvision.models.get_model(
                name, weights="DEFAULT" if pretrained else None, **arguments
            )
        except OSError as error:
            raise UserError(_no_weights(f"torchvision's {name}", error)) from error
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"torchvision's {name} does not take these settings: {_line(error)}") from error
        if pretrained:
            _replace_classes(self.network, num_classes)
        if in_channels != 3:
            _replace_first_convolution(self.network, in_channels)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, in_channels, S, S) to logits (N, num_classes), in training in a tuple with the auxiliary heads'."""
        output: Tensor | tuple[Tensor | None, ...] = self.network(images)
        if isinstance(output, Tensor):
            return output
        logits, *auxiliary = (part for part in output if part is not None)
        return logits_and_auxiliary(logits, auxiliary)


class Timm(nn.Module):
    """Any network of timm (Xception, Inception-v4, CBAM and the like), (N, in_channels, S, S) to (N, num_classes).

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; timm's own argument for it, where a network has one, belongs in `kwargs`.
        batchnorm: "auto": timm's networks are taken as they are.
        activation: "relu", that is as they are.
        init: "auto", that is timm's.
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
        try:
            self.network: nn.Module = timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **(kwargs or {})
            )
        except OSError as error:
            raise UserError(_no_weights(f"timm's {name}", error)) from error
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"timm's {name} does not take these settings: {_line(error)}") from error

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, S, S) to logits (N, num_classes)."""
        logits: Tensor = self.network(images)
        return logits


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _no_weights(network: str, error: OSError) -> str:
    return f"no weights for {network} ({_line(error)}): connect to the internet or use model.pretrained=false"


def _refuse_options(network: str, batchnorm: BatchNorm, activation: str, init: str) -> None:
    if batchnorm != AS_PUBLISHED or activation != "relu" or init != "auto":
        raise UserError(
            f"{network} is taken as it is: leave out batchnorm, model.activation and model.init, or use our networks"
        )


def _replace(root: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, layer)


def _replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Make the first convolution anew, with the same settings, for images of other than three channels."""
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        old.groups,
        old.bias is not None,
    )
    _replace(network, name, new)


def _replace_classes(network: nn.Module, num_classes: int) -> None:
    """Make every layer that gives ImageNet's 1000 classes anew where other classes are wanted."""
    if num_classes == 1000:
        return
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear) and layer.out_features == 1000:
            _replace(network, name, nn.Linear(layer.in_features, num_classes, layer.bias is not None))
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == 1000:
            _replace(network, name, nn.Conv2d(layer.in_channels, num_classes, 1))
