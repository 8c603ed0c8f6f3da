"""Settings of the whole process, which only a program may make: the command line makes them."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def let_threads_sleep() -> None:
    """Let waiting threads sleep; call it before torch is imported.

    OpenMP's threads spin while they wait, which stalls a machine that others use as well.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensor, for training.

    By default the C library gives every large block back to the kernel when it is freed, and
    faults it in again page by page for the next tensor: that is half of a training step.
    Labelling does without: there the peak of memory counts for more.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        library.mallopt(_M_MMAP_THRESHOLD, 2**30)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
