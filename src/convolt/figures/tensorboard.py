"""Pictures, the projector's files and the network's graph, as TensorBoard wants them."""

import io
import json
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convolt.figures.grid import Pixels
from convolt.system.files import atomic_write, write_text

log = logging.getLogger(__name__)

PROJECTOR = "projector"


def add_picture(writer: Any, tag: str, png: bytes, size: tuple[int, int], step: int) -> None:
    """Add a finished PNG to a SummaryWriter as it is; `add_image` would decode, copy and encode it again.

    Args:
        writer: A `torch.utils.tensorboard.SummaryWriter`.
        tag: Its name.
        png: The file.
        size: Width and height in pixels.
        step: The epoch.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(width=size[0], height=size[1], colorspace=4, encoded_image_string=png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def add_graph(writer: Any, network: nn.Module, image: Tensor) -> bool:
    """Add the network's graph; a network that cannot be traced is passed over with a line in run.log.

    Args:
        writer: A `torch.utils.tensorboard.SummaryWriter`.
        network: The network, in evaluation: auxiliary heads are not part of it.
        image: (1, C, H, W).
    """
    from torch.utils.tensorboard._pytorch_graph import graph

    try:
        with torch.no_grad(), redirect_stdout(io.StringIO()):  # it prints what goes wrong
            traced, profile = graph(network, (image,), use_strict_trace=False)  # type: ignore[no-untyped-call]
    except Exception as error:
        log.warning("no graph for TensorBoard: %s: %s", type(error).__name__, (str(error).splitlines() or [""])[0])
        return False
    writer._get_file_writer().add_graph((traced, profile))
    return True


def write_projector(
    folder: Path, features: NDArray[np.float32], labels: Sequence[str], images: Sequence[Pixels], side: int = 32
) -> None:
    """Write a run's files for the projector: vectors, classes and thumbnails.

    Args:
        folder: The run's; the files go to `projector/`, and `projector_config.pbtxt` names them.
        features: (N, D).
        labels: N class names.
        images: N images (H, W, C) in [0, 1].
        side: Of the thumbnails.
    """
    below = folder / PROJECTOR
    below.mkdir(exist_ok=True)
    lines = ("\t".join(map("{:.4g}".format, row)) for row in features.tolist())
    write_text(below / "tensors.tsv", "\n".join(lines) + "\n")
    write_text(below / "metadata.tsv", "\n".join(" ".join(label.split()) or "-" for label in labels) + "\n")
    with atomic_write(below / "sprite.png") as beside:
        _sprite(images, side).save(beside, format="PNG", compress_level=3)
    name = json.dumps("last hidden layer")
    write_text(
        folder / "projector_config.pbtxt",
        f"embeddings {{\n  tensor_name: {name}\n"
        f'  tensor_path: "{PROJECTOR}/tensors.tsv"\n  metadata_path: "{PROJECTOR}/metadata.tsv"\n'
        f'  sprite {{\n    image_path: "{PROJECTOR}/sprite.png"\n'
        f"    single_image_dim: {side}\n    single_image_dim: {side}\n  }}\n}}\n",
    )


def _sprite(images: Sequence[Pixels], side: int) -> Any:
    """Set thumbnails into a square of squares, row by row."""
    from PIL import Image

    stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    if stack.shape[2:] != (side, side):
        stack = torch.nn.functional.interpolate(stack, (side, side), mode="area")
    bytes_ = (stack.clamp(0, 1) * 255).to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    rows = int(np.ceil(len(bytes_) ** 0.5))
    sheet = np.full((rows * rows, side, side, 3), 255, np.uint8)
    sheet[: len(bytes_)] = bytes_
    return Image.fromarray(sheet.reshape(rows, rows, side, side, 3).swapaxes(1, 2).reshape(rows * side, rows * side, 3))
