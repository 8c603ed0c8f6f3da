"""What the system keeps in memory of the files it reads: asked to read ahead, and to forget.

Hints, which Linux takes; where there are none, nothing is done.
"""

from __future__ import annotations

import os

# Bytes that the system is asked for at once: of a longer request Linux reads no more than its own
# read-ahead, or the largest request of the disk, and forgets the rest.
_ASKED_BYTES = 2**19
_PROBES = 64


def ask_for(file: int, stretches: list[tuple[int, int]]) -> None:
    """Ask the system to read parts of an open file ahead, while something else is worked on.

    Args:
        file: Its descriptor.
        stretches: First byte of each part, and how many.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    asked = [
        (at, min(_ASKED_BYTES, start + size - at))
        for start, size in stretches
        for at in range(start, start + size, _ASKED_BYTES)
    ]
    for at, size in asked:  # in few steps: threads wait for each other at the interpreter
        os.posix_fadvise(file, at, size, os.POSIX_FADV_WILLNEED)


def give_back(file: int, stretches: list[tuple[int, int]]) -> None:
    """Tell the system that it need not keep parts of an open file; arguments as of `ask_for`.

    Its memory is used again for what is read next. To find as much of it anew for each part takes
    a virtual machine several times as long as the reading.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for at, size in stretches:
        os.posix_fadvise(file, at, size, os.POSIX_FADV_DONTNEED)


def give_back_all(path: str) -> None:
    """Tell the system that it need not keep anything of a file.

    Raises:
        OSError: The file cannot be opened.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        give_back(file, [(0, 0)])  # to its end
    finally:
        os.close(file)


def holds(path: str) -> bool:
    """Whether the system keeps most of a file in memory, as some of its bytes tell.

    True where it cannot be asked.

    Raises:
        OSError: The file cannot be opened.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return True
    file = os.open(path, os.O_RDONLY)
    try:
        size, held = os.fstat(file).st_size, 0
        for probe in range(_PROBES):
            try:
                held += os.preadv(file, [bytearray(1)], size * probe // _PROBES, os.RWF_NOWAIT)
            except BlockingIOError:  # it would have to wait for the disk
                continue
            except OSError:  # a file system that does not tell
                return True
    finally:
        os.close(file)
    return held * 2 > _PROBES
