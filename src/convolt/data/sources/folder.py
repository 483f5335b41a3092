"""The user's own images, in one folder a class."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from convolt.data.labels import normalize_name
from convolt.data.sources.base import Contents
from convolt.data.sources.discovery import (
    describe_linked_twice,
    find_files,
    find_folders,
    is_litter,
    native_size,
    read_file,
    readable_endings,
)
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.parallel_reading import write_split
from convolt.data.sources.squares import read_image
from convolt.data.sources.user_folder import SPLITS, UserFolder, check_choice, explain_unreadable, folders_by_split
from convolt.errors import UserError, printable, some

Files = dict[str, list[tuple[int, Path]]]
"""The label and the file of each image, by split; sorted."""


@dataclass(eq=False)
class Folder(UserFolder):
    """Images below a folder: `ROOT/<class>/*`, or `ROOT/{train,val,test}/<class>/*`; also in folders below those.

    Without `test`, a stratified part of the (training) images is held out as test images, always the same. Links are
    followed; hidden files and what systems leave beside images are ignored. Images are turned as their EXIF data says,
    laid on white where they are transparent, brought to 8 bits, resized once (bilinearly, smoothed when made smaller)
    and cropped to a square.

    Attributes:
        path: The folder.
        image_size: Height and width of the prepared images in pixels; None: their own where all of them are squares of
            one size of at most 64, else 64.
        channels: 3 for color, 1 for grayscale.
        resize: "crop" resizes the shorter side and keeps the center, "stretch" resizes both sides.
        test_fraction: The part of every class that becomes test images where there is no `test` folder.
        on_error: Whether a file that cannot be read ends the preparation ("stop") or is left out ("skip").
        white: The value of white in gray files of 16 bits; None: 65535. A file with a larger value cannot be read.
    """

    RESIZE: ClassVar[tuple[str, ...]] = ("crop", "stretch")
    PATH_NEEDED: ClassVar[str] = (
        "data=folder needs the folder of your images: data.path=FOLDER, with one folder a class in it"
    )

    _: KW_ONLY
    image_size: int | None = None
    resize: str = "crop"
    on_error: str = "stop"

    @cached_property
    def _images(self) -> tuple[tuple[str, ...], Files, tuple[str, ...]]:
        check_choice("on_error", self.on_error, ("stop", "skip"))
        with explain_unreadable():
            return find_images(self.root)

    @property
    def _found_files(self) -> tuple[Files, tuple[str, ...]]:
        return self._images[1:]

    def _strata(self, train: Sequence[tuple[int, Path]]) -> NDArray[np.int64]:
        labels = np.array([label for label, _ in train])
        single = [self._images[0][label] for label in np.flatnonzero(np.bincount(labels) < 2)]
        if single:
            raise UserError(
                f"{some(single)} in {self.root} has one image only: two are needed, one to train and one to test on"
            )
        return labels

    @cached_property
    def size(self) -> int:
        """Height and width of the prepared images in pixels."""
        if self.image_size is not None:
            if self.image_size < 1:
                raise UserError(f"data.image_size={self.image_size} must be at least 1 pixel")
            return self.image_size
        return _cached_native_size(self.root.resolve(), tuple(self._file_facts))

    @cached_property
    def name(self) -> str:
        """The name of the prepared dataset; whatever decides the arrays is part of it."""
        return self._name(self.size, self.on_error)

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Read, resize and write the images (see `Source`)."""
        root, (classes, _, found_notes) = self.root, self._images
        notes = ImageNotes()
        unreadable: list[str] = []
        empty: dict[str, list[str]] = {}

        def read_one(path: Path) -> NDArray[np.uint8]:
            return read_image(path, self.size, self.channels, self.resize, white=self.white, notes=notes)

        def read(item: tuple[int, Path]) -> tuple[NDArray[np.uint8], np.int64]:
            return read_file(item[1], read_one), np.int64(item[0])

        for split, images in self._splits.items():
            shape = (self.size, self.size, self.channels)
            counts, failed = write_split(folder, split, images, read, shape, masks=False)
            unreadable += [printable(f"{path.relative_to(root)}: {reason}") for (_, path), reason in failed]
            empty[split] = [name for label, name in enumerate(classes) if not counts[label]]
        unreadable.sort()
        if unreadable and self.on_error == "stop":
            total = sum(map(len, self._splits.values()))
            raise UserError(
                f"{len(unreadable)} of {total} files in {root} cannot be read as images ({some(unreadable, '; ')}): "
                "remove them, or leave them out with data.on_error=skip"
            )
        for split, names in empty.items():
            if names:
                raise UserError(
                    f"no readable {split} image is left of {some(names)} in {root}: add images, or remove it"
                )
        return Contents(
            classes,
            f"the folder {root.resolve()}",
            skipped=tuple(unreadable),
            notes=(*found_notes, *notes.folder_lines(root, self.size, self.resize)),
        )


