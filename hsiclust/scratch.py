"""Memory that is used again: the system gives new memory page by page, which takes its time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

# Rooms begin at a multiple of this, as pages do, and as much of a file is apt to. Some processors
# (AMD's, from Zen 3 on) copy at a fifth of their speed to a place that begins up to 32 bytes behind
# its source, page for page; NumPy's own large arrays begin 16 bytes behind a page.
_PAGE = 4096


class Scratch:
    """Rooms for what is worked on, as many as there are threads at work at once."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, nbytes: int) -> Iterator[NDArray[np.uint8]]:
        """So many bytes, whatever they hold; nobody else's until the block ends."""
        with self._lock:
            room = self._free.pop() if self._free else np.empty(0, np.uint8)
        if room.size < nbytes:
            room = page_aligned(nbytes)
        try:
            yield room[:nbytes]
        finally:
            with self._lock:
                self._free.append(room)


def page_aligned(nbytes: int) -> NDArray[np.uint8]:
    """New memory that begins with a page: `(nbytes,)`, uint8, whatever it holds."""
    memory = np.empty(nbytes + _PAGE, np.uint8)
    start = -memory.ctypes.data % _PAGE
    return memory[start : start + nbytes]
