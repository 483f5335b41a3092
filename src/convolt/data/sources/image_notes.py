"""Remarks on files that were read: one line of each kind, for all files."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from convolt.errors import printable, some


class ImageNotes:
    """Collects remarks on files that are read by several threads.

    Attributes:
        sizes: Width and height of each image that was read, upright.
    """

    def __init__(self) -> None:
        # Appending to a list is atomic, so that no lock is needed.
        self.sizes: list[tuple[int, int]] = []
        self._remarks: list[tuple[str, Path]] = []
        self._largest: dict[bool, list[tuple[int, Path]]] = {False: [], True: []}

    def add(self, remark: str, path: Path) -> None:
        """Note a remark about a file; the same remark about several files becomes one line."""
        self._remarks.append((remark, path))

    def add_largest(self, value: int, path: Path, *, color: bool) -> None:
        """Note the largest value of a file of 16 bits: of 65535, or of 255 where it is a color file."""
        self._largest[color].append((value, path))

    def lines(self, shown: Callable[[Path], str] = str, *, white_can_be_set: bool = True) -> tuple[str, ...]:
        """Return a line for each kind of remark, sorted.

        Args:
            shown: Writes the name of a file.
            white_can_be_set: Whether `data.white` can be advised.
        """
        by_remark: dict[str, list[str]] = {}
        for remark, path in self._remarks:
            by_remark.setdefault(remark, []).append(shown(path))
        lines = [f"{_count(names)}: {remark}: {some(sorted(names))}" for remark, names in sorted(by_remark.items())]
        for color, largest_values in self._largest.items():
            full = 255 if color else 65535
            largest = max((value for value, _ in largest_values), default=full)
            if largest >= full / 8:
                continue
            names = [shown(path) for _, path in largest_values]
            what = "16-bit color" if color else "16-bit gray"
            line = f"{_count(names)} of {what} reach {largest} of {full} only, nearly black: {some(sorted(names))}"
            if color:
                line += " (Pillow reads the upper 8 bits of color: save 8-bit files that use the whole range)"
            elif white_can_be_set:
                white = (1 << max(8, largest.bit_length())) - 1  # of as many bits as the camera needs, 8 or more
                line += f" (data.white={white} uses the whole range)"
            lines.append(line)
        return tuple(lines)

    def folder_lines(self, root: Path, size: int, resize: str) -> tuple[str, ...]:
        """Return the lines, with files named from a folder; before them, how its images were brought to their size."""
        first = describe_resizing(self.sizes, size, resize)
        return (*([first] if first else []), *self.lines(lambda path: printable(path.relative_to(root).as_posix())))


def _count(names: Sequence[str]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names)} files"


def describe_resizing(sizes: Sequence[tuple[int, int]], size: int, resize: str) -> str:
    """Describe how images of some sizes become squares of one; "" where they are such squares.

    Args:
        sizes: Width and height of each.
        size: Side of the squares.
        resize: crop, stretch or pad, see `squares.fit_to_square`.
    """
    if not set(sizes) - {(size, size)}:
        return ""
    by_area = [f"{width}x{height}" for width, height in sorted(set(sizes), key=lambda size: (math.prod(size), size))]
    square = all(width == height for width, height in sizes)
    if resize == "pad":
        done = {
            (True, False): "cropped", (False, True): "padded", (True, True): "cropped and padded",
        }[any(max(each) > size for each in sizes), any(min(each) < size for each in sizes)]  # fmt: skip
    elif square or resize == "stretch":
        done = "resized" if square else "stretched"
    else:
        done = "cropped" if all(min(each) == size for each in sizes) else "cropped and resized"
    stored = by_area[0] if len(by_area) == 1 else f"{by_area[0]} to {by_area[-1]}"
    return f"images of {stored} pixels, {done} to {size}x{size} (data.image_size, data.resize)"
