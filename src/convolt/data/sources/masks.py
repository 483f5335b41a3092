"""The user's own images with masks of labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import IGNORED, Contents
from convolt.data.sources.decoding import open_upright, read_mask
from convolt.data.sources.discovery import find_files, find_folders, read_file
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.parallel_reading import write_split
from convolt.data.sources.squares import RESIZE, Bytes, fit_pair_to_square
from convolt.data.sources.user_folder import UserFolder, check_image_size, explain_unreadable, folders_by_split
from convolt.errors import UserError, printable, some

Pair = tuple[Path, Path]


@dataclass(eq=False)
class Masks(UserFolder):
    """Images and masks below a folder: `ROOT/{images,masks}/*`, or `ROOT/{train,val,test}/{images,masks}/*`.

    An image and its mask have the same name but for the ending. A mask is a PNG (or another format without loss) of
    labels: gray or a palette, or colors of VOC; 255 is ignored. Without `test`, a part of the training images is held
    out as test images, always the same.

    Attributes:
        path: The folder.
        class_names: Names of the labels 0, 1, ...; None: the lines of `ROOT/classes.txt`, or the numbers themselves.
        image_size: Height and width of the prepared images in pixels.
        channels: 3 for color, 1 for grayscale.
        resize: stretch, crop or pad (see `squares.fit_to_square`).
        test_fraction: The part that becomes test images where there is no `test` folder.
        white: The value of white in gray images of 16 bits; None: 65535. A file with a larger value cannot be read.
    """

    RESIZE: ClassVar[tuple[str, ...]] = RESIZE
    PATH_NEEDED: ClassVar[str] = "data=masks needs a folder: data.path=FOLDER, with images/ and masks/ in it"

    _: KW_ONLY
    class_names: Sequence[str] | None = None
    image_size: int | None = 128
    resize: str = "stretch"

    @cached_property
    def _found_files(self) -> tuple[dict[str, list[Pair]], tuple[str, ...]]:
        root = self.root
        with explain_unreadable():
            splits = folders_by_split(root, find_folders(root))
            pairs = {split: _find_pairs(folder) for split, folder in (splits or {"train": root}).items()}
        if "train" not in pairs:
            raise UserError(f"{root} has {' and '.join(pairs)}, but no train folder: add one, with images/ and masks/")
        notes = tuple(note for _, note in pairs.values() if note)
        return {split: found for split, (found, _) in pairs.items()}, notes

    def _strata(self, train: Sequence[Pair]) -> NDArray[np.int64]:
        if len(train) < 2:
            raise UserError(f"{self.root} has one image only: two are needed, one to train and one to test on")
        return np.zeros(len(train), np.int64)

    @cached_property
    def _given_names(self) -> tuple[str, ...] | None:
        """The names of the classes, where the user gives them."""
        file = self.root / "classes.txt"
        names = self.class_names
        if names is None and file.is_file():
            names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if names is None:
            return None
        if len(set(names)) < len(names) or len(names) < 2:
            raise UserError(f"the names of the classes must be two or more different ones, not {list(names)}")
        return tuple(map(str, names))

    @cached_property
    def name(self) -> str:
        """The name of the prepared dataset; whatever decides the arrays is part of it."""
        return self._name(check_image_size(self.image_size), self._given_names)

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Read, resize and write images and masks (see `Source`)."""
        root, size = self.root, check_image_size(self.image_size)

        def read(pair: Pair) -> tuple[Bytes, Bytes]:
            def paired(path: Path) -> tuple[Bytes, Bytes]:
                with open_upright(path, self.channels, white=self.white, notes=notes) as image:
                    return fit_pair_to_square(image, read_file(pair[1], read_mask), size, self.resize)

            return read_file(pair[0], paired)

        notes = ImageNotes()
        counts: Counter[int] = Counter()
        unreadable: list[tuple[Pair, str]] = []
        for split, pairs in self._splits.items():
            found, failed = write_split(folder, split, pairs, read, (size, size, self.channels))
            counts += found
            unreadable += failed
        if unreadable:
            (image, _), reason = unreadable[0]
            more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
            name = printable(image.relative_to(root))
            raise UserError(f"{name}{more} in {root} cannot be read with its mask: {printable(reason)}")
        lines = (*self._found_files[1], *notes.folder_lines(root, size, self.resize))
        return Contents(self._class_names(counts), f"the folder {root.resolve()}", notes=lines)

    def _class_names(self, counts: Counter[int]) -> tuple[str, ...]:
        """Return the names of the classes, given how many images have each label."""
        highest = max(counts.keys() - {IGNORED}, default=-1)
        if highest < 1 and counts[IGNORED]:
            others = "0 alone" if highest == 0 else "nothing else"
            raise UserError(
                f"the masks in {self.root} hold 255 and {others}, and 255 is ignored: "
                "give the pixels of an object its class number, such as 1"
            )
        names = self._given_names or tuple(map(str, range(max(highest, 1) + 1)))
        if len(names) <= highest:
            raise UserError(
                f"the masks in {self.root} hold labels up to {highest}, but there are {len(names)} class names"
            )
        return names


def _find_pairs(folder: Path) -> tuple[list[Pair], str]:
    """Return the images of a folder and their masks, sorted, and a note on masks without an image, if any."""
    files: dict[str, dict[str, Path]] = {}
    for kind in ("images", "masks"):
        below = folder / kind
        if not below.is_dir():
            raise UserError(f"{folder} has no folder {kind}/: put images into images/ and their masks into masks/")
        files[kind] = {}
        for path in find_files(below):
            name = path.relative_to(below).with_suffix("").as_posix()
            if files[kind].setdefault(name, path) != path:
                raise UserError(f"{below} has two files named {name}: names must differ before the ending")
    images, masks = files["images"], files["masks"]
    if not images:
        raise UserError(f"there are no images in {folder / 'images'}")
    for missing in sorted(images.keys() - masks.keys()):
        raise UserError(f"{printable(images[missing])} has no mask: {folder / 'masks' / missing}.png is missing")
    spare = [printable(masks[name].name) for name in masks if name not in images]
    note = f"masks without an image in {folder.name}/masks are left out ({len(spare):,}): {some(spare)}"
    return [(path, masks[name]) for name, path in images.items()], note if spare else ""
