"""What the kernel's page cache holds of a file: told to drop it, and asked."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Final

_PIECE: Final = 2**23  # bytes read at once


def drop(path: Path) -> None:
    """Ask the kernel to forget a file's pages; pages must be on the disk for that."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def fill(path: Path) -> None:
    """Read a file once from its beginning to its end."""
    buffer = bytearray(_PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def resident(path: Path) -> float:
    """Part of a file's pages that the cache holds, 0 to 1, by `mincore`."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    state = (ctypes.c_ubyte * pages)()
    library = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(first))
        failed = library.mincore(address, ctypes.c_size_t(size), state)
        del first  # a map that is still looked at cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore of {path}")
    return sum(page & 1 for page in state) / pages
