"""The records of a `.wandb` file; the reader in wandb itself is gone from its newer versions."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 2**15
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_records(file: Path) -> Iterator[Any]:
    """Yield the records: LevelDB's log format behind 7 bytes, with protobuf in it."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:  # no room for a header: the block ends with zeros
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        part = content[at + 7 : at + 7 + length]
        at += 7 + length
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
