"""The user's own images with masks of labels."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from convolt.data.sources.base import Contents, fingerprint, slug
from convolt.data.sources.decoding import check_white, upright
from convolt.data.sources.folder import SPLITS, TEST_SEED
from convolt.data.sources.image_files import find_files, find_folders, read_file
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.images import read_mask
from convolt.data.sources.pairs import Bytes, check_options, highest_label, square, write_pairs
from convolt.data.split import stratified_split
from convolt.errors import UserError, did_you_mean, printable, some
from convolt.system.files import expand_home

CLASSES = "classes.txt"
Pair = tuple[Path, Path]


class Masks:
    """Images and masks below a folder: `ROOT/{images,masks}/*`, or `ROOT/{train,val,test}/{images,masks}/*`.

    An image and its mask have the same name but for the ending. A mask is a PNG (or another format without loss) of
    labels: gray or a palette, or colors of VOC; 255 is ignored. Without `test`, a part of the training images is held
    out as test images, always the same.

    Args:
        path: The folder.
        class_names: Names of the labels 0, 1, ...; None: the lines of `ROOT/classes.txt`, or the numbers themselves.
        image_size: Height and width of the prepared images in pixels.
        channels: 3 for color, 1 for grayscale.
        resize: stretch, crop or pad (see `images.fitted`).
        test_fraction: The part that becomes test images where there is no `test` folder.
        white: The value of white in gray images of 16 bits; None: 65535. A file with a larger value cannot be read.
    """

    def __init__(
        self,
        path: str | Path | None,
        *,
        class_names: Sequence[str] | None = None,
        image_size: int | None = 128,
        channels: int = 3,
        resize: str = "stretch",
        test_fraction: float = 0.2,
        white: int | None = None,
    ) -> None:
        self.path = path
        self.class_names = class_names
        self.image_size = image_size
        self.channels = channels
        self.resize = resize
        self.test_fraction = test_fraction
        self.white = white

    def _check(self) -> tuple[Path, int]:
        """Check the options; return the folder and the image size."""
        if self.path is None:
            raise UserError("data=masks needs a folder: data.path=FOLDER, with images/ and masks/ in it")
        root = Path(expand_home(str(self.path)))
        if not root.is_dir():
            siblings = [str(path) for path in root.parent.iterdir()] if root.parent.is_dir() else []
            found = "is a file, not a folder" if root.exists() else "does not exist"
            raise UserError(f"data.path={self.path} {found}{did_you_mean(str(root), siblings)}")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"data.test_fraction={self.test_fraction} must be above 0 and below 1")
        check_white(self.white)
        return root, check_options(self.image_size, self.channels, self.resize)

    @cached_property
    def _found(self) -> tuple[dict[str, list[Pair]], list[str]]:
        """The files of every split, as they lie in the folder, and what is to be told of them."""
        root, _ = self._check()
        splits: dict[str, Path] = {}
        try:
            for path in [path for path in find_folders(root) if path.name.lower() in SPLITS]:
                split = SPLITS[path.name.lower()]
                if split in splits:
                    raise UserError(f"{root} has both {splits[split].name}/ and {path.name}/: keep one of them")
                splits[split] = path
            pairs = {split: _find_pairs(folder) for split, folder in (splits or {"train": root}).items()}
        except OSError as error:
            raise UserError(f"{printable(error.filename)} cannot be read: {error.strerror}") from error
        if "train" not in pairs:
            raise UserError(f"{root} has {' and '.join(pairs)}, but no train folder: add one, with images/ and masks/")
        return {split: found for split, (found, _) in pairs.items()}, [note for _, note in pairs.values() if note]

    @property
    def holds_out(self) -> bool:
        """Whether test images have to be held out of the others, since the folder has none."""
        return "test" not in self._found[0]

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        """The files of every split, as they are to be used."""
        root, _ = self._check()
        found = self._found[0].copy()
        if self.holds_out:
            pairs = found["train"]
            if len(pairs) < 2:
                raise UserError(f"{root} has one image only: two are needed, one to train and one to test on")
            parts = stratified_split(np.zeros(len(pairs), np.int64), self.test_fraction, TEST_SEED)
            found["train"], found["test"] = ([pairs[index] for index in part] for part in parts)
        return found

    @cached_property
    def _names(self) -> tuple[str, ...] | None:
        """The names of the classes, where the user gives them."""
        root, _ = self._check()
        file = root / CLASSES
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
        """A slug of the folder, the size and what else decides the arrays: the list of files is part of it."""
        root, size = self._check()
        facts = []
        for path in sorted(path for pairs in self._pairs.values() for pair in pairs for path in pair):
            status = path.stat() if path.exists() else path.lstat()
            facts.append((path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
        options = (self.resize, self.test_fraction, self._names, *([] if self.white is None else [self.white]))
        return f"{slug(root.resolve().name)}_{size}x{self.channels}_{fingerprint(str(root.resolve()), options, facts)}"

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Read, resize and write images and masks (see `Source`)."""
        root, size = self._check()

        def read(pair: Pair) -> tuple[Bytes, Bytes]:
            def paired(path: Path) -> tuple[Bytes, Bytes]:
                with upright(path, self.channels, white=self.white, notes=notes) as image:
                    return square(image, read_file(pair[1], read_mask), size, self.resize)

            return read_file(pair[0], paired)

        notes = ImageNotes()
        counts = np.zeros(256, np.int64)
        unreadable: list[tuple[Pair, str]] = []
        for split, pairs in self._pairs.items():
            found, failed = write_pairs(folder, split, pairs, read, (size, size, self.channels))
            counts += found
            unreadable += failed
        if unreadable:
            (image, _), reason = unreadable[0]
            more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
            name = printable(image.relative_to(root))
            raise UserError(f"{name}{more} in {root} cannot be read with its mask: {printable(reason)}")
        told = (*self._found[1], *notes.of_folder(root, size, self.resize))
        return Contents(self._classes(counts, root), f"the folder {root.resolve()}", notes=told)

    def _classes(self, counts: np.ndarray, root: Path) -> tuple[str, ...]:
        """Return the names of the classes, given how many images have each label."""
        highest = highest_label(counts)
        if highest < 1 and counts[255]:
            others = "0 alone" if highest == 0 else "nothing else"
            raise UserError(
                f"the masks in {root} hold 255 and {others}, and 255 is ignored: "
                "give the pixels of an object its class number, such as 1"
            )
        names = self._names or tuple(map(str, range(max(highest, 1) + 1)))
        if len(names) <= highest:
            raise UserError(f"the masks in {root} hold labels up to {highest}, but there are {len(names)} class names")
        return names


def _find_pairs(folder: Path) -> tuple[list[Pair], str]:
    """Find the images of a folder and their masks, sorted, and say which masks have no image, if any."""
    there: dict[str, dict[str, Path]] = {}
    for kind in ("images", "masks"):
        below = folder / kind
        if not below.is_dir():
            raise UserError(f"{folder} has no folder {kind}/: put images into images/ and their masks into masks/")
        there[kind] = {}
        for path in find_files(below):
            name = path.relative_to(below).with_suffix("").as_posix()
            if there[kind].setdefault(name, path) != path:
                raise UserError(f"{below} has two files named {name}: names must differ before the ending")
    images, masks = there["images"], there["masks"]
    if not images:
        raise UserError(f"there are no images in {folder / 'images'}")
    for missing in sorted(images.keys() - masks.keys()):
        raise UserError(f"{printable(images[missing])} has no mask: {folder / 'masks' / missing}.png is missing")
    spare = [printable(masks[name].name) for name in masks if name not in images]
    note = (
        f"masks without an image in {folder.name}/masks are left out ({len(spare):,}): {some(spare)}" if spare else ""
    )
    return [(path, masks[name]) for name, path in images.items()], note
