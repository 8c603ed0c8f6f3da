"""Settings of the whole process, which only a program may make: the command line makes them."""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from hsiclust.crew import still_at_work

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# Objects that are new before the garbage collector looks, which has 700 by itself: it looked
# through all of torch again and again while torch was being imported.
_COLLECT_AFTER = 10_000


def prepare_process() -> None:
    """Let waiting threads sleep, share one heap and keep freed memory; call it before torch comes.

    OpenMP's threads spin while they wait, which stalls a machine that others use as well. The C
    library gives each thread a heap, and each keeps its own worst moment: with one the peak of
    memory is a fifth lower, and no longer grows with the scene. It also gives every large block
    back to the kernel when it is freed, and faults it in again page by page for the next tensor:
    that is half of a training step, and a twentieth of a labelling. The garbage collector stops
    every thread; it looks seldom, and not at all when the process ends, which then takes 0.1 s,
    not 0.5.
    """
    _collect_seldom()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")  # for worker processes
    _mallopt(_M_ARENA_MAX, 1)
    _keep_freed_memory()


def open_standard_streams() -> None:
    """Give a process that was started without one of the three standard streams an empty one.

    A file that is opened later would get its number, and the words of libraries for content.
    What the encoding of standard output does not hold is escaped, as Python does on standard error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def end_process(code: int) -> NoReturn:
    """End with this exit status; at once where a tile is still being worked on.

    Python would wait for it, and it may take minutes. Who asks to stop once more is not heard.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if still_at_work():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker process.

    Ctrl-C, and the end of a terminal, is for the command, which ends its workers; and it tells what
    matters, not they: Dask silences a worker until it is closed, but its connections may end, and
    be told of, after that.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    _collect_seldom()
    _keep_freed_memory()


def _collect_seldom() -> None:
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def _keep_freed_memory() -> None:
    _mallopt(_M_MMAP_THRESHOLD, 2**25)
    _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # glibc
            library.mallopt(parameter, value)
