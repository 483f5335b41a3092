"""The user's own images, in one folder a class."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import ArrayFile, Contents, fingerprint, slug, write_labels
from convolt.data.sources.decoding import check_white
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.images import read_each, read_image
from convolt.data.split import stratified_split
from convolt.errors import UserError, near
from convolt.progress import Progress

log = logging.getLogger(__name__)

TEST_SEED = 0
"""Decides which images of a folder without test images become them."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
RESIZE = ("crop", "stretch")
ON_ERROR = ("stop", "skip")

Files = dict[str, dict[str, list[Path]]]
"""The image files of every class (inner) of every split (outer)."""


class Folder:
    """Images below a folder: `ROOT/<class>/*`, or `ROOT/{train,val,test}/<class>/*`; also in folders below those.

    Without `test`, a stratified part of the (training) images is held out as test images, always the same. Hidden
    files are ignored. Images are turned as their EXIF data says, laid on white where they are transparent, brought
    to 8 bits, resized once (bilinearly, smoothed when made smaller) and cropped to a square.

    Args:
        path: The folder.
        image_size: Height and width of the prepared images in pixels.
        channels: 3 for colour, 1 for grayscale.
        resize: "crop" resizes the shorter side and keeps the centre, "stretch" resizes both sides.
        test_fraction: The part of every class that becomes test images where there is no `test` folder.
        on_error: Whether a file that cannot be read ends the preparation ("stop") or is left out ("skip").
        white: The value of white in grey files of 16 bits; None: 65535. A file with a larger value cannot be read.
    """

    def __init__(
        self,
        path: str | Path | None,
        *,
        image_size: int = 64,
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
        root = Path(self.path).expanduser()
        if not root.is_dir():
            siblings = [str(path) for path in root.parent.iterdir()] if root.parent.is_dir() else []
            found = "is a file, not a folder" if root.exists() else "does not exist"
            raise UserError(f"data.path={self.path} {found}{near(str(root), siblings)}")
        for key, value, allowed in (("resize", self.resize, RESIZE), ("on_error", self.on_error, ON_ERROR)):
            if value not in allowed:
                raise UserError(f"data.{key}={value} is not one of {', '.join(allowed)}{near(value, allowed)}")
        if self.channels not in (1, 3):
            raise UserError(f"data.channels={self.channels} is neither 1 (grayscale) nor 3 (colour)")
        if self.image_size < 1:
            raise UserError(f"data.image_size={self.image_size} must be at least 1 pixel")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"data.test_fraction={self.test_fraction} must be above 0 and below 1")
        check_white(self.white)
        return root

    @cached_property
    def _files(self) -> Files:
        """All image files, sorted, as they are to be split."""
        root = self._check()
        with _reading():
            files = find_images(root)
        if "test" not in files:
            files["train"], files["test"] = _hold_out(files["train"], self.test_fraction, root)
        return files

    @cached_property
    def name(self) -> str:
        """A slug of the folder, the size and what else decides the arrays: the list of files is part of it."""
        base = self._check()
        root = base.resolve()
        with _reading():
            status = {path.relative_to(base).as_posix(): path.stat() for path in sorted(_all(self._files))}
        facts = [(path, facts.st_size, facts.st_mtime_ns) for path, facts in status.items()]
        options = (self.resize, self.test_fraction, self.on_error, *([] if self.white is None else [self.white]))
        return f"{slug(root.name)}_{self.image_size}x{self.channels}_{fingerprint(str(root), options, facts)}"

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Read, resize and write the images (see `Source`)."""
        root = self._check()
        classes = tuple(self._files["train"])
        unreadable: list[str] = []
        counts: dict[str, NDArray[np.int64]] = {}
        notes = ImageNotes()
        total = sum(1 for _ in _all(self._files))
        with ExitStack() as stack:
            progress = stack.enter_context(Progress(f"Reading images of {root.name}", total))
            for split, by_class in self._files.items():
                labels: list[int] = []
                shape = (self.image_size, self.image_size, self.channels)
                with ArrayFile(folder / f"{split}_images.npy", shape) as file:
                    items = [(i, p) for i, c in enumerate(classes) for p in by_class[c]]
                    for label, path, image in self._read(items, notes):
                        if isinstance(image, str):
                            unreadable.append(f"{path.relative_to(root)}: {image}")
                        else:
                            file.append(image[None])
                            labels.append(label)
                        progress.advance()
                write_labels(folder / f"{split}_labels.npy", np.array(labels, dtype=np.int64))
                counts[split] = np.bincount(np.array(labels, dtype=np.int64), minlength=len(classes))
        unreadable.sort()
        if unreadable:
            said = f"{len(unreadable)} of {total} files in {root} cannot be read as images ({_some(unreadable, '; ')})"
            if self.on_error == "stop":
                raise UserError(f"{said}: remove them, or leave them out with data.on_error=skip")
            log.warning("%s: left out", said)
        for split, numbers in counts.items():
            if not numbers.all():
                empty = [name for name, number in zip(classes, numbers, strict=True) if not number]
                raise UserError(
                    f"no readable {split} image is left of {_some(empty)} in {root}: add images, or remove it"
                )
        told = notes.lines(lambda path: path.relative_to(root).as_posix())
        return Contents(classes, f"the folder {root.resolve()}", skipped=tuple(unreadable), notes=told)

    def _read(
        self, files: Sequence[tuple[int, Path]], notes: ImageNotes
    ) -> Iterator[tuple[int, Path, NDArray[np.uint8] | str]]:
        """Read images; what cannot be read is a reason."""

        def read(item: tuple[int, Path]) -> NDArray[np.uint8]:
            return read_image(item[1], self.image_size, self.channels, self.resize, white=self.white, notes=notes)

        for (label, path), image in read_each(files, read):
            yield label, path, image


def _all(files: Files) -> Iterator[Path]:
    """Go through all files."""
    return chain.from_iterable(chain.from_iterable(by_class.values()) for by_class in files.values())


def _some(names: Sequence[str], separator: str = ", ") -> str:
    """Name the first few of many."""
    more = f"{separator}and {len(names) - 5} more" if len(names) > 5 else ""
    return separator.join(names[:5]) + more


@contextmanager
def _reading() -> Iterator[None]:
    """Say in one line which folder or file may not be looked at, or has gone."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error


