"""The user's own images, in one folder a class."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import ArrayFile, Contents, fingerprint, slug, write_labels
from convolt.data.sources.decoding import check_white
from convolt.data.sources.image_files import (
    class_name,
    find_files,
    find_folders,
    is_litter,
    linked_twice,
    own_size,
    read_file,
    readable_endings,
)
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.images import read_each, read_image
from convolt.data.split import stratified_split
from convolt.errors import UserError, did_you_mean, printable, some
from convolt.system.files import expand_home
from convolt.system.progress import Progress

TEST_SEED = 0
"""Decides which images of a folder without test images become them."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ORDER = ("train", "val", "test")
RESIZE = ("crop", "stretch")
ON_ERROR = ("stop", "skip")

Files = dict[str, dict[str, list[Path]]]
"""The image files of every class (inner) of every split (outer)."""


class Folder:
    """Images below a folder: `ROOT/<class>/*`, or `ROOT/{train,val,test}/<class>/*`; also in folders below those.

    Without `test`, a stratified part of the (training) images is held out as test images, always the same. Links are
    followed; hidden files and what systems leave beside images are ignored. Images are turned as their EXIF data says,
    laid on white where they are transparent, brought to 8 bits, resized once (bilinearly, smoothed when made smaller)
    and cropped to a square.

    Args:
        path: The folder.
        image_size: Height and width of the prepared images in pixels; None: their own where all of them are squares of
            one size of at most 64, else 64.
        channels: 3 for color, 1 for grayscale.
        resize: "crop" resizes the shorter side and keeps the center, "stretch" resizes both sides.
        test_fraction: The part of every class that becomes test images where there is no `test` folder.
        on_error: Whether a file that cannot be read ends the preparation ("stop") or is left out ("skip").
        white: The value of white in gray files of 16 bits; None: 65535. A file with a larger value cannot be read.
    """

    def __init__(
        self,
        path: str | Path | None,
        *,
        image_size: int | None = None,
        channels: int = 3,
        resize: str = "crop",
        test_fraction: float = 0.2,
        on_error: str = "stop",
        white: int | None = None,
    ) -> None:
        self.path = path
        self.image_size = image_size
        self.channels = channels
        self.resize = resize
        self.test_fraction = test_fraction
        self.on_error = on_error
        self.white = white

    def _check(self) -> Path:
        """Check the options, and return the folder."""
        if self.path is None:
            raise UserError(
                "data=folder needs the folder of your images: data.path=FOLDER, with one folder a class in it"
            )
        root = Path(expand_home(str(self.path)))
        if not root.is_dir():
            siblings = [str(path) for path in root.parent.iterdir()] if root.parent.is_dir() else []
            found = "is a file, not a folder" if root.exists() else "does not exist"
            raise UserError(f"data.path={self.path} {found}{did_you_mean(str(root), siblings)}")
        for key, value, allowed in (("resize", self.resize, RESIZE), ("on_error", self.on_error, ON_ERROR)):
            if value not in allowed:
                raise UserError(f"data.{key}={value} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}")
        if self.channels not in (1, 3):
            raise UserError(f"data.channels={self.channels} is neither 1 (grayscale) nor 3 (color)")
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"data.image_size={self.image_size} must be at least 1 pixel")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"data.test_fraction={self.test_fraction} must be above 0 and below 1")
        check_white(self.white)
        return root

    @cached_property
    def _found(self) -> tuple[Files, tuple[str, ...]]:
        """All image files, sorted, as they lie in the folder, and what is to be told of them."""
        root = self._check()
        with _reading():
            return find_images(root)

    @property
    def holds_out(self) -> bool:
        """Whether test images have to be held out of the others, since the folder has none."""
        return "test" not in self._found[0]

    @cached_property
    def _files(self) -> Files:
        """All image files, sorted, as they are to be split."""
        files = self._found[0].copy()
        if self.holds_out:
            files["train"], files["test"] = _hold_out(files["train"], self.test_fraction, self._check())
        return files

    @cached_property
    def _facts(self) -> list[tuple[str, int, int]]:
        """Every file with its size and time of change."""
        base = self._check()
        with _reading():
            status = {path.relative_to(base).as_posix(): _status(path) for path in sorted(_all(self._files))}
        return [(path, facts.st_size, facts.st_mtime_ns) for path, facts in status.items()]

    @cached_property
    def size(self) -> int:
        """Height and width of the prepared images in pixels."""
        if self.image_size is not None:
            return self.image_size
        key = (str(self._check().resolve()), *self._facts)
        if _last_size.get("key") != key:  # the runs of a sweep ask one after another
            _last_size.update(key=key, size=own_size(_all(self._files)))
        return int(_last_size["size"])

    @cached_property
    def name(self) -> str:
        """A slug of the folder, the size and what else decides the arrays: the list of files is part of it."""
        root = self._check().resolve()
        options = (self.resize, self.test_fraction, self.on_error, *([] if self.white is None else [self.white]))
        return f"{slug(root.name)}_{self.size}x{self.channels}_{fingerprint(str(root), options, self._facts)}"

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Read, resize and write the images (see `Source`)."""
        root = self._check()
        classes = tuple(self._files["train"])
        unreadable: list[str] = []
        counts: dict[str, NDArray[np.int64]] = {}
        notes = ImageNotes()
        total = sum(1 for _ in _all(self._files))

        def read(item: tuple[int, Path]) -> NDArray[np.uint8]:
            return read_file(item[1], read_one)

        def read_one(path: Path) -> NDArray[np.uint8]:
            return read_image(path, self.size, self.channels, self.resize, white=self.white, notes=notes)

        with ExitStack() as stack:
            progress = stack.enter_context(Progress(f"Reading images of {root.name}", total))
            for split, by_class in self._files.items():
                labels: list[int] = []
                with ArrayFile(folder / f"{split}_images.npy", (self.size, self.size, self.channels)) as file:
                    items = [(label, path) for label, name in enumerate(classes) for path in by_class[name]]
                    for (label, path), image in read_each(items, read):
                        if isinstance(image, str):
                            unreadable.append(printable(f"{path.relative_to(root)}: {image}"))
                        else:
                            file.append(image[None])
                            labels.append(label)
                        progress.advance()
                write_labels(folder / f"{split}_labels.npy", np.array(labels, dtype=np.int64))
                counts[split] = np.bincount(np.array(labels, dtype=np.int64), minlength=len(classes))
        unreadable.sort()
        if unreadable and self.on_error == "stop":
            raise UserError(
                f"{len(unreadable)} of {total} files in {root} cannot be read as images ({some(unreadable, '; ')}): "
                "remove them, or leave them out with data.on_error=skip"
            )
        for split, numbers in counts.items():
            if not numbers.all():
                empty = [name for name, number in zip(classes, numbers, strict=True) if not number]
                raise UserError(
                    f"no readable {split} image is left of {some(empty)} in {root}: add images, or remove it"
                )
        return Contents(
            classes,
            f"the folder {root.resolve()}",
            skipped=tuple(unreadable),
            notes=(*self._found[1], *notes.of_folder(root, self.size, self.resize)),
        )


_last_size: dict[str, Any] = {}
"""The side of the images of the folder that was looked at last."""


def _all(files: Files) -> Iterator[Path]:
    """Go through all files."""
    return chain.from_iterable(chain.from_iterable(by_class.values()) for by_class in files.values())


def _status(path: Path) -> os.stat_result:
    """Return what the system knows of a file; of a dead link, what it knows of the link."""
    try:
        return path.stat()
    except OSError:
        return path.lstat()


@contextmanager
def _reading() -> Iterator[None]:
    """Say in one line which folder or file may not be looked at, or has gone."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{printable(error.filename)} cannot be read: {error.strerror}") from error


