"""Settings of the whole process, which only a program may make: the command line makes them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def prepare_process() -> None:
    """Let waiting threads sleep and share one heap; call it before torch is imported.

    OpenMP's threads spin while they wait, which stalls a machine that others use as well. The C
    library gives each thread a heap, and each keeps its own worst moment: with one the peak of
    memory is a fifth lower, and no longer grows with the scene.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")  # for worker processes
    _mallopt(_M_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensor, for training.

    By default the C library gives every large block back to the kernel when it is freed, and
    faults it in again page by page for the next tensor: that is half of a training step.
    Labelling does without: there the peak of memory counts for more.
    """
    _mallopt(_M_MMAP_THRESHOLD, 2**30)
    _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker process: Ctrl-C is for the command, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # glibc
            library.mallopt(parameter, value)
