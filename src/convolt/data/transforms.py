"""The transforms that augment images; `convolt.data.augment` defines their kinds and combines them."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convolt.data.augment import Draws, Erasure, ImageTransform, Mixing, PixelMove
from convolt.data.sources.base import IGNORED
from convolt.errors import UserError, did_you_mean

_FILLS = ("black", "edge", "reflect")
_LUMA = (0.299, 0.587, 0.114)
_TO_YIQ = np.array([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


class Flip(PixelMove):
    """Mirror images left to right, or upside down.

    Args:
        probability: Share of the images that it changes.
        direction: horizontal or vertical.
    """

    def __init__(self, probability: float = 0.5, direction: str = "horizontal") -> None:
        super().__init__(probability)
        if direction not in ("horizontal", "vertical"):
            raise UserError(f"a flip is horizontal or vertical, not '{direction}'")
        self.direction = direction

    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw `flipped`: (count,) bool."""
        return {"flipped": torch.from_numpy(self.chosen(random, count))}

    def move(self, rows: Tensor, columns: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Reverse the columns (or the rows) of the flipped images."""
        flipped = draws["flipped"][:, None]
        if self.direction == "horizontal":
            return rows, torch.where(flipped, columns.flip(1), columns)
        return torch.where(flipped, rows.flip(1), rows), columns


class Shift(PixelMove):
    """Shift images by whole pixels, at most a fraction of their height and width.

    Args:
        fraction: Largest shift, as a fraction of the side, in [0, 1].
        fill: What fills the uncovered border: black, edge (the outermost pixels repeated) or reflect.
        probability: Share of the images that it changes.
    """

    def __init__(self, fraction: float = 0.1, fill: str = "edge", probability: float = 1.0) -> None:
        super().__init__(probability)
        if fill not in _FILLS:
            raise UserError(f"a border is filled by {', '.join(_FILLS)}, not '{fill}'{did_you_mean(fill, _FILLS)}")
        if not 0 <= fraction <= 1:
            raise UserError(f"the largest shift is a fraction between 0 and 1 of the side, not {fraction}")
        self.fraction = fraction
        self.fill = fill

    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw `shift`: (count, 2) of the largest shift down and right, each in [-1, 1)."""
        shift = random.uniform(-1, 1, (count, 2)) * self.chosen(random, count)[:, None]
        return {"shift": torch.from_numpy(shift.astype(np.float32))}

    def pixels(self, side: int) -> int:
        """Return the largest shift in pixels of a side of that many pixels."""
        return round(self.fraction * side)

    def move(self, rows: Tensor, columns: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Take every row and column from some pixels further up and left."""
        down, right = draws["shift"].unbind(1)
        return self._shifted(rows, down), self._shifted(columns, right)

    def _shifted(self, sources: Tensor, amount: Tensor) -> Tensor:
        side, largest = sources.shape[1], self.pixels(sources.shape[1])
        # Whole pixels from -largest to largest, each as likely: [-1, 1) in 2 * largest + 1 equal parts.
        offset = torch.where(amount == 0, 0, ((amount + 1) / 2 * (2 * largest + 1)).floor().long() - largest)
        index = torch.arange(side, device=sources.device) - offset[:, None]
        if self.fill == "reflect":
            index = (side - 1) - ((side - 1) - index.abs()).abs()
        inside = index.clamp(0, side - 1)
        moved = sources.gather(1, inside)
        return moved.masked_fill_(inside != index, -1) if self.fill == "black" else moved


class Crop(Shift):
    """Pad images by some pixels on every side and crop them back to their size at a random place.

    This is a shift by at most `padding` pixels, and is done as one.

    Args:
        padding: Pixels on every side.
        fill: What the padding shows: black, edge or reflect.
        probability: Share of the images that it changes.
    """

    def __init__(self, padding: int = 4, fill: str = "black", probability: float = 1.0) -> None:
        super().__init__(0.0, fill, probability)
        if padding < 0:
            raise UserError(f"a crop's padding is 0 pixels or more, not {padding}")
        self.padding = padding

    def pixels(self, side: int) -> int:
        """Return the padding, at most one pixel less than the side."""
        return min(self.padding, side - 1)


class Affine(ImageTransform):
    """Rotate, move, scale and shear images about their middle, with bilinear interpolation and black borders.

    Args:
        degrees: Largest rotation, either way.
        translate: Largest move, as a fraction of the side.
        scale: Largest change of size: factors lie between 1 - scale and 1 + scale.
        shear: Largest horizontal shear in degrees.
        probability: Share of the images that it changes.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        _check_ranges(
            "an affine", degrees=(degrees, 180), translate=(translate, 1), scale=(scale, 0.99), shear=(shear, 89)
        )
        self.ranges = (degrees, translate, translate, scale, shear)

    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw `matrix`: (count, 2, 3), from output to input coordinates in [-1, 1]."""
        drawn = random.uniform(-1, 1, (count, 5)) * self.ranges * self.chosen(random, count)[:, None]
        angle, right, down, grow, shear = drawn.T
        angle, shear, size = np.deg2rad(angle), np.tan(np.deg2rad(shear)), 1 / (1 + grow)
        cosine, sine = np.cos(angle) * size, np.sin(angle) * size
        # The inverse of rotation times shear times size, then the move (2 is the side in these coordinates).
        linear = np.stack([cosine - shear * -sine, sine - shear * cosine, -sine, cosine], 1).reshape(count, 2, 2)
        move = -np.einsum("nij,nj->ni", linear, 2 * np.stack([right, down], 1))
        return {"matrix": torch.from_numpy(np.concatenate([linear, move[:, :, None]], 2).astype(np.float32))}

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Sample the images at the transformed places."""
        grid = F.affine_grid(draws["matrix"], list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def on_masks(self, masks: Tensor, draws: Draws) -> Tensor:
        """Take each label from the nearest place; beyond the border it is ignored."""
        grid = F.affine_grid(draws["matrix"], [len(masks), 1, *masks.shape[1:]], align_corners=False)
        from_ignored = (masks.int() - IGNORED)[:, None].float()  # zeros beyond the border then are ignored pixels
        moved = F.grid_sample(from_ignored, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return (moved[:, 0] + IGNORED).to(masks.dtype)


class ColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue, in this order; gray images have neither of the last two.

    Args:
        brightness: Largest change: factors lie between 1 - brightness and 1 + brightness.
        contrast: Likewise, about the image's mean gray.
        saturation: Likewise, about each pixel's gray.
        hue: Largest turn of the color wheel, in turns, at most 0.5.
        probability: Share of the images that it changes.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        _check_ranges(
            "a color", brightness=(brightness, 1), contrast=(contrast, 1), saturation=(saturation, 1), hue=(hue, 0.5)
        )
        self.ranges = (brightness, contrast, saturation, hue)

    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw `factors`: (count, 3) of brightness, contrast, saturation, and `hue`: (count, 3, 3), RGB to RGB."""
        drawn = random.uniform(-1, 1, (count, 4)) * self.ranges * self.chosen(random, count)[:, None]
        factors = (1 + drawn[:, :3]).astype(np.float32)
        hue = _hue_matrices(2 * np.pi * drawn[:, 3])
        return {"factors": torch.from_numpy(factors), "hue": torch.from_numpy(hue)}

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Blend towards black, the mean gray and the gray image; turn the hue in the YIQ space."""
        brightness, contrast, saturation = draws["factors"][:, :, None, None, None].unbind(1)
        images = (images * brightness).clamp(0, 1)
        gray = _gray(images)
        mean = gray.mean((2, 3), keepdim=True)
        images = (mean + (images - mean) * contrast).clamp(0, 1)
        if images.shape[1] != 3:
            return images
        gray = _gray(images)
        images = (gray + (images - gray) * saturation).clamp(0, 1)
        if self.ranges[3] == 0:
            return images
        return torch.einsum("nij,njhw->nihw", draws["hue"], images).clamp(0, 1)


class Cutout(Erasure):
    """Set a square of each image to the mean; near the border a part of it falls outside (DeVries and Taylor 2017).

    Args:
        fraction: Side of the square, as a fraction of the image's, in [0, 1].
        probability: Share of the images that it changes.
    """

    def __init__(self, fraction: float = 0.5, probability: float = 1.0) -> None:
        super().__init__(probability)
        if not 0 <= fraction <= 1:
            raise UserError(f"cutout's square is a fraction between 0 and 1 of the side, not {fraction}")
        self.fraction = fraction

    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw `center`: (count, 2), in fractions of the side, and `chosen`: (count,)."""
        center = random.random((count, 2)).astype(np.float32)
        return {"center": torch.from_numpy(center), "chosen": torch.from_numpy(self.chosen(random, count))}

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Erase the squares."""
        height, width = images.shape[2:]
        square = _rectangles(images, draws["center"], round(self.fraction * height), round(self.fraction * width))
        return images.masked_fill((square & draws["chosen"][:, None, None])[:, None], 0.0)


class Mixup(Mixing):
    """Blend every image with the next one, weighted by a draw from Beta(alpha, alpha) (Zhang and others 2018).

    Args:
        alpha: Both parameters of the Beta distribution, above 0.
        probability: Share of the images that it changes.
    """

    def __init__(self, alpha: float = 0.2, probability: float = 1.0) -> None:
        super().__init__(probability)
        if alpha <= 0:
            raise UserError(f"the alpha of mixup and cutmix is above 0, not {alpha}")
        self.alpha = alpha

    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw `weight`: (count,) of each image itself, in [0, 1]."""
        weight = np.where(self.chosen(random, count), random.beta(self.alpha, self.alpha, count), 1.0)
        return {"weight": torch.from_numpy(weight.astype(np.float32))}

    def __call__(self, images: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Blend images and targets by the same weights."""
        weight = draws["weight"]
        mixed = torch.lerp(images.roll(1, 0), images, weight[:, None, None, None])
        return mixed, torch.lerp(targets.roll(1, 0), targets, weight[:, None])


class CutMix(Mixup):
    """Paste a rectangle of the next image into every image; targets are weighted by area (Yun and others 2019).

    Args:
        alpha: Both parameters of the Beta distribution of the area that is kept, above 0.
        probability: Share of the images that it changes.
    """

    def draw(self, random: np.random.Generator, count: int) -> Draws:
        """Draw `weight`: (count,), the share of the image that is kept, and `center`: (count, 2)."""
        draws = super().draw(random, count)
        return draws | {"center": torch.from_numpy(random.random((count, 2)).astype(np.float32))}

    def __call__(self, images: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Paste the rectangles; a part outside the image does not count."""
        height, width = images.shape[2:]
        side = (1 - draws["weight"]).sqrt()
        pasted = _rectangles(images, draws["center"], (side * height).round(), (side * width).round())
        kept = 1 - pasted.float().mean((1, 2))
        mixed = torch.where(pasted[:, None], images.roll(1, 0), images)
        return mixed, torch.lerp(targets.roll(1, 0), targets, kept[:, None])


def _check_ranges(kind: str, **values_and_limits: tuple[float, float]) -> None:
    for name, (value, limit) in values_and_limits.items():
        if not 0 <= value <= limit:
            raise UserError(f"{kind} augmentation's {name} is between 0 and {limit}, not {value}")


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def _hue_matrices(turn: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (N, 3, 3), which turn the hue of RGB by (N,) radians: to YIQ, a rotation of IQ, and back."""
    rotation = np.zeros((len(turn), 3, 3))
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = np.cos(turn)
    rotation[:, 2, 1] = np.sin(turn)
    rotation[:, 1, 2] = -rotation[:, 2, 1]
    turned: NDArray[np.float64] = np.linalg.inv(_TO_YIQ) @ rotation @ _TO_YIQ
    return turned.astype(np.float32)


def _rectangles(images: Tensor, center: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Return (B, H, W): which pixels lie in a rectangle of each image, around (B, 2) centers in fractions of a side."""
    rows, columns = (
        _within(place * side, length, side)
        for place, length, side in zip(center.unbind(1), (height, width), images.shape[2:], strict=True)
    )
    return rows[:, :, None] & columns[:, None, :]


def _within(center: Tensor, length: Tensor | int, side: int) -> Tensor:
    """Return (B, side): which of `side` pixels lie in a span of that length around (B,) centers."""
    places = torch.arange(side, device=center.device)
    start = (center - length / 2).round()[:, None]
    stop = start + (length[:, None] if isinstance(length, Tensor) else length)
    return (places >= start) & (places < stop)
