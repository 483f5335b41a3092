"""A trained network in use: on images of any kind, and on the images of a split."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from convolt.api.process_state import restore_process_state
from convolt.data.sources.image_notes import ImageNotes
from convolt.errors import UserError
from convolt.inference import evaluate as evaluation
from convolt.inference import predict as prediction
from convolt.system.files import expand_home
from convolt.system.installation import command_name

if TYPE_CHECKING:
    from convolt.inference.trained import TrainedRun

Pictures = Any
"""A file, a folder, a Pillow image or an array of bytes, or several of these."""


def predict(run: "TrainedRun", images: Pictures, *, probabilities: bool) -> pd.DataFrame:
    """Return the predicted class of each image; see `Run.predict`."""
    if run.kind.__name__ != "ClassificationTask":
        raise UserError(
            f"{run.folder}: the network labels pixels: {command_name('predict')} RUN_DIR IMAGE writes its masks"
        )
    notes, rows, shares = ImageNotes(), [], []
    classes = run.input_spec.classes
    with _as_files(_several(images)) as files, restore_process_state():
        for name, found in zip(files.values(), prediction.predict(run, list(files), notes), strict=True):
            row: dict[str, Any] = {"image": name, "predicted": None, "confidence": np.nan, "error": found.error}
            if found.probabilities is not None:
                place = int(found.probabilities.argmax())
                row |= {"predicted": classes[place], "confidence": float(found.probabilities[place])}
            rows.append(row)
            empty = np.full(len(classes), np.nan, np.float32)
            shares.append(empty if found.probabilities is None else found.probabilities)
    for line in notes.lines(white_can_be_set=False):
        print(f"note: {line}", file=sys.stderr)
    frame = pd.DataFrame(rows)
    return pd.concat([frame, pd.DataFrame(shares, columns=classes)], axis=1) if probabilities else frame


def evaluate(run: "TrainedRun", overrides: Sequence[str]) -> dict[str, float | None]:
    """Return the metrics of a split; see `Run.evaluate`."""
    with restore_process_state():
        found = evaluation.evaluate(run, overrides)
    return {f"{found.split}/{name}": value for name, value in found.metrics.items()}


def _several(images: Pictures) -> list[Any]:
    """Return images one by one."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if hasattr(images, "__array__"):
        array = np.asarray(images)
        single = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
        return [array] if single else [*array]
    if isinstance(images, Iterable):
        return [one for each in images for one in _several(each)]
    raise UserError(f"predict() takes files, folders, Pillow images and arrays of bytes, not {type(images).__name__}")


@contextmanager
def _as_files(images: Sequence[Any]) -> Iterator[dict[Path, str | int]]:
    """Give the file of each image, and what it is called: its path; its number where it was none and one was written.

    Raises:
        UserError: When there is no image, or no such file, or an array is not of bytes.
    """
    if not images:
        raise UserError("predict() was given no image")
    files: dict[Path, str | int] = {}
    with TemporaryDirectory(prefix="convolt-") as folder:
        for number, image in enumerate(images):
            if isinstance(image, str | os.PathLike):
                found, _ = prediction.find_files([Path(expand_home(os.fspath(image)))])
                files |= {file: str(file) for file in found}
            else:
                file = Path(folder, f"{number}.png")
                (image if isinstance(image, Image.Image) else _to_image(image)).save(file, compress_level=0)
                files[file] = number
        yield files


def _to_image(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise UserError(f"predict() takes bytes (H, W) or (H, W, C), uint8, not {array.dtype} {array.shape}")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        raise UserError(f"predict() takes images of 1, 3 or 4 channels, which are last, not {array.shape}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
