"""Pictures as a file of TensorBoard's events, without PyTorch: its own writer imports for two seconds."""

import io
import struct
from collections.abc import Mapping
from typing import Any


def make_summary(tag: str, png: bytes) -> Any:
    """Return a PNG file, unchanged, as TensorBoard's summary of one image."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(io.BytesIO(png)) as opened:
        width, height = opened.size
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def encode_pictures(pictures: Mapping[str, bytes], wall_time: float) -> bytes:
    """Return a whole file of events.

    Args:
        pictures: PNG files by their tags.
        wall_time: Of all of them, in seconds since 1970.

    Returns:
        TFRecords: a length, its checksum, the event and its checksum, one after the other.
    """
    from tensorboard.compat.proto.event_pb2 import Event

    events = [Event(wall_time=wall_time, file_version="brain.Event:2")]
    events += [Event(wall_time=wall_time, step=0, summary=make_summary(tag, png)) for tag, png in pictures.items()]
    parts = []
    for event in events:
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        parts += [length, _masked_checksum(length), content, _masked_checksum(content)]
    return b"".join(parts)


def _masked_checksum(content: bytes) -> bytes:
    """Return the CRC-32C (RFC 3720, B.4), rotated and shifted as TFRecords have it."""
    crc = 0xFFFFFFFF
    table = _TABLE
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _make_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


_TABLE = _make_table()
