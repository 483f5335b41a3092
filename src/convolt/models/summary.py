"""Count a network's parameters and multiply-adds, list its layers, and check that it takes the images."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from convolt.config.instantiate import describe_error
from convolt.errors import UserError
from convolt.models.find_layers import eval_mode, record_shapes, restore_modes

Shape = tuple[int, ...]

SIZES = (8, 16, 28, 32, 48, 64, 96, 128, 160, 192, 224, 256, 299, 384, 512)
"""Image sizes that are tried to find one that a network takes."""


@dataclass(frozen=True)
class LayerRow:
    """A layer that an image passes in eval mode: one that calls no other, or has something of its own.

    Attributes:
        name: The module's dotted name.
        type: The module's class.
        output_shape: Shape of its output, without the batch; empty where that is not one tensor.
        parameters: Its own parameters.
        macs: Its own multiply-adds for one image.
    """

    name: str
    type: str
    output_shape: Shape
    parameters: int
    macs: int


@dataclass(frozen=True)
class NetworkSummary:
    """The counts and layers of a network.

    Attributes:
        parameters: All parameters, frozen ones included; batch-norm statistics are not counted.
        trainable_parameters: Those that the optimizer changes.
        macs: Multiply-adds of the convolutions and matrix products for one image in eval mode, the papers' FLOPs.
        layers: In the order in which an image passes them; their parameters and multiply-adds add up to the above.
        output_shape: Shape of the logits of one image: (K,), or (K, H, W) where every pixel has its own.
    """

    parameters: int
    trainable_parameters: int
    macs: int
    layers: list[LayerRow]
    output_shape: Shape

    @property
    def activations(self) -> int:
        """Numbers that all layers put out for one image."""
        return sum(math.prod(layer.output_shape) for layer in self.layers if layer.output_shape)


def summarize_network(network: nn.Module, in_channels: int, image_size: int, name: str) -> NetworkSummary:
    """Count a network and check that it takes the images, in eval mode (batch 1) and in training (batch 2).

    Nothing is computed and no weight is copied: the forward passes run on meta tensors.

    Args:
        network: The network; unchanged afterwards.
        in_channels: Channels of the images.
        image_size: Side of the images.
        name: What errors call the network.

    Raises:
        UserError: When the network takes larger images but not these, where the smallest size that works is named;
            when a network of the user's fails; when what one returns is not logits, or it has nothing to train.
    """
    image = in_channels, image_size, image_size
    images = f"{in_channels}x{image_size}x{image_size} images"
    is_ours = type(network).__module__.startswith("convolt.")
    try:
        _shape_lazy_parameters(network, image)
        try:
            layers, evaluated = _list_layers(network, image)
            trained = _run_forward(network, image, training=True)
        except Exception:
            if is_ours:
                raise
            # It may depend on values, or hold tensors that are no buffers: then it must compute.
            layers, evaluated = _list_layers(network, image, device="cpu")
            trained = _run_forward(network, image, training=True, device="cpu")
    except Exception as error:
        larger = (size for size in SIZES if size > image_size)
        smallest = next((size for size in larger if _accepts(network, (in_channels, size, size))), None)
        if smallest is not None:
            raise UserError(f"{name} cannot take {images}: use data.image_size={smallest} or more") from error
        if is_ours:
            raise
        raise UserError(f"{name} fails on {images}: {describe_error(error)}") from error
    _check_outputs(network, name, evaluated, trained)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{name} has no parameters to train: none requires a gradient")
    return NetworkSummary(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        trainable_parameters=sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        macs=sum(layer.macs for layer in layers),
        layers=layers,
        output_shape=tuple(evaluated.shape[1:]),
    )


def _check_outputs(network: nn.Module, name: str, evaluated: Any, trained: Any) -> None:
    """Check that a network returns logits of a batch, in training also (logits, auxiliary logits, ...).

    Raises:
        UserError: Naming what it returns instead.
    """
    if not _is_logits(evaluated, 1):
        raise UserError(f"{name} returns {_describe(evaluated)} in evaluation: return logits alone, (images, classes)")
    several = isinstance(trained, tuple | list)
    heads = trained if several and trained else [trained]
    if not all(_is_logits(head, 2) and head.shape[1] == evaluated.shape[1] for head in heads):
        raise UserError(
            f"{name} returns {_describe(trained)} in training: return logits, (images, classes), "
            "or a tuple of logits and auxiliary logits"
        )
    if several and not isinstance(getattr(network, "auxiliary_weight", None), int | float):
        raise UserError(
            f"{name} returns {_describe(trained)} in training: give it an attribute auxiliary_weight, "
            "by which the loss of the auxiliary logits counts, or return logits alone"
        )


def _is_logits(output: Any, batch: int) -> bool:
    return isinstance(output, Tensor) and output.is_floating_point() and output.dim() > 1 and len(output) == batch


def _describe(output: Any) -> str:
    """Describe what a network has returned."""
    if isinstance(output, Tensor):
        kind = "" if output.is_floating_point() else f" of {str(output.dtype).removeprefix('torch.')}"
        return f"a tensor{kind} of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple | list | dict) else "")


def check_targets(model: str, output_shape: Shape, data: str, target_shape: Shape, num_classes: int) -> None:
    """Check that a network's logits fit the targets of the data.

    Args:
        model: The network's name, for errors.
        output_shape: Of the logits of one image: (K,) or (K, H, W).
        data: The dataset's name, for errors.
        target_shape: Of the target of one image: () or (H, W).
        num_classes: Of the data.

    Raises:
        UserError: When one is about whole images and the other about pixels, or the classes are not as many.
    """
    if output_shape[1:] == target_shape:
        if output_shape[0] != num_classes:
            raise UserError(
                f"{model} gives {output_shape[0]} logits, but {data} has {num_classes} classes: "
                "build its last layer for num_classes"
            )
        return
    if len(output_shape) not in (1, 3):
        raise UserError(f"{model} gives logits of shape {output_shape} for an image: flatten them to ({num_classes},)")
    if len(output_shape) == 3 == len(target_shape) + 1:
        raise UserError(
            f"{model} gives logits of {output_shape[1]}x{output_shape[2]} pixels for labels of "
            f"{target_shape[0]}x{target_shape[1]}: enlarge them to the size of the images"
        )
    if target_shape:
        raise UserError(
            f"{model} labels whole images, but {data} has a label for every pixel: "
            "use model=fcn8s, fcn16s or fcn32s, or other data"
        )
    raise UserError(
        f"{model} labels every pixel, but {data} has one label an image: "
        "use another network, such as model=resnet18, or data=shapes, masks or voc2012"
    )


def count_multiply_adds(network: nn.Module, in_channels: int, image_size: int) -> int:
    """Count the multiply-adds of convolutions and matrix products for one image in eval mode."""
    flops, _ = _count_flops(network, (in_channels, image_size, image_size))
    return flops[""] // 2


def _list_layers(network: nn.Module, image: Shape, device: str = "meta") -> tuple[list[LayerRow], Any]:
    """Return the layers, and the network's output in evaluation."""
    with record_shapes(network) as calls:
        flops, output = _count_flops(network, image, device)
    shapes: dict[str, Shape] = {}
    for name, shape in calls:
        shapes.setdefault(name, shape[1:])
    modules = dict(network.named_modules())
    called = [name for name in modules if name in shapes]
    parents = {name: _innermost_called(name, shapes) for name in called if name}
    own_flops = {name: flops.get(name, 0) for name in called}
    for name, parent in parents.items():
        own_flops[parent] -= flops.get(name, 0)
    own_parameters = dict.fromkeys(called, 0)
    for name, parameter in network.named_parameters():
        own_parameters[_innermost_called(name, shapes)] += parameter.numel()
    leaves = set(called) - set(parents.values())
    rows = [
        LayerRow(name, type(modules[name]).__name__, shapes[name], own_parameters[name], own_flops[name] // 2)
        for name in shapes
        if name in leaves or own_parameters[name] or own_flops[name]
    ]
    return rows, output


def _innermost_called(name: str, called: dict[str, Shape]) -> str:
    """Return the innermost called module around a module or parameter; for auxiliary heads that is the network, ""."""
    while name:
        name = name.rpartition(".")[0]
        if name in called:
            break
    return name


def _run_forward(network: nn.Module, image: Shape, *, training: bool, device: str = "meta") -> Any:
    """Return a network's output for one image, two in training; on the meta device nothing is computed."""
    tensors = {
        name: torch.empty_like(tensor, device="meta") if device == "meta" else tensor.detach().clone()
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    with restore_modes(network), torch.no_grad(), torch.device(device), torch.random.fork_rng(devices=[]):
        network.train(training)
        return functional_call(network, tensors, (torch.zeros(2 if training else 1, *image),))


def _shape_lazy_parameters(network: nn.Module, image: Shape) -> None:
    """Give lazy modules their shapes, by one pass."""
    if any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
        with eval_mode(network), torch.no_grad():
            network(torch.zeros(1, *image))


def _count_flops(network: nn.Module, image: Shape, device: str = "meta") -> tuple[dict[str, int], Any]:
    """Count the floating-point operations of every module with the modules inside it.

    Returns:
        The operations by dotted name, "" being the network, and the network's output.
    """
    with FlopCounterMode(display=False) as counter:
        output = _run_forward(network, image, training=False, device=device)
    root = f"{type(network).__name__}."
    inside = {name: flops for name, flops in counter.get_flop_counts().items() if name.startswith(root)}
    counts = {name.removeprefix(root): sum(flops.values()) for name, flops in inside.items()}
    return {"": counter.get_total_flops(), **counts}, output


def _accepts(network: nn.Module, image: Shape) -> bool:
    try:
        _count_flops(network, image)
        _run_forward(network, image, training=True)
    except Exception:
        return False
    return True
