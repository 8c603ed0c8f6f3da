"""Memory that is used again: the system gives new memory page by page, which takes its time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray


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
            room = np.empty(nbytes, np.uint8)
        try:
            yield room[:nbytes]
        finally:
            with self._lock:
                self._free.append(room)
