"""The user's own arrays: a .npz file, or a folder of .npy files."""

import zipfile
from collections import UserDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import CHUNK, Contents, fingerprint, open_split, slug
from convolt.data.sources.user_folder import check_test_fraction
from convolt.data.split import TEST_SEED, stratified_split
from convolt.errors import UserError, some
from convolt.system.files import expand_home

MAX_CLASSES = 1_000_000

FAMILIES = (
    {split: (f"x_{split}", f"y_{split}") for split in ("train", "val", "test")},  # Keras
    {split: (f"{split}_images", f"{split}_labels") for split in ("train", "val", "test")},  # ours
)


@dataclass(eq=False)
class Arrays:
    """Images and labels in NumPy's formats: `x_train`, `y_train`, `x_test`, `y_test` or `train_images`, ...

    Images are (N, H, W) or (N, H, W, C) with H = W and at most 4 channels: bytes, or fractions from 0 to 1. Labels
    are (N), (N, 1) or one-hot (N, K). `x_val`, `y_val` and `classes` (the names) may be there. Without test arrays,
    a stratified part of the training images is held out, always the same. Pickled objects are refused.

    Attributes:
        path: The .npz file or the folder of .npy files.
        test_fraction: The part of every class that becomes test images where there are no test arrays.
    """

    path: str | Path | None
    test_fraction: float = 0.2

    def _check(self) -> Path:
        """Check the options, and return the path."""
        if self.path is None:
            raise UserError(
                "data=arrays needs your arrays: data.path=FILE.npz, or a folder with x_train.npy, y_train.npy"
            )
        path = Path(expand_home(str(self.path)))
        if not path.exists():
            raise UserError(f"data.path={self.path} does not exist: give a .npz file or a folder of .npy files")
        check_test_fraction(self.test_fraction)
        return path

    @cached_property
    def name(self) -> str:
        """A slug of the file's name and what decides the arrays (see `Source`)."""
        path = self._check()
        files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
        facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return f"{slug(path.resolve().stem)}_{fingerprint(str(path.resolve()), self.test_fraction, facts)}"

    @property
    def holds_out(self) -> bool:
        """Whether test images have to be held out of the others, since there are no test arrays."""
        with _open_arrays(self._check()) as arrays:
            return not any(family["test"][0] in arrays for family in FAMILIES)

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Check and write the arrays (see `Source`)."""
        path = self._check()
        with _open_arrays(path) as arrays:
            family = next((family for family in FAMILIES if set(family["train"]) <= arrays.keys()), None)
            if family is None:
                found = ", ".join(sorted(arrays)) or "nothing"
                raise UserError(
                    f"{path} must hold x_train and y_train (or train_images and train_labels); it holds {found}"
                )
            labels: dict[str, NDArray[np.int64]] = {}
            for split, (x, y) in family.items():
                if (x in arrays) != (y in arrays):
                    raise UserError(f"{path} has {x if x in arrays else y}, but no {y if x in arrays else x}: add it")
                if y in arrays:
                    labels[split] = _class_labels(arrays[y], y)
            classes = _class_names(arrays, labels)
            shape: tuple[int, ...] | None = None
            for split, of_split in labels.items():
                x = family[split][0]
                images = arrays[x]  # of a .npz file read as a whole, of a .npy file mapped
                before, shape = shape, _check_images(images, x, len(of_split))
                if before not in (None, shape):
                    raise UserError(f"{x} has images of shape {shape}, but x_train of {before}: make them the same")
                parts = {split: np.arange(len(of_split), dtype=np.int64)}
                if split == "train" and "test" not in labels:
                    kept, held_out = stratified_split(of_split, self.test_fraction, TEST_SEED)
                    parts = {"train": kept, "test": held_out}
                for part, indices in parts.items():
                    with open_split(folder, part, shape) as (image_file, label_file):
                        for start in range(0, len(indices), CHUNK):
                            image_file.append(_to_bytes(images[indices[start : start + CHUNK]], x).reshape(-1, *shape))
                        label_file.append(of_split[indices])
                del images
        return Contents(classes, f"the arrays {path.resolve()}")


class _MappedFiles(UserDict[str, Any]):
    """The arrays of files, each mapped when it is requested."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.data[name], mmap_mode="r", allow_pickle=False)
        return array


