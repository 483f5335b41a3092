"""ImageNet's weights of torchvision's VGG16 in our VGG16."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from convolt.errors import UserError
from convolt.models.blocks import BatchNorm
from convolt.system.files import expand_home

Weights = Mapping[str, Tensor]

DENSE = ("classifier.0", "classifier.3")
"""torchvision's names of the two hidden dense layers."""


def load_vgg16(stages: nn.Module, head: nn.Module, source: bool | str, batchnorm: BatchNorm) -> None:
    """Load the weights of torchvision's VGG16 (or VGG16 with batch norm) into our stages, in place.

    Args:
        stages: VGG16's, from `convolt.models.vgg.vgg_stages`.
        head: Holds two convolutions, which take the weights of the two hidden dense layers where the sizes agree.
        source: True for torchvision's download, or the path of a file with its state dict.
        batchnorm: The resolved placement in the stages.

    Raises:
        UserError: When the weights cannot be had, or do not fit to the stages.
    """
    if batchnorm.after:
        raise UserError(
            "model.pretrained: ImageNet's weights have batch norm before the activation or none at all: "
            "choose batchnorm=before or batchnorm=none"
        )
    weights = _download(batchnorm) if source is True else _read_state_dict(Path(expand_home(str(source))))
    ours = [module for module in stages.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    theirs = _group_by_layer(weights)
    if [layer.weight.dim() for layer in ours] != [one["weight"].dim() for one in theirs]:
        found = "with" if any(one["weight"].dim() == 1 for one in theirs) else "without"
        wanted = "before" if found == "with" else "none"
        raise UserError(
            f"model.pretrained: these are weights of a VGG {found} batch norm, which do not fit to this network: "
            f"choose batchnorm={wanted}, and VGG16's weights"
        )
    for layer, tensors in zip(ours, theirs, strict=True):
        if layer.weight.shape != tensors["weight"].shape:
            raise UserError(
                f"model.pretrained: a layer's weights are {_format_shape(tensors['weight'])}, but this network's are "
                f"{_format_shape(layer.weight)}: ImageNet's weights are for color images and model.width=1"
            )
        layer.load_state_dict(tensors, strict=False)
    convolutions = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)]
    for convolution, name in zip(convolutions, DENSE, strict=True):
        weight = weights.get(f"{name}.weight")
        if weight is None or weight.numel() != convolution.weight.numel():
            return  # a head of another size is learnt from the beginning
        weight = weight.reshape(convolution.weight.shape)
        convolution.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})


def _format_shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _group_by_layer(weights: Weights) -> list[dict[str, Tensor]]:
    """Return the tensors of each layer of torchvision's `features`, in order."""
    layers: dict[int, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        if found := re.fullmatch(r"features\.(\d+)\.(\w+)", key):
            layers.setdefault(int(found[1]), {})[found[2]] = tensor
    if not layers or not all("weight" in tensors for tensors in layers.values()):
        raise UserError("model.pretrained: there are no weights of torchvision's VGG16 (features.0.weight, ...) in it")
    return [layers[place] for place in sorted(layers)]


def _download(batchnorm: BatchNorm) -> Weights:
    from torchvision.models import VGG16_BN_Weights, VGG16_Weights

    weights = (VGG16_BN_Weights if batchnorm.before else VGG16_Weights).IMAGENET1K_V1
    try:
        state: Weights = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: what came has another digest
        reason = " ".join(str(error).split())
        file = weights.url.rsplit("/", 1)[-1]
        raise UserError(
            f"model.pretrained=true: {file} cannot be downloaded ({reason}): check the internet connection, or give "
            f"its path by model.pretrained=DIR/{file}, or use model.pretrained=false"
        ) from error
    return state


def _read_state_dict(path: Path) -> Weights:
    if not path.is_file():
        raise UserError(f"model.pretrained={path}: there is no such file; true downloads torchvision's weights")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever it likes on damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model.pretrained={path} cannot be read as a state dict of PyTorch: {reason}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"model.pretrained={path} holds no state dict: names and tensors are wanted")
    return state