@lru_cache(maxsize=1)  # the runs of a sweep ask one after another
def _cached_native_size(root: Path, facts: tuple[tuple[str, int, int], ...]) -> int:
    """Return `native_size` of the files below a folder; sizes and times of change reveal that they are others now."""
    return native_size(root / name for name, _, _ in facts)


def _find_splits(root: Path) -> dict[str, Path]:
    """Find the folders of the splits; a folder of classes is the split "train" itself."""
    folders = find_folders(root)
    named = [path for path in folders if path.name.lower() in SPLITS]
    others = [path.name for path in folders if path not in named]
    if not named or (others and all(map(_find_loose_images, named))):
        return {"train": root}  # of classes of which one may be called "train"
    splits = folders_by_split(root, named)
    names = " and ".join(path.name for path in named)
    if others:
        raise UserError(
            f"{root} has {some(map(printable, others))} beside {names}:"
            " make it one folder a class, or train, val and test only, with one folder a class in each"
        )
    if "train" not in splits:
        raise UserError(f"{root} has {names}, but no train folder: add one, with one folder a class in it")
    return splits


def find_images(root: Path) -> tuple[tuple[str, ...], Files, tuple[str, ...]]:
    """Find the files of every class of every split; a flat folder is one split, "train".

    Returns:
        The classes, the files, and notes on them.

    Raises:
        UserError: Where there are no classes, classes without images, or splits that do not have the same classes.
    """
    splits = dict(sorted(_find_splits(root).items(), key=lambda item: ("train", "val", "test").index(item[0])))
    found: dict[str, dict[str, dict[Path, str]]] = {}  # split, class, file, its real path
    for split, folder in splits.items():
        folders = _class_folders(folder)
        if len(folders) < 2 and split == "train":
            what = f"only the class folder {next(iter(folders))!r}" if folders else "no class folders"
            raise UserError(f"{folder} has {what}: put the images into one folder a class, two classes at least")
        found[split] = {name: find_files(path) for name, path in folders.items()}
        _check_classes(root, splits, split, found[split], found["train"])
    classes, flat = tuple(found["train"]), splits["train"] == root
    files = {
        split: [(label, path) for label, name in enumerate(classes) for path in by_class[name]]
        for split, by_class in found.items()
    }
    named = [name for name in classes if flat and name.lower() in SPLITS]
    notes = [f"{name} counts as a class, since images lie in {name}/ itself" for name in named]
    outside = [path for folder in {root, *splits.values()} for path in _find_loose_images(folder)]
    if outside:
        names = some(sorted(printable(path.relative_to(root)) for path in outside))
        notes.append(f"images in no class's folder are left out ({len(outside):,}): {names}")
    real_paths = (
        (printable(path.relative_to(root)), real)
        for by_class in found.values()
        for paths in by_class.values()
        for path, real in paths.items()
    )
    return classes, files, (*notes, *describe_linked_twice(real_paths))


def _find_loose_images(folder: Path) -> list[Path]:
    """List the images that lie beside the folders of classes or splits."""
    endings = readable_endings()
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in endings and not is_litter(path.name) and not path.is_dir()
    ]


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the folders of a split's classes by the names of the classes, sorted."""
    folders: dict[str, Path] = {}
    for path in find_folders(folder):
        name = normalize_name(printable(path.name))
        if name in folders:
            raise UserError(
                f"{folder} has two folders named {name!r}, whose names differ only in how they are encoded: keep one"
            )
        folders[name] = path
    return dict(sorted(folders.items()))


def _check_classes(
    root: Path, splits: Mapping[str, Path], split: str, here: Mapping[str, Collection[Path]], train: Collection[str]
) -> None:
    """Check that a split has images of all classes; an empty folder counts as none."""
    folder = splits[split]
    missing = [name for name in train if not here.get(name)]
    if split == "train":
        if missing:
            raise UserError(f"there are no images in {some(missing)} of {folder}: add some, or remove the folder")
        return
    surplus = [name for name in here if name not in train and here[name]]
    if surplus or missing:
        has = [f"{folder.name} has no images of {some(missing)}"] if missing else []
        has += [f"{splits['train'].name} has no images of {some(surplus)}"] if surplus else []
        purpose = {"val": "validates", "test": "is held out to test on"}[split]
        raise UserError(
            f"the splits in {root} must have the same classes, but {' and '.join(has)}: add images of them, or move "
            f"{folder.name}/ away (without it a part of the training images {purpose})"
        )
