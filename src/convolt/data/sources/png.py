"""A PNG file without its metadata, for files whose pixels are whole and whose texts Pillow refuses."""

from io import BytesIO
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST = 200_000_000
"""Bytes of a file that is read as a whole."""

_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def without_metadata(path: Path) -> BytesIO | None:
    """Return a PNG file with nothing but its pixels; None where it is none, or has nothing else."""
    if path.stat().st_size > _LARGEST:
        return None
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return None
        data = memoryview(file.read())
    kept, place, left_out = [_SIGNATURE], 0, False
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")  # length, kind, content, checksum
        if bytes(data[place + 4 : place + 8]) in _PIXELS:
            kept.append(bytes(data[place:end]))
        else:
            left_out = True
        place = end
    return BytesIO(b"".join(kept)) if left_out else None
