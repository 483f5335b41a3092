"""What the sources that read a folder of the user's have in common: options, splits and the dataset's name."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import fingerprint, slug
from convolt.data.split import TEST_SEED, stratified_split
from convolt.errors import UserError, did_you_mean, printable
from convolt.system.files import expand_home

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split for which a folder stands, by its name in lower case."""


@dataclass(eq=False)
class UserFolder(ABC):
    """Image files below a folder.

    Attributes:
        path: The folder.
        image_size: Height and width of the prepared images in pixels.
        channels: 3 for color, 1 for grayscale.
        resize: One of `RESIZE`; see `squares.fit_to_square`.
        test_fraction: The part that becomes test images where there is no `test` folder.
        white: The value of white in gray files of 16 bits; None: 65535. A file with a larger value cannot be read.
    """

    RESIZE: ClassVar[tuple[str, ...]]
    PATH_NEEDED: ClassVar[str]
    """The message where no path is given."""

    path: str | Path | None
    _: KW_ONLY
    image_size: int | None
    channels: int = 3
    resize: str
    test_fraction: float = 0.2
    white: int | None = None

    @cached_property
    def root(self) -> Path:
        """The folder, once the options are checked.

        Raises:
            UserError: When there is no such folder, or an option has no valid value.
        """
        if self.path is None:
            raise UserError(self.PATH_NEEDED)
        root = Path(expand_home(str(self.path)))
        if not root.is_dir():
            siblings = [str(path) for path in root.parent.iterdir()] if root.parent.is_dir() else []
            found = "is a file, not a folder" if root.exists() else "does not exist"
            raise UserError(f"data.path={self.path} {found}{did_you_mean(str(root), siblings)}")
        check_choice("resize", self.resize, self.RESIZE)
        if self.channels not in (1, 3):
            raise UserError(f"data.channels={self.channels} is neither 1 (grayscale) nor 3 (color)")
        check_test_fraction(self.test_fraction)
        if self.white is not None and (type(self.white) is not int or self.white < 1):
            raise UserError(
                f"data.white={self.white} will not do: give the largest value of 16-bit files, a whole number such as "
                "4095"
            )
        return root

    @property
    @abstractmethod
    def _found_files(self) -> tuple[Mapping[str, list[Any]], tuple[str, ...]]:
        """By split, as the files lie in the folder, a tuple for each image, and notes on them."""

    @abstractmethod
    def _strata(self, train: Sequence[Any]) -> NDArray[np.int64]:
        """Return (N,) the classes that keep their shares when test images are held out of the training images."""

    @property
    def holds_out(self) -> bool:
        """Whether test images have to be held out of the others, since the folder has none."""
        return "test" not in self._found_files[0]

    @cached_property
    def _splits(self) -> dict[str, list[Any]]:
        """By split, with test images held out where there are none, a tuple for each image."""
        splits = dict(self._found_files[0])
        if self.holds_out:
            train = splits["train"]
            parts = stratified_split(self._strata(train), self.test_fraction, TEST_SEED)
            splits["train"], splits["test"] = ([train[index] for index in part] for part in parts)
        return splits

    def _name(self, size: int, *options: Any) -> str:
        """Return a slug of the folder, the size and whatever else decides the arrays: the list of files is part."""
        root = self.root.resolve()
        decisive = (self.resize, self.test_fraction, *options, *([] if self.white is None else [self.white]))
        digest = fingerprint(str(root), decisive, self._file_facts)
        return f"{slug(root.name)}_{size}x{self.channels}_{digest}"

    @cached_property
    def _file_facts(self) -> list[tuple[str, int, int]]:
        """Every file, sorted, with its size and time of change; of a dead link, those of the link."""
        parts = chain.from_iterable(chain.from_iterable(self._splits.values()))
        files = sorted(part for part in parts if isinstance(part, Path))
        with explain_unreadable():
            status = [(path, path.stat(follow_symlinks=os.access(path, os.F_OK))) for path in files]
        return [(path.relative_to(self.root).as_posix(), each.st_size, each.st_mtime_ns) for path, each in status]


def check_choice(key: str, value: str, allowed: Sequence[str]) -> None:
    """Check an option of a few possible values."""
    if value not in allowed:
        raise UserError(f"data.{key}={value} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}")


def check_image_size(image_size: int | None) -> int:
    """Check that `data.image_size` is given, and return it."""
    if image_size is None:
        raise UserError("data.image_size is the side to which images are brought: give a number of pixels")
    return image_size


def check_test_fraction(fraction: float) -> None:
    """Check `data.test_fraction`."""
    if not 0 < fraction < 1:
        raise UserError(f"data.test_fraction={fraction} must be above 0 and below 1")


@contextmanager
def explain_unreadable() -> Iterator[None]:
    """Name the folder or file that may not be read, or has vanished, in a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{printable(error.filename)} cannot be read: {error.strerror}") from error


def folders_by_split(root: Path, folders: Iterable[Path]) -> dict[str, Path]:
    """Return the folders whose names are those of splits, by split; each split has one at most."""
    splits: dict[str, Path] = {}
    for path in folders:
        split = SPLITS.get(path.name.lower())
        if split in splits:
            raise UserError(f"{root} has both {splits[split].name}/ and {path.name}/: keep one of them")
        if split is not None:
            splits[split] = path
    return splits
