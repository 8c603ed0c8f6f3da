"""Raw cubes are read as they lie: any interleave, byte order, window, choice of bands."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hsiclust import envi
from hsiclust.envi import Interleave, RawCube
from hsiclust.errors import InputError
from hsiclust.grid import Window

ORDERS: dict[Interleave, tuple[int, int, int]] = {
    "bsq": (0, 1, 2),
    "bil": (1, 0, 2),
    "bip": (1, 2, 0),
}
WINDOWS = [Window(0, 0, 31, 45), Window(3, 2, 11, 40), Window(5, 30, 20, 7), Window(30, 44, 1, 1)]
BANDS = [list(range(7)), [1, 2, 3], [5, 2, 6], [4]]


def write_cube(
    path: Path, interleave: Interleave, dtype: str
) -> tuple[RawCube, NDArray[np.generic]]:
    """A cube of random numbers behind five other bytes."""
    cube = np.random.default_rng(0).integers(0, 8000, (7, 31, 45)).astype(dtype)
    path.write_bytes(b"12345" + cube.transpose(ORDERS[interleave]).tobytes())
    return RawCube(str(path), 7, 31, 45, dtype, 5, interleave), cube


@pytest.mark.parametrize("interleave", ORDERS)
@pytest.mark.parametrize("dtype", ["<u2", ">i2", "<f4", ">f8"])
@pytest.mark.parametrize("piece", [1, 3000, 2**22])
def test_windows_and_bands(
    interleave: Interleave,
    dtype: str,
    piece: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(envi._PIECE_BYTES, interleave, piece)
    raw, cube = write_cube(tmp_path / "a.raw", interleave, dtype)
    for window in WINDOWS:
        for bands in BANDS:
            found = raw.read(window, bands)
            assert found.dtype.isnative
            assert np.array_equal(found, cube[bands][:, *window.slices])
            raw.prefetch(window)  # a hint: it must only do no harm


@pytest.mark.parametrize("interleave", ORDERS)
def test_the_system_is_asked_for_all_lines_of_a_window_bit_by_bit(
    interleave: Interleave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(envi, "_ASKED_BYTES", 100)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, size, __: asked.append((at, size)))
    raw, cube = write_cube(tmp_path / "a.raw", interleave, "<u2")
    window = Window(3, 5, 4, 6)
    raw.prefetch(window)
    found = {at + byte for at, size in asked for byte in range(size)}
    assert sum(size for _, size in asked) == len(found)  # nothing twice
    assert max(size for _, size in asked) == 100
    order = ORDERS[interleave]
    places = np.arange(cube.size).reshape([cube.shape[axis] for axis in order])
    lines = places.transpose(np.argsort(order))[:, window.slices[0]].ravel()
    assert found == {5 + 2 * int(place) + byte for place in lines for byte in (0, 1)}


@pytest.mark.parametrize("interleave", ORDERS)
def test_pieces_lie_below_each_other(
    interleave: Interleave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(envi._PIECE_BYTES, interleave, 3 * 45 * 7 * 2)
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
