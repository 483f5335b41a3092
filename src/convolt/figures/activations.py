"""What a network's layers put out for an image, and its first filters."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convolt.figures.grid import Pixels, draw_grid, to_color
from convolt.figures.style import Sheet, shorten

Maps = NDArray[np.float32]


def record_activations(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Maps]:
    """Run images through a network and return what layers put out.

    Args:
        network: The network, in evaluation.
        images: (B, C, H, W).
        layers: Dotted names; those that put out no feature maps are left out.

    Returns:
        Name to (B, channels, h, w).
    """
    found: dict[str, Maps] = {}

    def record(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            found[name] = output.detach().float().cpu().numpy().copy()  # later layers may write into it

    with ExitStack() as hooks, torch.no_grad():
        for name in layers:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(partial(record, name)))
        network(images)
    return {name: found[name] for name in layers if name in found}


def most_varied_channels(maps: Maps, count: int) -> NDArray[np.int64]:
    """Return the channels that differ most between images, by the variance of their means, the most first.

    Args:
        maps: (B, channels, h, w).
        count: How many.
    """
    variance = maps.mean(axis=(2, 3)).var(axis=0)
    return np.argsort(-variance, kind="stable")[:count]


def draw_activations(images: Sequence[Pixels], names: Sequence[str], maps: Mapping[str, Maps], title: str) -> Sheet:
    """Draw, for one image a row, the channels of each layer that differ most between the images.

    Args:
        images: (H, W, C) in [0, 1], one a row.
        names: Of the rows' classes.
        maps: Layer to (B, channels, h, w).
        title: Above it.
    """
    import matplotlib as mpl

    channels, side = 4 if len(maps) <= 5 else 3, 64
    color = mpl.colormaps["viridis"]
    rows: list[list[Pixels]] = [[_resize_to_square(image, side)] for image in images]
    heads = ["image"]
    groups: list[tuple[int, int, str]] = []
    for layer, values in maps.items():
        chosen = most_varied_channels(values, channels)
        for channel in chosen:
            shown = values[:, channel]
            low, high = float(shown.min()), float(shown.max())
            scaled = (shown - low) / (high - low or 1.0)
            for row, one in zip(rows, scaled, strict=True):
                row.append(_resize_to_square(np.asarray(color(one), np.float32)[..., :3], side))
            heads.append(f"[{channel}]")
        groups.append((len(heads) - len(chosen), len(chosen), layer))
    sizes = ", ".join(f"{layer} {v.shape[1]} x {v.shape[2]} x {v.shape[3]}" for layer, v in maps.items())
    what = "layer [channel]; of each layer the channels that differ most between the rows; dark: low, bright: high"
    return draw_grid(
        [tile for row in rows for tile in row],
        title,
        columns=len(heads),
        row_labels=list(names),
        column_labels=heads,
        column_groups=groups,
        side=side,
        gap=4,
        note=f"{what}\n{shorten(sizes, len(heads) * 12)}",
    )


def _resize_to_square(image: Pixels, side: int) -> Pixels:
    """Resize an image to side x side pixels by the nearest one."""
    rows, columns = (((np.arange(side) + 0.5) * size / side).astype(int) for size in image.shape[:2])
    return to_color(image[rows][:, columns])


def draw_filters(weights: NDArray[np.float32], title: str, limit: int = 64) -> Sheet:
    """Draw filters: of three channels as colors, else by the mean over their channels, gray being 0.

    Args:
        weights: (filters, channels, height, width).
        title: Above them.
        limit: At most so many.
    """
    shown = weights[:limit]
    if shown.shape[1] != 3:
        shown = shown.mean(axis=1, keepdims=True)
    top = float(np.abs(shown).max()) or 1.0
    tiles = [np.asarray(0.5 + 0.5 * one.transpose(1, 2, 0) / top, np.float32) for one in shown]
    what = "red, green and blue" if shown.shape[1] == 3 else "their one channel" if weights.shape[1] == 1 else "mean"
    note = f"{what}; gray: 0, white: {top:.2g}, black: -{top:.2g}"
    if len(weights) > limit:
        note += f"; the first {limit} of {len(weights)}"
    return draw_grid(tiles, title, columns=min(16, max(6, int(len(tiles) ** 0.5 * 1.5))), side=70, gap=6, note=note)
