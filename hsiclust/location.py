"""Where a store lies: a folder on disk, or a prefix in an S3 bucket.

The two stores ask this module for their Zarr groups and arrays, so that neither knows which of
the two it lies on. S3 has no rename and no lock: what makes a store safe there is what makes it
safe on disk, one writer a chunk and a flag that is written after it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hsiclust.errors import GO_ON, HsiclustError, StorageError, UsageError
from hsiclust.output import locked, remove
from hsiclust.s3client import in_short, s3_client

if TYPE_CHECKING:
    import zarr
    from zarr.storage import StoreLike

# `pathlib` folds the two slashes of a URL into one; a path made from a URL still names it.
_S3_URL = re.compile(r"s3:/{1,2}(?P<bucket>[^/]+)/+(?P<key>.+?)/*")
_SUFFIX = ".zarr"
STORE_RECORD = "zarr.json"
"""The file of a Zarr group or array that says what it is."""
UNREADABLE = (
    *(OSError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError),
)
"""What Zarr, and who looks at its metadata, raise where others have written anything in it."""

Mode = Literal["r", "r+", "w"]


@dataclass(frozen=True)
class S3Url:
    """A prefix in a bucket.

    Attributes:
        bucket: The bucket's name.
        key: The prefix, without slashes at its ends.
    """

    bucket: str
    key: str

    @property
    def name(self) -> str:
        """Last part of the prefix."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> S3Url:
        """The prefix without its last part."""
        return S3Url(self.bucket, self.key.rpartition("/")[0])

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> S3Url:
        return S3Url(self.bucket, f"{self.key}/{name}")


Location = Path | S3Url


def is_virtual(name: str) -> bool:
    """Whether a name is none of a file on disk: a URL, or of one of GDAL's own file systems."""
    return "://" in name or name.startswith("/vsi")


def location(name: str | Path | S3Url) -> Location:
    """The place that a name means: `s3://bucket/prefix`, or a path.

    Raises:
        UsageError: It names a whole bucket.
    """
    if isinstance(name, S3Url):
        return name
    match = _S3_URL.fullmatch(str(name))
    if match is not None:
        return S3Url(match["bucket"], match["key"])
    if str(name).startswith(("s3://", "s3:/")):
        raise UsageError(f"{name}: names a whole bucket; name a store in it: s3://bucket/x.zarr")
    return Path(name)


def store_location(name: str | Path | S3Url) -> Location:
    """The place of a store that is to be written.

    Raises:
        UsageError: It is on S3 and its name does not end in .zarr, by which stores are told from
            rasters there without asking the server.
    """
    where = location(name)
    if isinstance(where, S3Url) and not where.name.endswith(_SUFFIX):
        raise UsageError(f"{where}: a store on S3 has a name that ends in .zarr")
    return where


def may_be_store(where: Location) -> bool:
    """Whether a store may be there; asks no server."""
    return where.is_dir() if isinstance(where, Path) else where.name.endswith(_SUFFIX)


def open_group(where: Location, mode: Mode) -> zarr.Group:
    """Open a Zarr group, or make an empty one in its place ("w").

    Version 3 alone: an array of version 2 may name the pickle codec, and run any code.

    Raises:
        zarr.errors.BaseZarrError: There is no group.
        StorageError: S3 does not answer, or refuses.
    """
    import zarr

    with storage_errors(where):
        return zarr.open_group(zarr_store(where), mode=mode, zarr_format=3)


def open_array(where: Location, name: str, mode: Literal["r", "r+"]) -> Any:
    """Open an array of a Zarr group.

    Raises:
        zarr.errors.BaseZarrError: There is no such array.
        StorageError: S3 does not answer, or refuses.
    """
    import zarr

    with storage_errors(where):
        return zarr.open_array(zarr_store(where / name), mode=mode, zarr_format=3)


def is_there(where: Location) -> bool:
    """Whether anything is there.

    Raises:
        StorageError: S3 does not answer, or refuses.
    """
    if isinstance(where, Path):
        return where.exists()
    with storage_errors(where):
        import obstore

        try:
            obstore.head(s3_client(where.bucket), where.key)
        except FileNotFoundError:
            return any(obstore.list(s3_client(where.bucket), where.key, chunk_size=1))
    return True


def names_in(where: Location) -> set[str]:
    """Names of the files of a folder, or of the objects of a prefix; none where it is not there.

    One listing, where Zarr would open each chunk of an array to learn which there are.

    Raises:
        OSError: The folder cannot be read.
        StorageError: S3 does not answer, or refuses.
    """
    if isinstance(where, Path):
        with suppress(FileNotFoundError):
            return {file.name for file in where.iterdir()}
        return set()
    with storage_errors(where):
        import obstore

        parts = obstore.list(s3_client(where.bucket), where.key)
        return {item["path"].rpartition("/")[2] for part in parts for item in part}


