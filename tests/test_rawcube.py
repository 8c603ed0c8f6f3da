"""Raw cubes are read as they lie: any interleave, byte order, window, choice of bands."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hsiclust import pagecache, rawcube
from hsiclust.errors import InputError
from hsiclust.grid import Window
from hsiclust.rawcube import Interleave, RawCube

ORDERS: dict[Interleave, tuple[int, int, int]] = {
    "bsq": (0, 1, 2),
    "bil": (1, 0, 2),
    "bip": (1, 2, 0),
}
WINDOWS = [Window(0, 0, 31, 45), Window(3, 2, 11, 40), Window(5, 30, 20, 7), Window(30, 44, 1, 1)]
BANDS = [list(range(7)), [1, 2, 3], [5, 2, 6], [4]]


# As many lines of a band as lie together, where that is not what the name of the order says.
LAYOUTS: list[tuple[Interleave, int | None]] = [
    ("bsq", None),
    ("bil", None),
    ("bip", None),
    ("bsq", 8),
    ("bsq", 2),
    ("bsq", 40),
]


def as_on_disk(
    values: NDArray[np.generic], interleave: Interleave, lines: int | None
) -> NDArray[np.generic]:
    """`(band, row, col)` one after the other."""
    step = lines or values.shape[1]
    groups = (values[:, row : row + step] for row in range(0, values.shape[1], step))
    found = [group.transpose(ORDERS[interleave]).ravel() for group in groups]
    return np.concatenate(found).astype(values.dtype)  # joining them loses their byte order


def write_cube(
    path: Path, interleave: Interleave, dtype: str, lines: int | None = None
) -> tuple[RawCube, NDArray[np.generic]]:
    """A cube of random numbers behind five other bytes."""
    cube = np.random.default_rng(0).integers(0, 8000, (7, 31, 45)).astype(dtype)
    path.write_bytes(b"12345" + as_on_disk(cube, interleave, lines).tobytes())
    return RawCube(str(path), 7, 31, 45, dtype, 5, interleave, lines), cube


@pytest.mark.parametrize(("interleave", "lines"), LAYOUTS)
@pytest.mark.parametrize("dtype", ["<u2", ">i2", "<f4", ">f8"])
@pytest.mark.parametrize("piece", [1, 3000, 2**22])
def test_windows_and_bands(
    interleave: Interleave,
    lines: int | None,
    dtype: str,
    piece: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(rawcube._PIECE_BYTES, interleave, piece)
    raw, cube = write_cube(tmp_path / "a.raw", interleave, dtype, lines)
    for window in WINDOWS:
        for bands in BANDS:
            found = raw.read(window, bands)
            assert found.dtype.isnative
            assert np.array_equal(found, cube[bands][:, *window.slices])
            raw.prefetch(window)  # hints: they must only do no harm
            raw.release(window)


@pytest.mark.parametrize(("interleave", "lines"), LAYOUTS)
@pytest.mark.parametrize("window", [Window(3, 5, 4, 6), Window(7, 0, 24, 45), Window(0, 0, 31, 1)])
def test_the_system_is_asked_for_all_lines_of_a_window_bit_by_bit(
    interleave: Interleave,
    lines: int | None,
    window: Window,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(pagecache, "_ASKED_BYTES", 100)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, size, __: asked.append((at, size)))
    raw, cube = write_cube(tmp_path / "a.raw", interleave, "<u2", lines)
    raw.prefetch(window)
    found = {at + byte for at, size in asked for byte in range(size)}
    assert sum(size for _, size in asked) == len(found)  # nothing twice
    assert max(size for _, size in asked) == 100
    asked_for = np.zeros(cube.shape, bool)
    asked_for[:, window.slices[0]] = True
    places = np.flatnonzero(as_on_disk(asked_for, interleave, lines))
    assert found == {5 + 2 * int(place) + byte for place in places for byte in (0, 1)}


@pytest.mark.parametrize(("interleave", "lines"), LAYOUTS)
def test_the_system_need_not_keep_the_lines_of_a_window(
    interleave: Interleave, lines: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same that it was asked for; of lines that are read in parts somebody needs the rest."""
    told: dict[int, set[int]] = {os.POSIX_FADV_WILLNEED: set(), os.POSIX_FADV_DONTNEED: set()}
    monkeypatch.setattr(
        os, "posix_fadvise", lambda _, at, size, advice: told[advice].update(range(at, at + size))
    )
    raw, _ = write_cube(tmp_path / "a.raw", interleave, "<u2", lines)
    raw.release(Window(3, 5, 4, 6))
    assert not told[os.POSIX_FADV_DONTNEED]
    raw.prefetch(Window(7, 0, 20, 45))
    raw.release(Window(7, 0, 20, 45))
    assert len(told[os.POSIX_FADV_DONTNEED]) == 20 * 45 * 7 * 2
    assert told[os.POSIX_FADV_DONTNEED] == told[os.POSIX_FADV_WILLNEED]


def test_lines_that_lie_together_are_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bands of them, for the sake of most: a strip of a GeoTIFF each would be a read."""
    raw, cube = write_cube(tmp_path / "a.raw", "bsq", "<u2", 8)
    reads: list[int] = []
    preadv = os.preadv

    def counted(file: int, buffers: list[memoryview], place: int) -> int:
        reads.append(place)
        return preadv(file, buffers, place)

    monkeypatch.setattr(os, "preadv", counted)
    for window, bands, expected in (
        (Window(0, 0, 31, 45), range(7), 4),
        (Window(8, 3, 8, 42), [0, 2, 5], 1),
        (Window(8, 0, 8, 45), [4], 1),
        (Window(6, 0, 9, 45), [0, 2, 5], 6),
    ):
        reads.clear()
        assert np.array_equal(raw.read(window, bands), cube[list(bands)][:, *window.slices])
        assert len(reads) == expected


@pytest.mark.parametrize("interleave", ORDERS)
def test_pieces_lie_below_each_other(
    interleave: Interleave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rawcube._PIECE_BYTES, interleave, 3 * 45 * 7 * 2)
    raw, cube = write_cube(tmp_path / "a.raw", interleave, "<u2")
    pieces = [(piece.window, piece.values.copy()) for piece in raw.pieces(WINDOWS[1], range(7))]
    assert [window.rows for window, _ in pieces] == [3, 3, 3, 2]
    assert all(window.cols == 40 for window, _ in pieces)
    assert np.array_equal(
        np.concatenate([values for _, values in pieces], axis=1), cube[:, *WINDOWS[1].slices]
    )


@pytest.mark.parametrize("interleave", ORDERS)
def test_a_file_that_becomes_shorter_is_named(interleave: Interleave, tmp_path: Path) -> None:
    """An error that can be caught: a memory map would end the process."""
    raw, cube = write_cube(tmp_path / "a.raw", interleave, "<u2")
    with (tmp_path / "a.raw").open("r+b") as file:
        file.truncate(5 + cube.nbytes - 10)
    with pytest.raises(InputError, match=r"a\.raw: rows 0 to 30 cannot be read: .*shorter"):
        raw.read(WINDOWS[0], range(7))
