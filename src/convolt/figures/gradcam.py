"""Grad-CAM: where in an image a network finds the evidence for a class (Selvaraju and others 2017).

https://arxiv.org/abs/1610.02391. Written here, since libraries for it want networks wrapped and save no code.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from convolt.figures.grid import Pixels, draw_grid, to_color
from convolt.figures.style import Sheet


def grad_cam(network: nn.Module, images: Tensor, labels: Tensor, layer: str) -> NDArray[np.float32]:
    """Weigh a layer's maps by the mean gradient of a class's logit, add them up and keep what is positive.

    No parameter's gradient is touched, and the network keeps its modes.

    Args:
        network: The network, in evaluation.
        images: (B, C, H, W).
        labels: (B,), for each image the class whose evidence is mapped.
        layer: Dotted name of a module that puts out feature maps.

    Returns:
        (B, H, W), in [0, 1]: each image's map divided by its maximum; zeros where nothing speaks for the class.
    """
    outputs: list[Tensor] = []

    def record(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # what follows may write into it

    hook = network.get_submodule(layer).register_forward_hook(record)
    with hook, torch.inference_mode(False), torch.enable_grad():
        logits = network(images.clone().requires_grad_())
        scores = logits.gather(1, labels.clone()[:, None]).sum()
        (gradient,) = torch.autograd.grad(scores, outputs[-1])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    evidence = (weights * outputs[-1].detach()).sum(1, keepdim=True).relu().float()
    evidence = F.interpolate(evidence, list(images.shape[2:]), mode="bilinear", align_corners=False)[:, 0]
    evidence = evidence / evidence.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    return evidence.cpu().numpy()


def overlay_evidence(image: Pixels, evidence: NDArray[np.float32]) -> Pixels:
    """Lay a map (H, W) in [0, 1] in color over an image (H, W, C) in [0, 1], whose light and dark still show."""
    import matplotlib as mpl

    colored = np.asarray(mpl.colormaps["inferno"](evidence), np.float32)[..., :3]
    return np.asarray(0.35 * image.mean(axis=2, keepdims=True) + 0.65 * colored, np.float32)


def draw_grad_cam(
    images: Sequence[Pixels], maps: Sequence[Sequence[Any]], captions: Sequence[str], title: str
) -> Sheet:
    """Draw images beside the overlays of their maps.

    Args:
        images: (H, W, C) in [0, 1].
        maps: For each image one or two maps (H, W): for the predicted class and, where that is wrong, the true one.
        captions: One an image.
        title: Above them.
    """
    width = max(len(of_image) for of_image in maps) + 1
    tiles = []
    for image, of_image in zip(images, maps, strict=True):
        border = np.ones((image.shape[0], max(1, image.shape[0] // 32), 3), np.float32)
        overlays = [part for evidence in of_image for part in (border, overlay_evidence(image, evidence))]
        tiles.append(np.concatenate([to_color(image), *overlays], axis=1))
    columns = 4 if width == 2 else 3
    what = "for the predicted class" if width == 2 else "for the predicted, then for the true class"
    note = f"left: image; beside it: evidence {what}; dark: none, bright: most"
    return draw_grid(tiles, title, columns=columns, captions=captions, side=120, gap=12, note=note)