def _find_splits(root: Path) -> dict[str, Path]:
    """Find the folders of the splits; a folder of classes is the split "train" itself."""
    folders = find_folders(root)
    named = [path for path in folders if path.name.lower() in SPLITS]
    others = [path.name for path in folders if path not in named]
    if not named or (others and all(map(_loose_images, named))):
        return {"train": root}  # of classes of which one may be called "train"
    splits: dict[str, Path] = {}
    for path in named:
        split = SPLITS[path.name.lower()]
        if split in splits:
            raise UserError(f"{root} has both {splits[split].name}/ and {path.name}/: keep one of them")
        splits[split] = path
    names = " and ".join(path.name for path in named)
    if others:
        raise UserError(
            f"{root} has {some(map(printable, others))} beside {names}:"
            " make it one folder a class, or train, val and test only, with one folder a class in each"
        )
    if "train" not in splits:
        raise UserError(f"{root} has {names}, but no train folder: add one, with one folder a class in it")
    return splits


def find_images(root: Path) -> tuple[Files, tuple[str, ...]]:
    """Find the files of every class of every split; a flat folder is one split, "train".

    Returns:
        The files, and what is to be told of them.

    Raises:
        UserError: Where there are no classes, classes without images, or splits that do not have the same classes.
    """
    splits = dict(sorted(_find_splits(root).items(), key=lambda item: ORDER.index(item[0])))
    files: Files = {}
    told: list[tuple[str, str]] = []
    outside: list[Path] = []
    for split, folder in splits.items():
        outside += _loose_images(folder)
        folders = _class_folders(folder)
        if len(folders) < 2 and split == "train":
            what = f"only the class folder {next(iter(folders))!r}" if folders else "no class folders"
            raise UserError(f"{folder} has {what}: put the images into one folder a class, two classes at least")
        by_class = {name: find_files(path) for name, path in folders.items()}
        files[split] = {name: [*paths] for name, paths in by_class.items()}
        told += [(printable(p.relative_to(root)), real) for paths in by_class.values() for p, real in paths.items()]
    for split in files:
        _see_to_all_classes(root, splits, split, files)
    if splits["train"] != root:
        outside += _loose_images(root)
    notes = [
        f"{name} counts as a class, since images lie in {name}/ itself"
        for name in files["train"]
        if splits["train"] == root and name.lower() in SPLITS
    ]
    if outside:
        names = some(sorted(printable(path.relative_to(root)) for path in outside))
        notes.append(f"images in no class's folder are left out ({len(outside):,}): {names}")
    return files, (*notes, *linked_twice(told))


