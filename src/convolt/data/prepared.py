"""A dataset that was prepared as arrays: opened by every run, and checked whenever it is."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from convolt.data.sources.base import CHUNK
from convolt.errors import UserError, some
from convolt.system.files import atomic_write, expand_home, sync_folder

log = logging.getLogger(__name__)

RECORD = "dataset.json"
REQUIRED = ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy")
TEST = ("test_images.npy", "test_labels.npy")
OPTIONAL = ("val_images.npy", "val_labels.npy")
MAX_CHANNELS = 4

Labels = NDArray[np.int64] | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PreparedDataset:
    """A dataset as arrays.

    Attributes:
        folder: Where the arrays lie.
        name: The dataset's name.
        classes: The class names; a label is an index into them.
        superclasses: Names of groups of classes with their classes; empty where there are none.
        mean: The mean of the training images, one a channel, in fractions of 255.
        std: The standard deviation of the training images likewise; 1.0 for a channel that never changes, so that
            dividing by it is safe.
        digest: One SHA-256 over the arrays' digests: the `dataset_hash` of a result.
        train_images: Images (N, H, W, C; uint8), memory-mapped (copy on write: the file never changes).
        train_labels: Labels (N; int64), in memory; or masks, a label a pixel (N, H, W; uint8; 255 is ignored), mapped.
        test_images: As `train_images`; None where they were not to be opened.
        test_labels: As `train_labels`; None likewise.
        val_images: Validation images of the dataset's own; None where it has none, which is usual.
        val_labels: Their labels, or None.
        count: Images of all splits, the test images too.
        skipped: The files that could not be read and were left out, with the reasons.
        notes: What was done to the images and belongs to every result, a line each.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    superclasses: Mapping[str, tuple[str, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    train_images: NDArray[np.uint8] = field(repr=False)
    train_labels: Labels = field(repr=False)
    test_images: NDArray[np.uint8] | None = field(repr=False)
    test_labels: Labels | None = field(repr=False)
    val_images: NDArray[np.uint8] | None = field(repr=False, default=None)
    val_labels: Labels | None = field(repr=False, default=None)
    count: int = 0
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a run on these images reports of them, a line each: which files were left out, and the notes."""
        if not self.skipped:
            return self.notes
        total = len(self.skipped) + self.count
        count = f"{len(self.skipped):,} of {total:,} files could not be read and were left out (data.on_error=skip)"
        return (f"{count}: {some(self.skipped, '; ')}", *self.notes)


def open_prepared(folder: Path | str, *, with_test: bool = True) -> PreparedDataset:
    """Open a prepared dataset, and check that its arrays are those that were prepared.

    Sizes and times are compared; a digest is computed again only where a time differs. A folder whose `dataset.json`
    holds no more than the name and the classes is adopted: digests, mean and deviation are computed, and kept there
    where the folder can be written.

    Args:
        folder: The folder of the arrays and `dataset.json`.
        with_test: Open the test images and labels too. Otherwise their sizes alone are compared, where they are there;
            only a folder without digests is read as a whole, once.

    Returns:
        The dataset, memory-mapped.

    Raises:
        UserError: Where something is missing, damaged or changed.
    """
    folder = Path(expand_home(str(folder)))
    try:
        return _open(folder, with_test)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from error


def open_test_images(folder: Path, digest: str) -> NDArray[np.uint8] | None:
    """Memory-map the test images of a prepared dataset, where it is the one of a result; nothing is written.

    The dataset's digest follows from `dataset.json`; of the arrays, the test images alone are compared with it.

    Args:
        folder: The folder of the arrays and `dataset.json`.
        digest: The `dataset_hash` of the result.

    Returns:
        Images (N, H, W, C; uint8); None where the folder is none, is another dataset, or its images were changed.
    """
    images = TEST[0]
    try:
        record = _read_record(folder)
        known = record.get("arrays", {})
        if not known or _join_digests(known, known) != digest:
            return None
        _verify(folder, record, [images], [])
        array = _memory_map(folder / images)
    except (UserError, OSError):
        return None
    return array if array.dtype == np.uint8 and array.ndim == 4 else None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `dataset.json`, atomically."""
    with atomic_write(folder / RECORD) as beside:
        beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sync_folder(folder)


def _measure(folder: Path, record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Complete a record by the digests of its arrays and the mean and deviation of its training images."""
    mean, std = mean_and_std(arrays["train_images.npy"])
    facts = {name: {**_file_facts(folder / name), "shape": list(array.shape)} for name, array in arrays.items()}
    return {**record, "mean": list(mean), "std": list(std), "arrays": facts}


def _file_facts(path: Path) -> dict[str, Any]:
    """Return a file's digest, size in bytes and time of change in nanoseconds."""
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def mean_and_std(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute the mean and standard deviation of every channel in fractions of 255.

    Args:
        images: Images (N, H, W, C; uint8), read in chunks.

    Returns:
        The means and the standard deviations, C each, from exact sums; a deviation of 0 is given as 1.
    """
    channels = images.shape[3]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), CHUNK):
        chunk = np.asarray(images[start : start + CHUNK])
        for channel in range(channels):
            histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    mean, std = [], []
    for counts in histogram.tolist():
        count, total, squares = (sum(value**power * times for value, times in enumerate(counts)) for power in (0, 1, 2))
        mean.append(total / count / 255)
        variance = (squares * count - total * total) / (count * count)  # of integers without a limit: exact
        std.append(variance**0.5 / 255 or 1.0)
    return tuple(mean), tuple(std)


def _memory_map(path: Path) -> NDArray[Any]:
    """Memory-map an array, copy on write; its file cannot hold pickled objects."""
    mend = f"delete the folder {path.parent} to prepare it again, or restore the file"
    if not path.is_file():
        raise UserError(f"{path.name} is missing from {path.parent}: {mend}")
    try:
        return npy.open_memmap(path, mode="c")
    except (ValueError, EOFError, TypeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is no whole .npy file ({reason}): {mend}") from error


def _read_record(folder: Path) -> dict[str, Any]:
    """Read `dataset.json` and check what the user or another program may have written."""
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder} is no prepared dataset: it has no {RECORD}")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _check_record(record)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "something is missing or of the wrong type"
        raise UserError(
            f"{path} is damaged ({reason}): restore it, or delete the folder to prepare it again"
        ) from error
    return record


def _check_record(record: Any) -> None:
    """Raise one of many exceptions where a record does not have the form that `_measure` gives it."""
    classes = record["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError('"classes" must be a list of names')
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError('"classes" must be two or more different names')
    if not all(set(members) <= set(classes) for members in record.get("superclasses", {}).values()):
        raise ValueError('"superclasses" must name classes')
    for key in ("skipped", "notes"):
        lines = record.get(key, [])
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise ValueError(f'"{key}" must be a list of lines')
    if "arrays" not in record:
        return  # to be measured
    for key in ("mean", "std"):
        if not all(isinstance(value, float) and 0 <= value <= 1 for value in record[key]):
            raise ValueError(f'"{key}" must be a list of fractions')
    for name in REQUIRED:
        record["arrays"][name]
    for name, facts in record["arrays"].items():
        length, *_ = facts["shape"]
        if not (isinstance(facts["sha256"], str) and isinstance(facts["bytes"] + facts["mtime_ns"] + length, int)):
            raise ValueError(f'"arrays" must have the digest, size, time and shape of {name}')


def _open(folder: Path, with_test: bool) -> PreparedDataset:
    """Open a folder; see `open_prepared`."""
    record = _read_record(folder)
    known = record.get("arrays", {})
    unopened = () if with_test or not known else TEST
    arrays = {name: _memory_map(folder / name) for name in REQUIRED if name not in unopened}
    arrays |= {name: _memory_map(folder / name) for name in OPTIONAL if (folder / name).exists() or name in known}
    _check_arrays(folder, arrays, len(record["classes"]))
    updated = _verify(folder, record, list(arrays), unopened) if known else _measure(folder, record, arrays)
    if not len(updated["mean"]) == len(updated["std"]) == arrays["train_images.npy"].shape[3]:
        raise UserError(
            f"{folder / RECORD} is damaged (mean and std must have one number a channel): delete the folder"
        )
    if updated != record:
        try:
            write_record(folder, updated)
        except OSError as error:
            log.debug("%s is kept in memory only: %s", RECORD, error)
    given: dict[str, Any] = dict.fromkeys(TEST)
    for name, array in arrays.items():
        if with_test or name not in TEST:
            given[name] = np.array(array) if array.ndim == 1 else array  # labels in memory
    return PreparedDataset(
        folder=folder,
        name=str(updated.get("name", folder.name)),
        classes=tuple(updated["classes"]),
        superclasses={name: tuple(members) for name, members in updated.get("superclasses", {}).items()},
        mean=tuple(updated["mean"]),
        std=tuple(updated["std"]),
        digest=_join_digests(updated["arrays"], {*arrays, *unopened}),
        count=sum(facts["shape"][0] for name, facts in updated["arrays"].items() if name.endswith("_images.npy")),
        skipped=tuple(updated.get("skipped", ())),
        notes=tuple(updated.get("notes", ())),
        **{name.removesuffix(".npy"): array for name, array in given.items()},
    )


def _join_digests(facts: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the digest of a dataset: that of its arrays' digests."""
    lines = "".join(f"{name} {facts[name]['sha256']}\n" for name in sorted(names))
    return hashlib.sha256(lines.encode()).hexdigest()


def _verify(folder: Path, record: Mapping[str, Any], names: Sequence[str], unopened: Sequence[str]) -> dict[str, Any]:
    """Compare the arrays with the record: their sizes, and their digests where their times differ.

    Args:
        folder: Of the arrays.
        record: The content of `dataset.json`.
        names: The arrays.
        unopened: Those of which the sizes alone are compared, where they are there.

    Returns:
        The record, with the times refreshed.
    """
    mend = f"delete the folder {folder} to prepare it again, or restore the file"
    arrays = dict(record["arrays"])
    for name in (*names, *(name for name in unopened if (folder / name).exists())):
        if name not in arrays:
            raise UserError(f"{folder / name} does not belong to this dataset ({RECORD} does not know it): remove it")
        facts, status = arrays[name], (folder / name).stat()
        if status.st_size != facts["bytes"]:
            raise UserError(
                f"{folder / name} has changed: {status.st_size} bytes, but {facts['bytes']} were prepared; {mend}"
            )
        if status.st_mtime_ns != facts["mtime_ns"] and name not in unopened:
            now = _file_facts(folder / name)
            if now["sha256"] != facts["sha256"]:
                raise UserError(f"{folder / name} has changed since it was prepared (its SHA-256 differs): {mend}")
            arrays[name] = {**facts, "mtime_ns": now["mtime_ns"]}
    return {**record, "arrays": arrays}


def _check_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]], num_classes: int) -> None:
    """Check types, shapes and labels of all arrays, as the contract of a prepared dataset has them."""
    mend = f"mend it, or delete the folder {folder}"
    row_shape, label_dtype = arrays["train_images.npy"].shape[1:], arrays["train_labels.npy"].dtype
    for split in ("train", "test", "val"):
        if f"{split}_images.npy" not in arrays and f"{split}_labels.npy" not in arrays:
            continue
        for kind in ("images", "labels"):
            if f"{split}_{kind}.npy" not in arrays:
                raise UserError(f"{folder} has {split} arrays, but no {split}_{kind}.npy: {mend}")
        images, labels = arrays[f"{split}_images.npy"], arrays[f"{split}_labels.npy"]
        if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[3] <= MAX_CHANNELS:
            found = f"{images.dtype} of shape {images.shape}"
            raise UserError(
                f"{folder / f'{split}_images.npy'} is {found}, but must be uint8 (N, H, W, C), C 1 to 4: {mend}"
            )
        if images.shape[1:] != row_shape:
            raise UserError(
                f"{folder}: {split} images are {images.shape[1:]}, but training images are {row_shape}: {mend}"
            )
        kinds = {"int64": (len(images),), "uint8": images.shape[:3]}
        path = folder / f"{split}_labels.npy"
        if labels.dtype != label_dtype or labels.shape != kinds.get(str(labels.dtype)) or not len(labels):
            found = f"{labels.dtype} of shape {labels.shape}"
            wanted = f"int64 ({len(images)},), one an image, or uint8 {images.shape[:3]}, one a pixel"
            raise UserError(f"{path} is {found}, but must be {wanted}, and of one kind in all splits: {mend}")
        low, high = _label_range(labels)
        if low < 0 or high >= num_classes:
            raise UserError(f"{path} holds labels {low} to {high}, but there are {num_classes} classes: {mend}")


def _label_range(labels: NDArray[Any]) -> tuple[int, int]:
    """Return the lowest and the highest label, those of masks without pixels that are ignored."""
    if labels.dtype != np.uint8:
        return int(labels.min()), int(labels.max())
    chunks = (labels[start : start + CHUNK] for start in range(0, len(labels), CHUNK))
    return 0, max(int((chunk + np.uint8(1)).max()) for chunk in chunks) - 1  # in bytes, 255 + 1 is 0
