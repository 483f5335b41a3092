"""Scikit-learn's handwritten digits: nothing to download."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import Contents, open_split
from convolt.data.split import TEST_SEED, stratified_split

TEST_FRACTION = 0.2
"""Scikit-learn has no official test images: a fifth of every class, always the same, is held out."""


def enlarge(images: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """Enlarge square images by an odd factor, bilinearly, in whole numbers.

    Pixel centers are aligned as in every image library (half-pixel centers, edges repeated), and all is integer
    arithmetic, so that every machine makes the same bytes.

    Args:
        images: Images (N, S, S).
        factor: How much larger they become, an odd number.

    Returns:
        Images (N, S * factor, S * factor), whose values are factor squared times too large.
    """
    side = images.shape[1]
    offset = np.arange(side * factor) - factor // 2  # the position in the image, in units of 1 / factor
    left, weight = offset // factor, offset % factor
    rows = np.arange(side * factor)
    matrix = np.zeros((side * factor, side), dtype=np.int64)
    np.add.at(matrix, (rows, np.clip(left, 0, side - 1)), factor - weight)
    np.add.at(matrix, (rows, np.clip(left + 1, 0, side - 1)), weight)
    return np.asarray(matrix @ images @ matrix.T, dtype=np.int64)


class Digits:
    """1,797 digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998), enlarged to 24 x 24: 1 channel, 10 classes.

    Values 0 to 16 become 0 to 255. The loader pads the images to 32 x 32.
    """

    name = "digits"

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Write the digits; a stratified fifth of them are the test images (see `Source`)."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        enlarged = enlarge(digits.images.astype(np.int64), 3)
        images = ((enlarged * 255 + 72) // 144).astype(np.uint8)[..., None]  # 144 = 16 * 9, rounded to the nearest
        labels = digits.target.astype(np.int64)
        for split, indices in zip(("train", "test"), stratified_split(labels, TEST_FRACTION, TEST_SEED), strict=True):
            with open_split(folder, split, images.shape[1:]) as (image_file, label_file):
                image_file.append(images[indices])
                label_file.append(labels[indices])
        return Contents(
            tuple("0123456789"),
            "sklearn.datasets.load_digits, test images: a stratified fifth of each class",
            notes=("images of 8x8 pixels, enlarged to 24x24",),
        )
