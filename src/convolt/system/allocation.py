"""How glibc allocates the memory of this process: what a step frees is retained for the next, or released at once."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's parameters, of glibc's malloc.h."""

_ADAPTED = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
"""What glibc adapts the parameters to by itself."""


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Keep what this process frees inside for what it allocates next, instead of giving it back to the system.

    glibc gives buffers of 32 MiB and more back at once, and the system clears their pages again for each step. What is
    retained goes back at the end.
    """
    with _malloc_parameters({_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1}):
        yield


@contextmanager
def release_freed_memory() -> Iterator[None]:
    """Give buffers of a megabyte and more back to the system as soon as they are free.

    glibc comes to keep buffers of up to 32 MiB, for each thread separately: those of large images add up.
    """
    with _malloc_parameters({_MMAP_THRESHOLD: 2**20}):
        yield


@contextmanager
def _malloc_parameters(values: dict[int, int]) -> Iterator[None]:
    """Set parameters while the block runs; do nothing without glibc, or where the environment sets some."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    is_set = any(name.startswith(("MALLOC_MMAP", "MALLOC_TRIM", "GLIBC_TUNABLES")) for name in os.environ)
    if is_set or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    assert library is not None
    for parameter, value in values.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter in values:
            library.mallopt(parameter, _ADAPTED[parameter])
        library.malloc_trim(0)
