"""PASCAL VOC 2012 with masks, and the further masks of SBD, through torchvision's downloads and checksums."""

import tarfile
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np

from convolt.data.sources.base import Contents
from convolt.data.sources.decoding import open_upright, read_mask
from convolt.data.sources.downloads import explain_damaged_archives, fetch, import_torchvision
from convolt.data.sources.image_notes import describe_resizing
from convolt.data.sources.parallel_reading import write_split
from convolt.data.sources.squares import RESIZE, Bytes, fit_pair_to_square
from convolt.data.sources.user_folder import check_choice, check_image_size

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class VOC2012:
    """PASCAL VOC 2012 (Everingham and others 2010): 1,464 training and 1,449 validation images with masks, 21 classes.

    The masks of VOC's own test images are not public: its validation images are the test images here, and a part of
    the training images validates. 255, the borders of objects, is ignored.

    Args:
        image_size: Height and width of the prepared images in pixels; VOC's have sides of at most 500.
        resize: stretch, crop or pad (see `squares.fit_to_square`).
        sbd: Train on the images of SBD too (Hariharan and others 2011) but for those of VOC's validation: 10,582.
    """

    def __init__(self, *, image_size: int | None = 256, resize: str = "stretch", sbd: bool = False) -> None:
        self.image_size = image_size
        self.resize = resize
        self.sbd = sbd

    @property
    def name(self) -> str:
        """The folder's name (see `Source`)."""
        check_choice("resize", self.resize, RESIZE)
        return f"voc2012{'_sbd' if self.sbd else ''}_{check_image_size(self.image_size)}_{self.resize}"

    def write(self, folder: Path, downloads: Path) -> Contents:
        """Download what is not there yet, and write it as arrays (see `Source`)."""
        datasets = import_torchvision().datasets
        facts = datasets.voc.DATASET_YEAR_DICT["2012"]
        archives = [(facts["filename"], facts["md5"], [facts["url"]])]
        if self.sbd:
            sbd = datasets.SBDataset
            archives.append((sbd.filename, sbd.md5, [sbd.url]))
        # Every size and kind of resizing is made from the same downloads.
        paths = fetch(archives, downloads.parent / "voc2012", "voc2012", "VOC2012")
        # Torchvision's own readers would extract all 17,125 images to the disk, for the 2,913 with masks.
        with (
            explain_damaged_archives(paths, "VOC2012"),
            tarfile.open(paths[0]) as voc,
            tempfile.TemporaryDirectory(dir=folder) as extracted,
        ):
            read = _file_reader(voc, facts["base_dir"])
            train, test = (read(f"ImageSets/Segmentation/{name}.txt").decode().split() for name in ("train", "val"))
            if self.sbd:
                train += _extract_sbd(paths[1], Path(extracted), {*train, *test})
            note = self._write(folder, {"train": train, "test": test}, read, Path(extracted))
        source = f"torchvision.datasets.VOCSegmentation{', SBDataset' if self.sbd else ''}"
        return Contents(CLASSES, source, notes=(note,) if note else ())

    def _write(
        self, folder: Path, splits: dict[str, list[str]], read_voc: Callable[[str], bytes], extracted: Path
    ) -> str:
        """Write the arrays; return how the images were resized."""
        size = check_image_size(self.image_size)
        sizes: list[tuple[int, int]] = []

        def read(name: str) -> tuple[Bytes, Bytes]:
            further = extracted / f"{name}.jpg"
            if further.exists():
                file, mask = further.read_bytes(), _sbd_mask(further.with_suffix(".mat"))
            else:
                file = read_voc(f"JPEGImages/{name}.jpg")
                mask = read_mask(BytesIO(read_voc(f"SegmentationClass/{name}.png")))
            with open_upright(BytesIO(file), 3) as image:
                sizes.append(image.size)
                return fit_pair_to_square(image, mask, size, self.resize)

        for split, names in splits.items():
            _, unreadable = write_split(folder, split, names, read, (size, size, 3))
            if unreadable:
                name, reason = unreadable[0]
                raise ValueError(f"{name}: {reason}")
        return describe_resizing(sizes, size, self.resize)


def _file_reader(archive: tarfile.TarFile, base: str) -> Callable[[str], bytes]:
    """Return what reads a file below the folder `base` of an archive, from several threads too."""
    lock = Lock()
    members = {member.name.removeprefix("./"): member for member in archive.getmembers()}

    def read(name: str) -> bytes:
        with lock:
            opened = archive.extractfile(members[f"{base}/{name}"])
            assert opened is not None, f"{name} is no file"
            return opened.read()

    return read


def _extract_sbd(path: Path, folder: Path, known: set[str]) -> list[str]:
    """Extract the images and masks of SBD that VOC does not list; return their names, sorted."""
    names = set()
    with tarfile.open(path) as archive:
        for member in archive:  # in the archive's order: its compression allows no other
            file = Path(member.name)
            if file.suffix not in (".jpg", ".mat") or file.parent.name not in ("img", "cls") or file.stem in known:
                continue
            opened = archive.extractfile(member)
            if opened is not None:
                (folder / file.name).write_bytes(opened.read())
                names.add(file.stem)
    return sorted(name for name in names if (folder / f"{name}.mat").exists() and (folder / f"{name}.jpg").exists())


def _sbd_mask(path: Path) -> Bytes:
    """Read the labels (H, W) of one of SBD's files."""
    from scipy.io import loadmat

    return np.asarray(loadmat(path)["GTcls"][0]["Segmentation"][0], np.uint8)
