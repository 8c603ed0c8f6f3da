"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from hsiclust.errors import OutputBusyError, OutputExistsError, UsageError

# File systems take 255 bytes; files that are made beside an output have its name and some more.
_LONGEST_NAME = 220
_SHOWN = 80


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, moved to `path` when all went well.

    The name is always the same, so that what a killed run left behind is replaced by the next.
    """
    beside = path.with_name(f".{path.name}.partial")
    remove(beside)
    try:
        mode = _usual_mode(beside)
        yield beside
        if beside.is_file():
            beside.chmod(mode)
        beside.replace(path)
    finally:
        remove(beside)


@contextmanager
def written_alone(path: Path, overwrite: bool) -> Iterator[Path]:
    """`written_beside`, by one run at a time; what another wrote meanwhile is not replaced.

    Raises:
        OutputBusyError: Another run is writing it.
        OutputExistsError: It is there by now and `overwrite` is not set.
    """
    with locked(path):
        refuse_existing(path, overwrite)
        with written_beside(path) as beside:
            yield beside


def _usual_mode(path: Path) -> int:
    """Who may read a new file here; some libraries make files that no one else may."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Check that an output file may be written.

    Raises:
        OutputExistsError: It is there and `overwrite` is not set.
        UsageError: It is a folder, a pipe or a device, its name is too long or no text, or its
            folder is not there or takes nothing.
    """
    refuse_long_name(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:  # who writes or opens it would fail at the end
        raise UsageError(f"{str(path)!a}: a name that is not UTF-8 text; give another") from None
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file to write")
    if path.exists() and not path.is_file():  # a file would take its place
        raise UsageError(f"{path}: is a device or a pipe; name a file to write")
    if os.path.lexists(path) and not overwrite:
        raise OutputExistsError(f"{path}: is there already; --overwrite replaces it")
    refuse_missing_folder(path)


def refuse_long_name(path: Path) -> None:
    """Check that files beside what is to be written can be named after it.

    Raises:
        UsageError: They cannot.
    """
    size = len(os.fsencode(path.name))
    if size > _LONGEST_NAME:
        shown = path.name[:_SHOWN]
        raise UsageError(
            f"{shown}...: a name of {size} bytes, which leaves no room for what is written beside "
            f"it; give the output a name of {_LONGEST_NAME} at most"
        )


def refuse_missing_folder(path: Path) -> None:
    """Check that what is to be written has a folder to be written in.

    Raises:
        UsageError: It has none, or one that takes nothing from this user.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: nothing can be written in {folder}; name another output")


def refuse_inputs(output: Path, *inputs: str | Path | None) -> None:
    """Check that an output would not replace what it is made from.

    Raises:
        UsageError: It would.
    """
    for name in inputs:
        if name is None or not output.exists() or not Path(name).exists():
            continue
        if output.samefile(name) or output.resolve() in Path(name).resolve().parents:
            raise UsageError(f"{output}: is what the work starts from; name another output")


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Keep every other run from writing the same output meanwhile.

    Args:
        path: The output.
        shared: Let others in that share it as well.

    Raises:
        OutputBusyError: Another run is writing it.
    """
    name = path.with_name(f".{path.name}.lock")
    lock = _acquire(name, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    if lock is None:
        raise OutputBusyError(
            f"{path}: another run is writing it; wait for it, or name another output"
        )
    try:
        yield
    finally:
        with lock:
            # Who shares it removes the file only as the last.
            if not shared or _is_granted(lock, fcntl.LOCK_EX):
                name.unlink(missing_ok=True)


@contextmanager
def all_locked(paths: Iterable[Path], shared: bool = False) -> Iterator[None]:
    """`locked`, for several outputs at once."""
    with ExitStack() as locks:
        for path in paths:
            locks.enter_context(locked(path, shared))
        yield


def _acquire(name: Path, kind: int) -> IO[str] | None:
    """A lock file, locked; None while another holds it."""
    while True:
        lock = name.open("a+")  # NFS wants to read what is shared and to write what is kept
        if not _is_granted(lock, kind):
            lock.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), name.stat()):
                return lock
        lock.close()  # removed by who had it before: it locks nothing any more


def _is_granted(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
