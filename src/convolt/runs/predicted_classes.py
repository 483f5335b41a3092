"""The predicted class of every test image of a run, read without PyTorch: all that comparisons of images need."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from convolt.runs.files import PREDICTIONS

PREDICTED_CLASSES = "predicted_classes.npz"
"""Predicted classes alone, of a run that came in a bundle, without its probabilities."""


@dataclass(frozen=True, eq=False)
class PredictedClasses:
    """What a run predicts for its N test images, in the order in which they are stored.

    Attributes:
        predicted: (N,), int32, the classes of the largest probability.
        targets: (N,), int32, the true classes.
        indices: (N,), int64, places of the images in the stored test array.
    """

    predicted: NDArray[np.int32]
    targets: NDArray[np.int32]
    indices: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            ValueError: They do not.
        """
        if self.predicted.ndim != 1 or not self.predicted.shape == self.targets.shape == self.indices.shape:
            raise ValueError("predicted classes, targets and indices are not of equal number")

    def shows_same_images(self, other: "PredictedClasses") -> bool:
        """Tell whether another run predicts the same images with the same true classes."""
        return np.array_equal(self.indices, other.indices) and np.array_equal(self.targets, other.targets)


def read_predicted_classes(run: Path) -> PredictedClasses | None:
    """Read what a run predicts for its test images.

    Args:
        run: The run's directory.

    Returns:
        The classes; None where the run has no predictions of whole images: it was not tested, or predicts masks.

    Raises:
        ValueError: The file is damaged.
    """
    for name in (PREDICTIONS, PREDICTED_CLASSES):
        path = run / name
        try:
            with np.load(path, allow_pickle=False) as stored:
                if "masks" in stored:
                    return None
                classes = stored["probabilities"].argmax(1) if name == PREDICTIONS else stored["predicted"]
                places = stored["indices"] if "indices" in stored else np.arange(len(classes))
                return PredictedClasses(
                    classes.astype(np.int32), stored["targets"].astype(np.int32), places.astype(np.int64)
                )
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
    return None


def read_probabilities(run: Path) -> NDArray[np.float32] | None:
    """Return (N, K), each class's probability for the test images of a run; None where it came in a bundle.

    Args:
        run: The directory of a run for which `read_predicted_classes` has returned something.
    """
    if not (path := run / PREDICTIONS).is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        probabilities: NDArray[np.float32] = stored["probabilities"]
    return probabilities


def pack_predicted_classes(found: PredictedClasses) -> bytes:
    """Return the content of a `predicted_classes.npz`, as `read_predicted_classes` reads it; equal for equal classes.

    Classes are bytes where there are at most 256; places are left out where they count from 0.
    """
    arrays = {"predicted": _shrink(found.predicted), "targets": _shrink(found.targets)}
    if not np.array_equal(found.indices, np.arange(len(found.indices))):
        arrays["indices"] = _shrink(found.indices)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    return packed.getvalue()


def _shrink(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers in the smallest type that holds them, unsigned where none is negative."""
    least, most = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    return numbers.astype(np.promote_types(np.min_scalar_type(least), np.min_scalar_type(most)))
