"""How this process allocates memory: what a step frees is kept for the next."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's parameters, of glibc's malloc.h."""


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Keep what this process frees inside for what it allocates next, instead of giving it back to the system.

    glibc gives buffers of 32 MiB and more back at once, and the system clears their pages anew for each step. Nothing
    is changed without glibc, or where the environment says how it allocates. What is kept goes back at the end.
    """
    library = _allocator()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, 2**30)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, 2**25)  # both are what glibc arrives at by itself
        library.mallopt(_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)


@contextmanager
def release_freed_memory() -> Iterator[None]:
    """Give buffers of a megabyte and more back to the system as soon as they are free.

    glibc comes to keep buffers of up to 32 MiB, for each thread apart: those of large images add up.
    """
    library = _allocator()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, 2**25)


def _allocator() -> Any:
    """Return glibc; None where there is another one, or the environment says how it allocates."""
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    told = any(name.startswith(("MALLOC_MMAP", "MALLOC_TRIM", "GLIBC_TUNABLES")) for name in os.environ)
    return None if told or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim") else library
