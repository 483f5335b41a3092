"""The largest batch that fits, found by trial before a run."""

import copy
import gc
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from convolt.errors import UserError
from convolt.models.precision import AUTOCAST, DTYPES, convert
from convolt.models.repeatable import flatten_pixels
from convolt.system.files import format_bytes
from convolt.system.memory import available_bytes, is_out_of_memory

_MEMORY_SHARE = 0.8
"""Share of the available memory that a trial may be expected to take."""

_WORKSPACE = 2.0
"""Bytes that a step takes for each byte that it keeps for its backward pass: the gradients of what was kept."""


def find_batch_size(
    network: nn.Module,
    optimizer: Callable[[Iterable[Any]], Optimizer],
    image: tuple[int, int, int],
    num_classes: int,
    device: torch.device,
    precision: str,
    *,
    most: int,
    reserved: int = 0,
) -> int:
    """Find the largest power of two whose training step fits into memory.

    Steps are tried with twice as many images each time, on a copy of the network, so that the weights, the optimizer
    and all generators stay as they are. On a GPU a trial fails; on a CPU the system would rather end the process, so
    what a step will take is estimated from what the last one kept for its backward pass, and not tried where that is
    too much.

    Args:
        network: The network, on any device.
        optimizer: From parameters to an optimizer; its state counts.
        image: Channels, height and width.
        num_classes: Number of classes K.
        device: Where it will train.
        precision: Lightning's name of it.
        most: A larger batch is of no use: the number of training images.
        reserved: Bytes on the device that something else will take, such as the images.

    Raises:
        UserError: When not even two images fit.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=True):
        found, size = 0, 2
        while size <= most:
            try:
                saved_bytes = _train_step(network, optimizer, (size, *image), num_classes, device, precision, reserved)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                break
            finally:
                gc.collect()
                torch.cuda.empty_cache()  # nothing, where there is no GPU
            found, size = size, 2 * size
            available = available_bytes(device) if device.type == "cpu" else None
            if available is not None and 2 * saved_bytes * _WORKSPACE > _MEMORY_SHARE * (available - reserved):
                break
    if not found:
        raise UserError(
            f"trainer.find_batch_size=true: not even two images fit into the {format_bytes(available_bytes(device))} "
            "available; choose a smaller network, data.image_size or trainer.precision=bf16-mixed"
        )
    return found


def _train_step(
    network: nn.Module,
    optimizer: Callable[[Iterable[Any]], Optimizer],
    shape: tuple[int, ...],
    num_classes: int,
    device: torch.device,
    precision: str,
    reserved: int,
) -> int:
    """Train a copy for one step; return the bytes kept for its backward pass."""
    placeholder = torch.empty(reserved if device.type == "cuda" else 0, dtype=torch.uint8, device=device)
    trial = copy.deepcopy(network).to(device).train()
    stepper = optimizer([p for p in trial.parameters() if p.requires_grad])
    images = torch.randn(shape, device=device)
    trial, images = convert(trial, precision), images.to(DTYPES.get(precision, images.dtype))
    targets = torch.arange(shape[0], device=device) % num_classes
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            outputs = trial(images)
            heads = [outputs] if isinstance(outputs, Tensor) else list(outputs)
            pairs = [flatten_pixels(head.float(), _expand_labels(targets, head)) for head in heads]
            loss = torch.stack([F.cross_entropy(*pair) for pair in pairs]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    stepper.step()
    del placeholder
    return sum(saved.values())


def _expand_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """Give every place of (B, K, ...) logits its image's label (B,)."""
    places = logits.shape[2:]
    return labels.view(-1, *(1,) * len(places)).expand(-1, *places)
