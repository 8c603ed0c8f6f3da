"""Settings of the whole process, which only a program may make: the command line makes them."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def prepare_process() -> None:
    """Keep freed memory, and let waiting threads sleep; call it before torch is imported.

    By default the C library gives every large block back to the kernel when it is freed, and
    faults it in again page by page for the next tensor: that is half of a training step.
    OpenMP's threads spin while they wait, which stalls a machine that others use as well.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # glibc
            library.mallopt(_M_MMAP_THRESHOLD, 2**30)
            library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
