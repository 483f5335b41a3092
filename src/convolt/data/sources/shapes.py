"""Generated scenes of simple shapes with exact masks: nothing to download, any size, any number of classes."""

import colorsys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import Contents, fingerprint, open_split
from convolt.errors import UserError

Floats = NDArray[np.float64]
Field = Callable[[Floats, Floats], Floats]

KINDS: dict[str, Field] = {
    "disk": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) - 0.85,
    "triangle": lambda x, y: np.maximum(np.maximum(0.866 * x + 0.5 * y, -0.866 * x + 0.5 * y), -y) - 0.6,
    "cross": lambda x, y: np.minimum(np.maximum(abs(x) - 1, abs(y) - 0.3), np.maximum(abs(x) - 0.3, abs(y) - 1)),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.75) - 0.25,
    "bar": lambda x, y: np.maximum(abs(x) - 1, abs(y) - 0.3),
    "half_disk": lambda x, y: np.maximum(np.hypot(x, y) - 1, y - 0.1),
    "corner": lambda x, y: np.maximum(np.maximum(abs(x), abs(y)) - 0.85, np.minimum(x, y) + 0.2),
}
"""Shapes by functions of the place in units of their size: negative inside, zero at the outline."""


@dataclass(eq=False)
class Shapes:
    """Scenes of one to four shapes of random place, size, direction and color on a plain gray background, with noise.

    Later shapes hide earlier ones. A pixel's label is that of the shape that its middle lies in, and its color that
    shape's, so masks are exact. Class 0 is the background; class k has the kind (k - 1) mod 8 and colors of a part of
    the color wheel of its own.

    Attributes:
        image_size: Height and width in pixels.
        num_classes: Classes, the background included: 2 to 255.
        train_images: Number of training images.
        test_images: Number of test images.
        thin: Outlines of `thickness` pixels instead of filled shapes.
        thickness: Of outlines, in pixels.
        noise: Standard deviation of the noise, as a fraction of white.
        seed: Decides, with the rest, all scenes.
    """

    _: KW_ONLY
    image_size: int = 64
    num_classes: int = 5
    train_images: int = 1000
    test_images: int = 200
    thin: bool = False
    thickness: float = 5.0
    noise: float = 0.1
    seed: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""
        return {"train": self.train_images, "test": self.test_images}

    def _check(self) -> None:
        for key, low, high in (
            ("num_classes", 2, 255),
            ("image_size", 8, 4096),
            ("train_images", 2, 10**7),
            ("test_images", 1, 10**7),
            ("thickness", 1, self.image_size),
            ("noise", 0, 1),
        ):
            value = getattr(self, key)
            if not low <= value <= high:
                raise UserError(f"data.{key}={value} must be from {low} to {high}")

    @property
    def name(self) -> str:
        """A slug of the size and the classes; all options are part of it."""
        self._check()
        options = (self.counts, self.thin and self.thickness, self.noise, self.seed)
        kind = "thin_shapes" if self.thin else "shapes"
        return f"{kind}_{self.image_size}x{self.num_classes}_{fingerprint(*options)}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; beyond eight shapes those of one kind are numbered."""
        kinds = list(KINDS)
        numbered = self.num_classes - 1 > len(kinds)
        places = (divmod(place, len(kinds)) for place in range(self.num_classes - 1))
        return ("background", *(f"{kinds[kind]}_{turn + 1}" if numbered else kinds[kind] for turn, kind in places))

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Draw the scenes (see `Source`)."""
        size = self.image_size
        for number, (split, count) in enumerate(self.counts.items()):
            with open_split(folder, split, (size, size, 3), masks=True) as (images, masks):
                for index in range(count):
                    image, mask = self.scene(np.random.default_rng([self.seed, number, index]))
                    images.append(image[None])
                    masks.append(mask[None])
        return Contents(self.classes, "generated scenes of shapes")

    def scene(self, random: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw one scene.

        Returns:
            The image (S, S, 3) and its mask (S, S).
        """
        size = self.image_size
        mask = np.zeros((size, size), np.uint8)
        image = np.full((size, size, 3), random.uniform(0.1, 0.9))
        for _ in range(int(random.integers(1, 5))):
            label = int(random.integers(1, self.num_classes))
            inside = self._inside(label, random)
            mask[inside] = label
            image[inside] = self._color(label, random)
        image += random.normal(0, self.noise, image.shape)
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask

    def _inside(self, label: int, random: np.random.Generator) -> NDArray[np.bool_]:
        """Draw place, size and direction of a shape, and return (S, S): which pixels are its."""
        size = self.image_size
        radius = random.uniform(0.16, 0.32) * size
        middle = random.uniform(0.15, 0.85, 2) * size
        turn = random.uniform(0, 2 * np.pi)
        down, right = np.mgrid[:size, :size] + 0.5 - middle[:, None, None]
        x = (np.cos(turn) * right + np.sin(turn) * down) / radius
        y = (np.cos(turn) * down - np.sin(turn) * right) / radius
        field = list(KINDS.values())[(label - 1) % len(KINDS)](x, y)
        inside: NDArray[np.bool_] = abs(field) * radius < self.thickness / 2 if self.thin else field < 0
        return inside

    def _color(self, label: int, random: np.random.Generator) -> Floats:
        """Draw a shape's color, of its class's part of the color wheel."""
        hue = (label - 1 + random.uniform(0.1, 0.9)) / (self.num_classes - 1)
        return np.array(colorsys.hsv_to_rgb(hue, random.uniform(0.5, 1), random.uniform(0.5, 1)))
