"""Files that are either whole or not there."""

from __future__ import annotations

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
    """Check that an output may be written.

    Raises:
        OutputExistsError: It is there and `overwrite` is not set.
        UsageError: Its folder is not there.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: is there already; --overwrite replaces it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.absolute().parent}")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