def put(where: Location, data: bytes) -> None:
    """Write a file or object: whoever reads it meanwhile finds what was there before.

    Raises:
        OSError: The disk cannot take it.
        StorageError: S3 does not answer, or refuses.
    """
    if isinstance(where, S3Url):
        with storage_errors(where):
            import obstore

            obstore.put(s3_client(where.bucket), where.key, data)
        return
    beside = where.with_name(f".{where.name}.{os.urandom(8).hex()}")
    where.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_bytes(data)
        beside.replace(where)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def take_away(where: Location) -> None:
    """Remove a file or object, if it is there.

    Raises:
        OSError: The disk does not let it go.
        StorageError: S3 does not answer, or refuses.
    """
    if isinstance(where, Path):
        where.unlink(missing_ok=True)
        return
    with storage_errors(where), suppress(FileNotFoundError):
        import obstore

        obstore.delete(s3_client(where.bucket), where.key)


def remove_store(where: Location) -> None:
    """Remove a store, if anything is there; who is killed meanwhile leaves none that looks whole.

    A folder that is removed file by file may lose its values before what says that they are there.
    So it loses its name at once; on S3, which renames nothing, the record that makes it a store.

    Raises:
        StorageError: S3 does not answer, or refuses.
    """
    if isinstance(where, Path):
        beside = where.with_name(f".{where.name.removeprefix('.')}.removed")
        remove(beside)  # of one who was killed
        if os.path.lexists(where):
            where.rename(beside)
            remove(beside)
        return
    with storage_errors(where):
        import obstore

        client = s3_client(where.bucket)
        with suppress(FileNotFoundError):
            obstore.delete(client, f"{where.key}/{STORE_RECORD}")
        for objects in obstore.list(client, where.key):
            obstore.delete(client, [item["path"] for item in objects])


def stamp(where: Location) -> tuple[object, ...]:
    """What differs between two states of a file, or of a folder of files: sizes, times, tags.

    Raises:
        StorageError: S3 does not answer, or refuses.
    """
    if isinstance(where, S3Url):
        return _remote_stamp(where)
    if not where.is_dir():
        status = where.stat() if where.is_file() else None
        return (status.st_size, status.st_mtime_ns) if status else ()
    files = [file.stat() for file in where.rglob("*") if file.is_file()]
    newest = max((status.st_mtime_ns for status in files), default=0)
    return len(files), sum(status.st_size for status in files), newest


def _remote_stamp(where: S3Url) -> tuple[object, ...]:
    """Of one object its tag; of a prefix the number of objects, their bytes and the newest."""
    with storage_errors(where):
        import obstore

        client = s3_client(where.bucket)
        try:
            found = obstore.head(client, where.key)
        except FileNotFoundError:
            objects = [item for part in obstore.list(client, where.key) for item in part]
            newest = max((str(item["last_modified"]) for item in objects), default="")
            return len(objects), sum(item["size"] for item in objects), newest
        return found["size"], found["e_tag"], str(found["last_modified"])


@contextmanager
def locked_location(where: Location) -> Iterator[None]:
    """Keep every other run of this machine from writing there meanwhile; S3 knows no locks.

    Raises:
        OutputExistsError: Another run is writing there.
    """
    with locked(where) if isinstance(where, Path) else nullcontext():
        yield


@contextmanager
def storage_errors(where: Location) -> Iterator[None]:
    """Turn the failures of a server into `StorageError`; those of a disk pass."""
    if isinstance(where, Path):
        yield
        return
    try:
        from obstore.exceptions import BaseError
        from zarr.errors import BaseZarrError
    except ImportError:
        raise StorageError(
            f"{where}: S3 needs a library that is not installed: pip install 'hsiclust[s3]'"
        ) from None
    try:
        yield
    except (BaseError, PermissionError, FileNotFoundError, ConnectionError, TimeoutError) as error:
        if isinstance(error, BaseZarrError):
            raise
        raise StorageError(f"{where}: {in_short(error)}") from error


@contextmanager
def writing(where: Location, what: str) -> Iterator[None]:
    """Turn failures to write into errors that name the place and say that a run can go on.

    Args:
        where: A store.
        what: What is written into it.

    Raises:
        StorageError: S3 does not answer, or refuses.
        HsiclustError: The disk does not take it.
    """
    try:
        with storage_errors(where):
            yield
    except StorageError as error:
        raise StorageError(f"{error}; {GO_ON}") from error
    except OSError as error:
        raise HsiclustError(
            f"{where}: {what} cannot be written: {error.strerror or error}; {GO_ON}"
        ) from error


def zarr_store(where: Location) -> StoreLike:
    """What Zarr opens there."""
    if isinstance(where, Path):
        return where
    from zarr.storage import ObjectStore

    # A client of its own prefix: Zarr writes group metadata down to the root of its store.
    return ObjectStore(s3_client(where.bucket, where.key))
