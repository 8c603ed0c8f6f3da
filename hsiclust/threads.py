"""One thread a tile: the tiles are the parallelism, and the order of a sum is no chance.

Torch and the BLAS of NumPy would each use all processors for every product, beside those that
other tiles use; and what a sum of rounded numbers gives would depend on how many there are.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import LibController, ThreadpoolController


def work_alone() -> None:
    """Compute on the thread that calls: from now on, for this whole process."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    for library in _blas():
        if library.get_num_threads() != 1:
            library.set_num_threads(1)


class _Keeper:
    """What this process had before the first of the runs that are at work in its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs = 0
        self._torch = 0
        self._blas: list[int] = []

    def begin(self) -> None:
        """One run more; only the first finds what no run has changed."""
        with self._lock:
            if not self._runs:
                self._torch = torch.get_num_threads()
                self._blas = [library.get_num_threads() for library in _blas()]
            self._runs += 1
            for library in _blas():
                library.set_num_threads(1)

    def end(self) -> None:
        """One run less; BLAS has one thread until the last is done."""
        with self._lock:
            self._runs -= 1
            torch.set_num_threads(self._torch)
            if not self._runs:
                for library, count in zip(_blas(), self._blas, strict=True):
                    library.set_num_threads(count)


_KEEPER = _Keeper()


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give this process back, at the end, the threads that its tiles did without.

    What a worker thread sets for torch is also what any thread gets that has not used it before.
    BLAS is set here already: of a process's threads the one that set it first is the only one that
    may (threadpoolctl), and it is to be this one, which can set it back.
    """
    _KEEPER.begin()
    try:
        yield
    finally:
        _KEEPER.end()


@functools.cache
def _blas() -> tuple[LibController, ...]:
    """The libraries that multiply matrices for NumPy: to look for them takes a millisecond."""
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)
