"""Which files below a folder are images, and the checks of a file before Pillow opens it."""

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from convolt.data.sources.decoding import UnreadableError, decoder_errors, readable_formats
from convolt.data.sources.png import without_metadata
from convolt.errors import printable, some

LITTER = re.compile(
    r"\..*|@eadir|@tmp|@recycle|@recently-snapshot|@sharebin|#recycle|#snapshot|~snapshot|\$recycle\.bin"
    r"|system volume information|found\.\d{3}|lost\+found|__macosx|network trash folder|temporary items"
    r"|thevolumesettingsfolder|thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|picasa\.ini|zbthumbnail\.info|icon\r"
    r"|.*:zone\.identifier|.*@syno(eastream|resource)",
    re.IGNORECASE,
)
"""Names of hidden files, and of what Windows, macOS, Synology, QNAP, NetApp and disk checks leave beside images."""

RAW = {
    ".3fr", ".arw", ".cr2", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mef",
    ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".ptx", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf",
    ".srw", ".x3f",
}  # fmt: skip
"""Endings of raw photos. Many are TIFF files whose first picture, which Pillow would read, is a small preview."""

CONVERTIBLE = RAW | {
    ".avif", ".avifs", ".cr3", ".dcm", ".exr", ".hdp", ".hdr", ".heic", ".heics", ".heif", ".heifs", ".hif",
    ".jxl", ".jxr", ".kra", ".psb", ".svg", ".svgz", ".wdp", ".xcf",
}  # fmt: skip
"""Endings of pictures that Pillow alone cannot read."""

NO_PICTURES = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
"""Formats that Pillow knows by name and cannot read."""

SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}

MAX_NATIVE_SIZE = 64
"""Up to this side, images of one size keep it; others are resized to it."""

R = TypeVar("R")


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, or was left by the system and not by the user."""
    return LITTER.fullmatch(name) is not None


def find_folders(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted by name; links to folders are some, but not to those that they lie in."""
    inside = sorted(path for path in folder.iterdir() if not is_litter(path.name) and path.is_dir())
    above = {folder.resolve(), *folder.resolve().parents}
    return [path for path in inside if not path.is_symlink() or path.resolve() not in above]


def find_files(folder: Path) -> dict[Path, str]:
    """List the files anywhere below a folder, sorted, each with its real path.

    Links are followed, and a file that can be reached in two ways is listed once. Litter is left out; dead links,
    pipes and whatever else `read_file` refuses are listed.

    Raises:
        OSError: For a folder that may not be looked into.
    """
    real = os.path.realpath(folder)
    entered = {str(parent) for parent in Path(real).parents}  # a link to them is a circle
    found: dict[str, str] = {}
    folders, linked = [(str(folder), real)], list[tuple[str, str]]()
    while folders or linked:
        path, real = folders.pop() if folders else linked.pop(0)
        if real in entered:
            continue
        entered.add(real)
        with os.scandir(path) as scanned:
            entries = sorted((entry for entry in scanned if not is_litter(entry.name)), key=lambda entry: entry.name)
        for entry in entries:
            link = entry.is_symlink()
            target = os.path.realpath(entry.path) if link else f"{real.rstrip(os.sep)}{os.sep}{entry.name}"
            if _is_folder(entry):
                (linked if link else folders).append((entry.path, target))
            elif not os.path.lexists(target):
                found[entry.path] = entry.path  # a dead link
            elif not link or target not in found:
                found[target] = entry.path
    return dict(sorted((Path(path), real) for real, path in found.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def describe_linked_twice(files: Iterable[tuple[str, str]]) -> list[str]:
    """Describe in a line which files lie in several classes or splits, since they are linked.

    Args:
        files: The name of each file in messages, and its real path.
    """
    by_file: dict[str, list[str]] = {}
    for name, real in files:
        by_file.setdefault(real, []).append(name)
    several = [names for names in by_file.values() if len(names) > 1]
    if not several:
        return []
    examples = some((" and ".join(names[:2]) for names in several), "; ")
    return [f"files that are linked from more than one class or split ({len(several):,}): {examples}"]


def read_file(path: Path, read: Callable[[Path], R]) -> R:
    """Read an image file, unless opening it would block forever or show something other than the image.

    Args:
        path: The file.
        read: Reads it.

    Raises:
        UnreadableError: For a dead link, a pipe, a device, a raw photo, and for a file that has to be converted.
        Exception: Whatever `read` raises on other files.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise
        raise UnreadableError(f"a link to {printable(path.readlink())}, which does not exist") from error
    if not stat.S_ISREG(mode):
        raise UnreadableError(f"{SPECIAL.get(stat.S_IFMT(mode), 'something else')}, not a file")
    ending = path.suffix.lower()
    kind = ending[1:].upper()
    if ending in RAW and _is_no_plain_image(path):
        raise UnreadableError(f"a raw photo ({kind}), which cannot be read: convert it to JPEG or PNG")
    try:
        return read(path)
    except (UnreadableError, OSError) as error:
        if ending not in CONVERTIBLE:
            raise
        raise UnreadableError(f"{kind} cannot be read: convert it to JPEG or PNG") from error


def _is_no_plain_image(path: Path) -> bool:
    """Return whether a file is neither a JPEG nor a PNG, whatever its ending."""
    with path.open("rb") as file:
        return not file.read(8).startswith((b"\xff\xd8\xff", b"\x89PNG"))


def _size_in_header(path: Path) -> tuple[int, int]:
    """Return the width and height that the header of an image file states."""
    from PIL import Image

    try:
        with decoder_errors(), Image.open(path, formats=readable_formats()) as opened:
            return opened.size
    except UnreadableError:
        bare = without_metadata(path)
        if bare is None:
            raise
        with decoder_errors(), Image.open(bare) as opened:
            return opened.size


def native_size(paths: Iterable[Path]) -> int:
    """Return the side of prepared images: their own where all are squares of one size and small, else 64."""
    side = None
    for path in paths:
        try:
            width, height = read_file(path, _size_in_header)
        except (UnreadableError, OSError):  # reported when it is read
            continue
        side = side or width
        if not width == height == side <= MAX_NATIVE_SIZE:
            return MAX_NATIVE_SIZE
    return side or MAX_NATIVE_SIZE


def readable_endings() -> frozenset[str]:
    """Return the endings of files that Pillow can read, in lower case."""
    from PIL import Image

    endings = Image.registered_extensions()
    return frozenset(
        ending.lower()
        for ending, kind in endings.items()
        if kind == "MPO" or (kind in Image.OPEN and kind not in NO_PICTURES)  # Pillow opens those as JPEG
    )