@contextmanager
def _open_arrays(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Open a .npz file or a folder; damaged and pickled arrays are a `UserError`."""
    try:
        if path.is_dir():
            yield _MappedFiles({file.stem: file for file in sorted(path.glob("*.npy"))})
            return
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise UserError(
                    f"{path} is no .npz file: save it with numpy.savez_compressed, or give a folder of .npy files"
                )
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason or "Python objects" in reason:
            reason = (
                "it holds Python objects, which are not loaded: save plain numbers (for images of one size) and texts"
            )
        raise UserError(f"{path} cannot be read: {reason}") from error


def _class_labels(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Bring labels (N), (N, 1) or one-hot (N, K) to (N)."""
    what = f"{name} is {array.dtype} of shape {array.shape}"
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "biuf":
        one_hot = np.asarray(array)
        if not (((one_hot == 0) | (one_hot == 1)).all() and (one_hot.sum(axis=1) == 1).all()):
            raise UserError(f"{what}, but its rows are not one-hot (a single 1, else 0): give class numbers instead")
        return np.asarray(one_hot.argmax(axis=1), dtype=np.int64)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "biu" or not len(array):
        raise UserError(f"{what}, but must be integers (N), (N, 1) or one-hot (N, K): numbers of classes from 0")
    labels = np.asarray(array)
    outermost = labels.min() if labels.min() < 0 else labels.max()
    if not 0 <= outermost < MAX_CLASSES:
        raise UserError(f"{name} holds the label {outermost}, but classes are numbered 0, 1, 2, ...")
    return labels.astype(np.int64)


def _class_names(arrays: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[np.int64]]) -> tuple[str, ...]:
    """Read or make up the names of the classes, and check that each has training images."""
    highest = max(int(of_split.max()) for of_split in labels.values())
    names = tuple(map(str, range(highest + 1)))
    if "classes" in arrays:
        given = np.asarray(arrays["classes"])
        if given.ndim != 1 or given.dtype.kind not in "SUiu":
            raise UserError(f"classes is {given.dtype} of shape {given.shape}, but must be texts (K)")
        names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in given.tolist())
        if len(names) <= highest:
            raise UserError(f"classes has {len(names)} names, but labels go up to {highest}: name every class")
        if len(set(names)) < len(names):
            raise UserError("classes names a class twice: names must differ")
    counts = np.bincount(labels["train"], minlength=len(names))
    if not counts.all():
        unused = some(map(str, np.flatnonzero(counts == 0)))
        raise UserError(f"no training image has the label {unused}: labels must be 0 to {len(names) - 1}, each used")
    if len(names) < 2:
        raise UserError("all training labels are 0: at least two classes are needed")
    return names


def _check_images(images: NDArray[Any], name: str, count: int) -> tuple[int, int, int]:
    """Check an array of images by its type and shape; return the shape of one image, (H, W, C)."""
    what = f"{name} is {images.dtype} of shape {images.shape}"
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        mend = f"save {name}.astype('uint8') if it holds 0 to 255"
        raise UserError(f"{what}, but images must be uint8, or floats from 0 to 1: {mend}")
    if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
        raise UserError(f"{what}, with channels first: save {name}.transpose(0, 2, 3, 1), which is (N, H, W, C)")
    if images.ndim not in (3, 4) or (images.ndim == 4 and not 1 <= images.shape[3] <= 4) or 0 in images.shape:
        raise UserError(f"{what}, but images must be (N, H, W) or (N, H, W, C) with 1 to 4 channels")
    if images.shape[1] != images.shape[2]:
        side = max(images.shape[1:3])
        raise UserError(f"{what}, but images must be square: pad them, as to {side} x {side}, or crop them")
    if len(images) != count:
        raise UserError(f"{name} has {len(images)} images, but there are {count} labels: there must be one an image")
    return (images.shape[1], images.shape[2], 1 if images.ndim == 3 else images.shape[3])


def _to_bytes(images: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Bring fractions from 0 to 1 to bytes."""
    if images.dtype == np.uint8:
        return np.asarray(images)
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        mend = f"save {name} / 255, or as uint8" if high > 1 and low >= 0 else "scale them to 0 to 1"
        raise UserError(
            f"{name} is {images.dtype} with values from {low:g} to {high:g}, but floats must be 0 to 1: {mend}"
        )
    return np.rint(images.astype(np.float64) * 255).astype(np.uint8)
