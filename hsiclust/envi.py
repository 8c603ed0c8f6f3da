"""ENVI cubes: where the pixels lie that a header describes.

GDAL parses the header; what it says about the bytes on disk is all that is needed to read them.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from hsiclust.errors import InputError
from hsiclust.rawcube import INTERLEAVES, Interleave, RawCube

# ENVI "data type" numbers; 6 and 9 are complex and mean nothing to a spectral method.
_DATA_TYPES = {
    1: "u1",
    2: "i2",
    3: "i4",
    4: "f4",
    5: "f8",
    12: "u2",
    13: "u4",
    14: "i8",
    15: "u8",
}
# What GDAL takes of an entry that is to be an integer: others write "512.0", or a note behind it.
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(\.?[0-9]|nan|inf)", re.IGNORECASE)
_GZIP_SIZE = 4  # bytes at the end of a gzip file that say how many are compressed in it
_PART_BYTES = 2**20
_DATA_SUFFIXES = ("", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin", ".cub", ".hyspex")


def raw_envi(path: str, header: Mapping[str, str], shape: tuple[int, int, int]) -> RawCube | None:
    """Describe a raw ENVI file, or return None when only GDAL can read it.

    Args:
        path: The data file.
        header: Header fields as GDAL gives them (blanks in names are underscores).
        shape: `(band, row, col)` as GDAL understood the header.

    Raises:
        InputError: The file, or what is compressed in it, is shorter than its header says; or the
            header does not tell where its pixels lie.
    """
    interleave = _interleave(path, header)
    _check_told(path, header)
    gaps = _gaps(path, header, interleave)
    data_type = _DATA_TYPES.get(_integer(path, header, "data_type"))
    order = ">" if _integer(path, header, "byte_order") else "<"
    offset = _integer(path, header, "header_offset")
    compressed = _integer(path, header, "file_compression") != 0
    file = Path(path)
    if data_type is None or interleave is None or offset < 0 or not file.is_file() or gaps:
        return None
    cube = RawCube(path, *shape, order + data_type, offset, interleave)
    if compressed:
        _check_gzip(file, cube.nbytes)
        return None
    size = file.stat().st_size
    if size < cube.nbytes:
        raise InputError(
            f"{path}: the file holds {size} bytes, its header asks for {cube.nbytes} "
            f"({' x '.join(map(str, shape))} values of {data_type}); "
            "it is cut short, or the header is not its own"
        )
    return cube


def _check_gzip(file: Path, needed: int) -> None:
    """Check that a compressed file holds so many bytes: GDAL gives zeros where it ends too early.

    One that was compressed in one go says at its end how many it holds (RFC 1952); any other has to
    be read.

    Raises:
        InputError: It holds less.
    """
    try:
        with file.open("rb") as packed:
            packed.seek(-_GZIP_SIZE, os.SEEK_END)
            if int.from_bytes(packed.read(_GZIP_SIZE), "little") == needed % 2 ** (8 * _GZIP_SIZE):
                return
        with gzip.open(file) as unpacked:
            while needed > 0 and (part := unpacked.read(min(needed, _PART_BYTES))):
                needed -= len(part)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be decompressed, or is cut short: {error}") from error
    if needed > 0:
        raise InputError(
            f"{file}: {needed} bytes less are compressed in it than its header asks for; "
            "it is cut short, or the header is not its own"
        )


def data_file_of_header(header: Path) -> Path:
    """Find the data file that an ENVI header describes, by name.

    Raises:
        InputError: There is none beside the header.
    """
    found = data_files_of_header(header)
    if not found:
        raise InputError(
            f"{header}: no data file beside this ENVI header: none is called {header.stem}, or so "
            f"with {', '.join(_DATA_SUFFIXES[1:])}; name the data file itself"
        )
    return found[0]


def data_files_of_header(header: Path) -> list[Path]:
    """All files that an ENVI header of this name may describe, the likeliest first."""
    stem = header.with_suffix("")
    names = [stem.name + name for suffix in _DATA_SUFFIXES for name in (suffix, suffix.upper())]
    candidates = (stem.with_name(name) for name in dict.fromkeys(names))
    return [candidate for candidate in candidates if candidate.is_file()]


def _interleave(path: str, header: Mapping[str, str]) -> Interleave | None:
    """As GDAL takes it, by its first letters; None where the header leaves it to GDAL.

    Raises:
        InputError: It is none: GDAL would take it for BSQ.
    """
    entry = header.get("interleave")
    if entry is None:
        return None
    for interleave in INTERLEAVES:
        if entry.strip().lower().startswith(interleave):
            return interleave
    raise InputError(
        f"{path}: its header has interleave = {entry.strip()}; bsq, bil or bip is expected"
    )


def _check_told(path: str, header: Mapping[str, str]) -> None:
    """Check that a header says of which type its values are, and that its nodata is a number.

    Raises:
        InputError: GDAL would take them for bytes, or 0 for nodata.
    """
    if not header.get("data_type", "").strip():
        raise InputError(f"{path}: its header has no data type; 12 means uint16, 4 float32")
    ignored = header.get("data_ignore_value")
    if ignored is not None and _NUMBER.match(ignored.strip()) is None:
        raise InputError(
            f"{path}: its header has data ignore value = {ignored.strip()}; a number is expected"
        )


def _gaps(path: str, header: Mapping[str, str], interleave: Interleave | None) -> bool:
    """Whether bytes that are no pixels lie around the lines of a cube, which GDAL skips.

    Raises:
        InputError: They lie where GDAL would take them for pixels.
    """
    major, minor = (_sizes(header, f"{kind}_frame_offsets") for kind in ("major", "minor"))
    if any(minor) or (any(major) and (interleave not in ("bil", "bip") or len(major) != 2)):
        kind = "minor" if any(minor) else "major"
        raise InputError(
            f"{path}: its header has {kind} frame offsets = {header[f'{kind}_frame_offsets']}; "
            "two major ones of BIL or BIP are skipped, no others; write the pixels without them"
        )
    return any(major)


def _sizes(header: Mapping[str, str], key: str) -> list[str]:
    """Entries of a list; "" for each that is 0."""
    entries = (entry.strip() for entry in header.get(key, "").strip(" {}").split(","))
    return [entry.strip("0") for entry in entries]


def _integer(path: str, header: Mapping[str, str], key: str) -> int:
    """As GDAL takes it, by its first digits; 0 where the header does not have it.

    Raises:
        InputError: It is no number: GDAL would take it for 0.
    """
    entry = header.get(key, "").strip() or "0"
    number = _INTEGER.match(entry)
    if number is None:
        raise InputError(
            f"{path}: its header has {key.replace('_', ' ')} = {entry}; a number is expected"
        )
    return int(number[0])
