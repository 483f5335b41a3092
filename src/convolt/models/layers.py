"""Which layers of a network are looked into, whatever the network."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convolt.errors import UserError, did_you_mean

_SMALLEST_MAP = 4
"""Side in pixels from which on a map of where the evidence lies says something."""


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation for a look, and back into the modes that its modules had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def feature_maps(network: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return the modules that put out square feature maps of more than one pixel, in the order of their calls.

    Args:
        network: The network, in evaluation.
        image: (1, C, H, W).

    Returns:
        Dotted name to (channels, side).
    """
    found: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] == output.shape[3] > 1:
                found.pop(name, None)
                found[name] = (output.shape[1], output.shape[2])

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def first_convolution(network: nn.Module, called: Sequence[str]) -> str | None:
    """Return the name of the convolution that is called first; None where there is none."""
    modules = dict(network.named_modules())
    return next((name for name in called if isinstance(modules[name], nn.Conv2d)), None)


def stage_ends(maps: dict[str, tuple[int, int]]) -> list[str]:
    """Return the last module at every resolution, the outermost of those that end there together.

    A module that contains one already chosen is passed over: its output is not the end of that stage alone.
    """
    by_side: dict[int, list[str]] = {}
    for name, (_, side) in maps.items():
        by_side.setdefault(side, []).append(name)
    chosen: list[str] = []
    for names in by_side.values():
        candidates = [n for n in reversed(names) if not any(other.startswith(f"{n}.") for other in chosen)]
        if candidates:
            chosen.append(candidates[0])
    return chosen


def default_layers(network: nn.Module, image: Tensor) -> list[str]:
    """Return the first convolution and the end of each stage: of each resolution of the feature maps.

    Args:
        network: The network, in evaluation.
        image: (1, C, H, W).
    """
    maps = feature_maps(network, image)
    first = first_convolution(network, list(maps))
    return list(dict.fromkeys([*([first] if first else []), *stage_ends(maps)]))


def evidence_layer(network: nn.Module, image: Tensor) -> str | None:
    """Return the layer that Grad-CAM looks at: the end of the last stage whose maps have 4 x 4 pixels or more.

    Where none has (tiny images), the largest map; None for a network without feature maps.
    """
    maps = feature_maps(network, image)
    ends = stage_ends(maps)
    large = [name for name in ends if maps[name][1] >= _SMALLEST_MAP]
    return large[-1] if large else max(ends, key=lambda name: maps[name][1], default=None)


def check_layers(network: nn.Module, names: Sequence[str]) -> None:
    """See that modules of these names exist.

    Raises:
        UserError: Names the first that does not.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            raise UserError(
                f"pictures.layers: the network has no layer {name!r}{did_you_mean(name, known)}; see summary=true"
            )


def last_layers(network: nn.Module, num_classes: int) -> list[nn.Module]:
    """Return the layers that may be the classifier: linear ones or convolutions with an output a class."""
    return [
        module
        for module in network.modules()
        if (isinstance(module, nn.Linear) and module.out_features == num_classes)
        or (isinstance(module, nn.Conv2d) and module.out_channels == num_classes)
    ]
