"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hsiclust.errors import OutputExistsError, UsageError


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, moved to `path` when all went well.

    The name is always the same, so that what a killed run left behind is replaced by the next.
    """
    beside = path.with_name(f".{path.name}.partial")
    remove(beside)
    try:
        yield beside
        beside.replace(path)
    finally:
        remove(beside)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Check that an output file may be written.

    Raises:
        OutputExistsError: It is there and `overwrite` is not set.
        UsageError: It is a folder, or its folder is not there.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file to write")
    if os.path.lexists(path) and not overwrite:
        raise OutputExistsError(f"{path}: is there already; --overwrite replaces it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.absolute().parent}")


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
def locked(path: Path) -> Iterator[None]:
    """Keep every other run from writing the same output meanwhile.

    Raises:
        OutputExistsError: Another run is writing it.
    """
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputExistsError(
                f"{path}: another run is writing it; wait for it, or name another output"
            ) from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
