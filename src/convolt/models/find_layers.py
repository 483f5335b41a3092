"""Find the layers of any network whose outputs are drawn, and record the shapes of outputs."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convolt.errors import UserError, did_you_mean

_SMALLEST_MAP = 4
"""Side in pixels below which a Grad-CAM is too coarse to say anything."""


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation for a while."""
    with restore_modes(network):
        network.eval()
        yield


@contextmanager
def restore_modes(network: nn.Module) -> Iterator[None]:
    """Bring each module of a network back into its mode, training or evaluation, at the end."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def record_shapes(network: nn.Module) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """Record each call of a module: its dotted name and its output's shape, which is () where it is not one tensor."""
    calls: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        calls.append((name, tuple(output.shape) if isinstance(output, Tensor) else ()))

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(record, name)))
        yield calls


def find_feature_maps(network: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return the modules whose outputs are square feature maps of more than one pixel, in the order of their calls.

    Args:
        network: The network, in evaluation.
        image: (1, C, H, W).

    Returns:
        Dotted name to (channels, side).
    """
    with torch.no_grad(), record_shapes(network) as calls:
        network(image)
    found: dict[str, tuple[int, int]] = {}
    for name, shape in calls:
        if name and len(shape) == 4 and shape[2] == shape[3] > 1:
            found.pop(name, None)  # the order is that of the last calls
            found[name] = shape[1], shape[2]
    return found


def find_first_convolution(network: nn.Module, called: Sequence[str]) -> str | None:
    """Return the name of the convolution that is called first; None where there is none."""
    modules = dict(network.named_modules())
    return next((name for name in called if isinstance(modules[name], nn.Conv2d)), None)


def find_stage_ends(maps: dict[str, tuple[int, int]]) -> list[str]:
    """Return the last module at every resolution, the outermost of those that end there together.

    A module that contains one already chosen is passed over: its output is not the end of that stage alone.
    """
    by_side: dict[int, list[str]] = {}
    for name, (_, side) in maps.items():
        by_side.setdefault(side, []).append(name)
    chosen: list[str] = []
    for names in by_side.values():
        candidates = [n for n in reversed(names) if not any(other.startswith(f"{n}.") for other in chosen)]
        chosen += candidates[:1]
    return chosen


def find_default_layers(network: nn.Module, image: Tensor) -> list[str]:
    """Return the first convolution and the end of each stage: of each resolution of the feature maps.

    Args:
        network: The network, in evaluation.
        image: (1, C, H, W).
    """
    maps = find_feature_maps(network, image)
    first = find_first_convolution(network, list(maps))
    return list(dict.fromkeys([*([first] if first else []), *find_stage_ends(maps)]))


def find_gradcam_layer(network: nn.Module, image: Tensor) -> str | None:
    """Return the layer for Grad-CAM: the end of the last stage whose maps have 4 x 4 pixels or more.

    Where none has (tiny images), the largest map; None for a network without feature maps.
    """
    maps = find_feature_maps(network, image)
    ends = find_stage_ends(maps)
    large = [name for name in ends if maps[name][1] >= _SMALLEST_MAP]
    return large[-1] if large else max(ends, key=lambda name: maps[name][1], default=None)


def check_layers(network: nn.Module, names: Sequence[str]) -> None:
    """Check that modules of these names exist.

    Raises:
        UserError: Names the first that does not.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            raise UserError(
                f"pictures.layers: the network has no layer {name!r}{did_you_mean(name, known)}; see summary=true"
            )


def find_last_layers(network: nn.Module, num_classes: int) -> list[nn.Module]:
    """Return the layers that may be the classifier: linear ones or convolutions with an output a class."""
    return [
        module
        for module in network.modules()
        if (isinstance(module, nn.Linear) and module.out_features == num_classes)
        or (isinstance(module, nn.Conv2d) and module.out_channels == num_classes)
    ]