def _folders(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted by name, without hidden ones."""
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and path.name[0] != "." and path.name.lower() not in LITTER
    )


def _images(folder: Path) -> list[Path]:
    """List the files anywhere below a class's folder, sorted, without hidden ones."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if name[0] != "." and name.lower() not in LITTER]
        found += [Path(parent, name) for name in files if name[0] != "." and name.lower() not in LITTER]
    return sorted(found)


def _find_splits(root: Path) -> dict[str, Path]:
    """Find the folders of the splits; a folder of classes is the split "train" itself."""
    folders = _folders(root)
    splits: dict[str, Path] = {}
    for path in folders:
        split = SPLITS.get(path.name.lower())
        if split in splits:
            raise UserError(f"{root} has both {splits[split].name}/ and {path.name}/: keep one of them")
        if split:
            splits[split] = path
    if not splits:
        return {"train": root}
    names = " and ".join(path.name for path in splits.values())
    others = [path.name for path in folders if path not in splits.values()]
    if others:
        raise UserError(
            f"{root} has {_some(others)} beside {names}:"
            " make it one folder a class, or train, val and test only, with one folder a class in each"
        )
    if "train" not in splits:
        raise UserError(f"{root} has {names}, but no train folder: add one, with one folder a class in it")
    return splits


def find_images(root: Path) -> Files:
    """Find the files of every class of every split; a flat folder is one split, "train".

    Raises:
        UserError: Where there are no classes, classes without images, or splits that do not have the same classes.
    """
    splits = _find_splits(root)
    files: Files = {}
    for split in ("train", "val", "test"):
        if split in splits:
            files[split] = {path.name: _images(path) for path in _folders(splits[split])}
    for split, by_class in files.items():
        if len(by_class) < 2:
            found = f"only the class folder {next(iter(by_class))!r}" if by_class else "no class folders"
            raise UserError(
                f"{splits[split]} has {found}: put the images into one folder a class, two classes at least"
            )
        if by_class.keys() != files["train"].keys():
            missing = sorted(files["train"].keys() - by_class.keys())
            surplus = sorted(by_class.keys() - files["train"].keys())
            differences = [f"{splits[split].name} lacks {_some(missing)}"] if missing else []
            differences += [f"{splits['train'].name} lacks {_some(surplus)}"] if surplus else []
            raise UserError(f"the splits in {root} must have the same classes, but {' and '.join(differences)}")
        empty = [name for name, paths in by_class.items() if not paths]
        if empty:
            raise UserError(f"there are no images in {_some(empty)} of {splits[split]}: add some, or remove the folder")
    return files


def _hold_out(by_class: dict[str, list[Path]], fraction: float, root: Path) -> tuple[dict[str, list[Path]], ...]:
    """Divide training files into training and test files, class by class."""
    single = [name for name, paths in by_class.items() if len(paths) < 2]
    if single:
        raise UserError(
            f"{_some(single)} in {root} has one image only: two are needed, one to train and one to test on"
        )
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