def _loose_images(folder: Path) -> list[Path]:
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
        name = class_name(path)
        if name in folders:
            raise UserError(
                f"{folder} has two folders named {name!r}, whose names differ only in how they are encoded: keep one"
            )
        folders[name] = path
    return dict(sorted(folders.items()))


def _see_to_all_classes(root: Path, splits: dict[str, Path], split: str, files: Files) -> None:
    """See that a split has images of all classes; an empty folder is as good as none."""
    here, folder = files[split], splits[split]
    empty = [name for name, paths in here.items() if not paths]
    if split == "train":
        if empty:
            raise UserError(f"there are no images in {some(empty)} of {folder}: add some, or remove the folder")
        return
    surplus = [name for name in here if name not in files["train"] and here[name]]
    missing = [name for name in files["train"] if not here.get(name)]
    if surplus or missing:
        has = [f"{folder.name} has no images of {some(missing)}"] if missing else []
        has += [f"{splits['train'].name} has no images of {some(surplus)}"] if surplus else []
        instead = {
            "val": "without it a part of the training images validates",
            "test": "without it a part of the training images is held out to test on",
        }[split]
        raise UserError(
            f"the splits in {root} must have the same classes, but {' and '.join(has)}: add images of them, or move "
            f"{folder.name}/ away ({instead})"
        )
    for name in [name for name in here if name not in files["train"]]:
        del here[name]  # an empty folder


def _hold_out(by_class: dict[str, list[Path]], fraction: float, root: Path) -> tuple[dict[str, list[Path]], ...]:
    """Divide training files into training and test files, class by class."""
    single = [name for name, paths in by_class.items() if len(paths) < 2]
    if single:
        raise UserError(f"{some(single)} in {root} has one image only: two are needed, one to train and one to test on")
    labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class.values()])
    paths = list(chain.from_iterable(by_class.values()))
    names = list(by_class)
    parts = []
    for indices in stratified_split(labels, fraction, TEST_SEED):
        part: dict[str, list[Path]] = {name: [] for name in names}
        for index in indices:
            part[names[labels[index]]].append(paths[index])
        parts.append(part)
    return tuple(parts)
