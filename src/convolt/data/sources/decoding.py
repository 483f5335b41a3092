"""Image files of any kind decoded: within bounds of memory, turned, laid on white, of 8 bits; and masks of labels."""

import ctypes
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convolt.data.sources.base import IGNORED
from convolt.data.sources.image_notes import ImageNotes
from convolt.data.sources.png import without_metadata

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""Larger images are refused: a file of a few bytes can ask for all memory."""

MEMORY = 900_000_000
"""Bytes that all images which are being read may take in sum; a larger one is refused."""

STRIP = 1 << 20
"""Pixels that are converted at once."""


_SIDEWAYS = ("ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE")


class UnreadableError(ValueError):
    """A file that cannot be read as an image; its text is the reason."""


class RefusedError(UnreadableError):
    """An image that Pillow may read and we do not."""


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Call whatever Pillow raises on a damaged file, which may be any exception, an `UnreadableError`."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = "no image that Pillow knows" if "cannot identify" in str(error) else str(error)
        raise UnreadableError(" ".join(reason.split()) or f"damaged ({type(error).__name__})") from error


@contextmanager
def open_upright(
    path: Path | BinaryIO,
    channels: int,
    draft: int | None = None,
    *,
    white: int | None = None,
    notes: ImageNotes | None = None,
) -> Iterator["Image.Image"]:
    """Read an image as its EXIF data says, laid on white where it is transparent, of 8 bits, color or gray.

    While it is in use, other threads read as much more as `MEMORY` allows.

    Args:
        path: The file.
        channels: 3 for color, 1 for grayscale.
        draft: A large JPEG may be decoded at a half, a quarter or an eighth, of this side or more; None: not reduced.
        white: The value of white in gray files of 16 bits; None: 65535. Files that state their own keep it.
        notes: Collects remarks on the file.

    Yields:
        The image, of the mode RGB or L.

    Raises:
        UnreadableError: For a file that Pillow cannot read, and for what is refused here: more than `MAX_PIXELS`
            pixels, more memory than `MEMORY`, a value above white.
    """
    noted: list[str] = []
    with ExitStack() as stack:
        try:
            opened, header = stack.enter_context(_open_and_load(path, draft))
        except UnreadableError as error:
            bare = None if isinstance(error, RefusedError) or not isinstance(path, Path) else without_metadata(path)
            if bare is None:
                raise
            opened, header = stack.enter_context(_open_and_load(bare, draft))
            noted.append("metadata could not be read and is left out")
        orientation = read_orientation(opened, noted)
        image, largest = _to_8_bits(opened, header, white, noted)
        mode = "RGB" if channels == 3 else "L"
        if image.has_transparency_data:
            image = _lay_on_white(image, mode)
        elif image.mode != mode:
            with decoder_errors():  # not every mode of every format can be converted
                image = image.convert(mode)
        if image is not opened:
            opened.close()  # lets its pixels go
        if orientation is not None:
            image = image.transpose(orientation)
        if notes is not None and isinstance(path, Path):
            sideways = orientation is not None and orientation.name in _SIDEWAYS
            notes.sizes.append(header.size[::-1] if sideways else header.size)
            for remark in noted:
                notes.add(remark, path)
            if largest is not None and white is None:
                notes.add_largest(largest, path, color=header.reduced)
        yield image


@contextmanager
def _open_and_load(path: Path | BinaryIO, draft: int | None) -> Iterator[tuple["Image.Image", "_Header"]]:
    """Open an image and decode its pixels, within the memory that is left."""
    from PIL import Image

    with decoder_errors():
        image = Image.open(path, formats=readable_formats())
    with image as opened:
        check_size(opened)
        if opened.format == "EPS":
            raise RefusedError("PostScript is a program, which is not run: save it as PNG")
        header = _Header.of(opened)  # before it is loaded: Pillow forgets it then
        cost = _BYTES_PER_PIXEL.get(opened.format or "", 9) * opened.width * opened.height
        with decoder_errors():
            reduced = draft is not None and opened.draft(None, (draft, draft))
        if reduced:
            coefficients = cost if opened.info.get("progressive") else 0
            cost = max(coefficients, 9 * opened.width * opened.height)
        if cost > MEMORY:
            raise RefusedError(
                f"{opened.width} x {opened.height} pixels of {opened.format} take {cost / 1e9:.1f} GB to read: "
                "make it smaller, or save it as PNG"
            )
        with _memory.reserve(cost):
            with decoder_errors():
                opened.load()
            check_size(opened)  # an icon's picture may be larger than the icon says
            yield opened, header


_BYTES_PER_PIXEL = {"AVIF": 13, "WEBP": 17, "JPEG2000": 25}
"""Of the formats whose decoders take more than the pixels and a converted copy of them; measured."""


class _Memory:
    """A number of bytes that threads share; one that needs all of them waits until no other holds any.

    Args:
        size: Bytes.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._condition = Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait until so many bytes are free, and reserve them."""
        with self._condition:
            self._condition.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._condition:
                self._free += size
                self._condition.notify_all()


_memory = _Memory(MEMORY)


@dataclass(frozen=True)
class _Header:
    """The properties of a file before its pixels are decoded.

    Attributes:
        size: Width and height, as stored.
        white: The value of white, where the file itself states it; else None.
        reduced: Whether Pillow reads the upper 8 bits of 16.
    """

    size: tuple[int, int]
    white: int | None
    reduced: bool

    @classmethod
    def of(cls, opened: "Image.Image") -> "_Header":
        """Read them from a file that is opened and not loaded."""
        tiles: Any = getattr(opened, "tile", None)
        codec, arguments = (tiles[0][0], tiles[0][3]) if tiles else ("", ())
        parts = arguments if isinstance(arguments, tuple) else (arguments,)
        integers = opened.mode[0] == "I"
        reduced = not integers and any(isinstance(part, str) and re.search(";16[BLN]", part) for part in parts)
        white = None
        if integers and codec == "ppm":
            white = 65535  # Pillow has scaled the range that the file states to this one
        elif integers and "I;12" in parts:
            white = 4095
        return cls(opened.size, white, reduced)


def readable_formats() -> list[str]:
    """Return all formats that Pillow reads, in an order that does not depend on which were used before.

    Those without a signature come last, since they take files of others for their own.
    """
    from PIL import Image

    Image.init()
    _silence_decoders()
    return sorted(Image.OPEN, key=lambda name: (Image.OPEN[name][1] is None, name))


@cache
def _silence_decoders() -> None:
    """Keep the hundreds of lines that libtiff writes over a damaged file off the screen; Pillow raises all the same."""
    from PIL import _imaging

    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else errors go to the screen where nothing logs
    with suppress(OSError, AttributeError):  # where it is linked in another way, it writes
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def check_size(image: "Image.Image") -> None:
    """Refuse an image of more than `MAX_PIXELS`."""
    if image.width * image.height > MAX_PIXELS:
        raise RefusedError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")


def read_orientation(image: "Image.Image", noted: list[str]) -> "Image.Transpose | None":
    """Return how an image must be turned as its EXIF data says; None where it lies right, or that cannot be read."""
    from PIL import ExifTags, Image

    turns = Image.Transpose
    by_value = {
        2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
        6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90,
    }  # fmt: skip
    try:
        exif = image.getexif()
        if exif or not (image.info.get("exif") or b"").strip(b"\0"):
            return by_value.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata raises whatever it likes
        pass
    noted.append("EXIF could not be read, so the orientation is as stored")
    return None


def row_boxes(image: "Image.Image") -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes of whole rows, of some `STRIP` pixels each."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield (0, top, image.width, min(top + rows, image.height))


def _lay_on_white(image: "Image.Image", mode: str) -> "Image.Image":
    """Lay an image with transparency on white."""
    from PIL import Image

    laid = Image.new(mode, image.size)
    for box in row_boxes(image):
        strip = image.crop(box).convert("RGBA")
        background = Image.new("RGBA", strip.size, "white")
        background.alpha_composite(strip)
        laid.paste(background.convert(mode), box)
    return laid


def _to_8_bits(
    image: "Image.Image", header: _Header, white: int | None, noted: list[str]
) -> tuple["Image.Image", int | None]:
    """Scale images of 16-bit integers or of fractions, which Pillow would clip, to 0 to 255.

    Returns:
        The image, gray with alpha where one of its values means transparent; and the largest value of a file of 16
        bits, None for others.
    """
    from PIL import Image

    if image.mode[0] not in "IF":
        return image, _check_reduced(image, white, noted) if header.reduced else None
    integers = image.mode[0] == "I"
    high = (header.white or white or 65535) if integers else 1
    ranges = np.array([(part.min(), part.max()) for part in _pixel_strips(image)])
    least, largest = ranges[:, 0].min(), ranges[:, 1].max()
    if not (least >= 0 and largest <= high):
        kind = "integers" if integers else "fractions"
        given = f"data.white={high}" if integers and high == white else f"{high}"
        raise UnreadableError(f"pixels are {kind} from {least} to {largest}, not 0 to {given}")
    rows = [np.rint(part.astype(np.float64) * (255 / high)).astype(np.uint8) for part in _pixel_strips(image)]
    scaled, clear = Image.fromarray(np.concatenate(rows)), image.info.get("transparency")
    if integers and isinstance(clear, int):
        alpha = [np.where(part == clear, 0, 255).astype(np.uint8) for part in _pixel_strips(image)]
        scaled = Image.merge("LA", (scaled, Image.fromarray(np.concatenate(alpha))))
    return scaled, int(largest) if integers and header.white is None else None


def _pixel_strips(image: "Image.Image") -> Iterator[np.ndarray]:
    """Yield the values of an image, some rows at a time."""
    return (np.asarray(image.crop(box)) for box in row_boxes(image))


def _check_reduced(image: "Image.Image", white: int | None, noted: list[str]) -> int:
    """Check an image of 16 bits that Pillow has cut to 8, and its transparent color; return its largest value."""
    if white not in (None, 65535):
        raise RefusedError(
            f"this is color (or gray with alpha) of 16 bits, of which Pillow reads the upper 8, so that "
            f"data.white={white} cannot be applied: save it as gray or as 8 bits"
        )
    clear = image.info.get("transparency")
    if isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)  # Pillow would take the lower 8 bits
        noted.append("the transparent color of 16 bits was matched by its upper 8 bits")
    extrema: Any = image.getextrema()
    return int(max(high for _, high in extrema[:3])) if isinstance(extrema[0], tuple) else int(extrema[1])


def read_mask(path: Path | BinaryIO) -> NDArray[np.uint8]:
    """Read a mask: the labels of pixels (H, W), of which 255 is ignored.

    Palettes and gray images hold labels themselves; of colors, those of VOC are labels.

    Raises:
        UnreadableError: For a file that Pillow cannot read, and for what is no mask.
    """
    from PIL import Image

    with decoder_errors():
        opened = Image.open(path, formats=readable_formats())
    with opened as image:
        check_size(image)
        with decoder_errors():
            image.load()
        orientation = read_orientation(image, [])
        turned = image.transpose(orientation) if orientation is not None else image
        if image.mode not in ("P", "L", "1") and image.mode[0] != "I":
            return np.concatenate([_labels_of_colors(turned.crop(box)) for box in row_boxes(turned)])
        values = np.asarray(turned)
    if values.min() < 0 or values.max() > IGNORED:
        raise UnreadableError(
            f"labels go from {values.min()} to {values.max()}, but must be 0 to 254, or 255 to be ignored"
        )
    return values.astype(np.uint8)


def voc_palette() -> NDArray[np.uint8]:
    """Return (256, 3), the colors of VOC's masks: the bits of a label, dealt to red, green and blue in turn.

    Everingham and others 2010, http://host.robots.ox.ac.uk/pascal/VOC; 255, which is ignored, is the pale (224, 224,
    192).
    """
    labels, channels = np.arange(256)[:, None], np.arange(3)
    bits = [(labels >> (3 * place + channels) & 1) << (7 - place) for place in range(8)]
    return np.asarray(np.bitwise_or.reduce(bits), np.uint8)


def _labels_of_colors(image: "Image.Image") -> NDArray[np.uint8]:
    """Turn VOC's colors into labels (H, W)."""
    with decoder_errors():  # not every mode of every format can be converted
        pixels = np.asarray(image.convert("RGB"))
    weights = np.array([1 << 16, 1 << 8, 1])
    known, codes = voc_palette() @ weights, pixels @ weights
    order = np.argsort(known)
    labels = order[np.searchsorted(known[order], codes).clip(max=255)]
    if not np.array_equal(known[labels], codes):
        foreign = pixels[known[labels] != codes][0].tolist()
        raise UnreadableError(f"the color {foreign} is none of VOC's: save masks as gray or palette images of labels")
    return np.asarray(labels, np.uint8)
