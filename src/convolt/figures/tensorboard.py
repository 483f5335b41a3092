"""Figures, the network's graph and the projector's files in the formats of TensorBoard."""

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from convolt.figures.events import make_summary
from convolt.figures.grid import Pixels
from convolt.system.files import atomic_write, write_text

log = logging.getLogger(__name__)

_CONFIG = """embeddings {
  tensor_name: "last hidden layer"
  tensor_path: "projector/tensors.tsv"
  metadata_path: "projector/metadata.tsv"
  sprite { image_path: "projector/sprite.png" single_image_dim: 32 single_image_dim: 32 }
}
"""
_SIDE = 32
"""Height and width of a thumbnail."""


def add_picture(writer: Any, tag: str, png: bytes, step: int) -> None:
    """Add a PNG file, unchanged, to a SummaryWriter; its `add_image` would encode the pixels once more."""
    writer._get_file_writer().add_summary(make_summary(tag, png), step)


def add_graph(writer: Any, network: nn.Module, image: Tensor) -> None:
    """Add a network's graph to a SummaryWriter, or log why the network cannot be traced.

    Args:
        writer: The writer.
        network: In evaluation: auxiliary heads are not part of the graph.
        image: (1, C, H, W).
    """
    try:
        with torch.no_grad(), redirect_stdout(io.StringIO()):  # it prints errors before it raises them
            writer.add_graph(network, image, use_strict_trace=False)
    except Exception as error:
        log.warning("no graph for TensorBoard: %s: %s", type(error).__name__, (str(error).splitlines() or [""])[0])


def write_projector(
    folder: Path, features: NDArray[np.float32], labels: Sequence[str], images: Sequence[Pixels]
) -> None:
    """Write vectors, classes and thumbnails for TensorBoard's projector.

    Ours, since `SummaryWriter.add_embedding` needs TensorBoard's logger, writes every digit (2.7 times the bytes) into
    a folder a step, which pile up, and leaves half a file where it is killed.

    Args:
        folder: The run's; the files go to `projector/`, and `projector_config.pbtxt` names them.
        features: (N, D).
        labels: N class names.
        images: N images (H, W, C) in [0, 1].
    """
    files = folder / "projector"
    files.mkdir(exist_ok=True)
    lines = ("\t".join(map("{:.4g}".format, row)) for row in features.tolist())
    write_text(files / "tensors.tsv", "\n".join(lines) + "\n")
    write_text(files / "metadata.tsv", "\n".join(" ".join(label.split()) or "-" for label in labels) + "\n")
    with atomic_write(files / "sprite.png") as beside:
        _make_sprite(images).save(beside, format="PNG", compress_level=3)
    write_text(folder / "projector_config.pbtxt", _CONFIG)


def _make_sprite(images: Sequence[Pixels]) -> Any:
    """Return thumbnails as one image, a square of squares, row by row, white where there are fewer."""
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    if stack.shape[2:] != (_SIDE, _SIDE):
        stack = functional.interpolate(stack, (_SIDE, _SIDE), mode="area")
    rows = int(np.ceil(len(stack) ** 0.5))
    stack = functional.pad(stack, (0, 0, 0, 0, 0, 0, 0, rows**2 - len(stack)), value=1)
    return to_pil_image((make_grid(stack, nrow=rows, padding=0).clamp(0, 1) * 255).byte())
