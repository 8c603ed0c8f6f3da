"""Uncompressed GeoTIFFs are read without GDAL, and GDAL says the same of them."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import fields_cube, write_raster
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from hsiclust import rawcube
from hsiclust.errors import InputError
from hsiclust.grid import Window
from hsiclust.rawcube import RawCube
from hsiclust.scene import Scene
from hsiclust.tiledcube import TiledCube

WINDOWS = [Window(0, 0, 60, 70), Window(7, 3, 21, 60), Window(59, 69, 1, 1), Window(10, 0, 5, 70)]


def same_as_gdal(path: Path) -> Scene:
    """The scene, when all that is read of it is what GDAL reads."""
    scene = Scene.open(path)
    with rasterio.open(path) as dataset:
        whole = Window(0, 0, dataset.height, dataset.width)
        for window in (whole, *filter(None, map(whole.shared_with, WINDOWS))):
            for bands in (list(range(dataset.count)), [3, 2], [3]):
                expected = dataset.read(
                    [band + 1 for band in bands], window=RasterioWindow.from_slices(*window.slices)
                )
                found = scene.read(window, bands)
                assert found.dtype == expected.dtype
                assert np.array_equal(found, expected)
    return scene


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
@pytest.mark.parametrize("lines", [1, 7, 60])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_strips_that_follow_each_other_are_a_raw_cube(
    tmp_path: Path, dtype: str, endianness: str, lines: int, interleave: str
) -> None:
    cube = fields_cube()[0].astype(dtype)
    path = write_raster(
        tmp_path / "a.tif",
        cube,
        interleave=interleave,
        blockysize=lines,
        ENDIANNESS=endianness,
    )
    scene = same_as_gdal(path)
    assert isinstance(scene.reader, RawCube)
    assert scene.reader.interleave == {"pixel": "bip", "band": "bsq"}[interleave]
    assert scene.reader.dtype[0] == {"LITTLE": "<", "BIG": ">"}[endianness]
    assert scene.layout.endswith(f", {interleave.upper()}-interleaved, uncompressed")
    assert scene.blocks == (1, 70)


@pytest.mark.parametrize("lines", [1, 7, 16])
def test_strips_of_all_bands_after_each_other(tmp_path: Path, lines: int) -> None:
    """As a program writes them that goes through a scene once, window by window."""
    cube = fields_cube()[0]
    path = write_raster(tmp_path / "a.tif", cube, interleave="band", blockysize=lines)
    with rasterio.open(path) as dataset:
        profile = dataset.profile
    path = tmp_path / "b.tif"
    with rasterio.open(path, "w", **profile) as dataset:
        for row in range(0, 60, lines):
            part = cube[:, row : row + lines]
            dataset.write(part, window=RasterioWindow(0, row, 70, part.shape[1]))
    scene = same_as_gdal(path)
    assert isinstance(scene.reader, RawCube)
    assert scene.reader.interleave == ("bil" if lines == 1 else "bsq")
    assert scene.blocks == (lines, 70)


@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
@pytest.mark.parametrize("tile", [(16, 16), (32, 64), (64, 48), (128, 64)])
@pytest.mark.parametrize("piece", [1, 5000, 2**22])
def test_tiles_of_all_bands_are_raw_cubes(
    tmp_path: Path,
    endianness: str,
    tile: tuple[int, int],
    piece: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those at the right and at the bottom reach beyond the scene."""
    monkeypatch.setitem(rawcube._PIECE_BYTES, "bip", piece)
    monkeypatch.setattr("hsiclust.rawtiff._SMALLEST_TILE", 16 * 16 * 12 * 2)
    path = write_raster(
        tmp_path / "a.tif",
        fields_cube()[0],
        interleave="pixel",
        tiled=True,
        blockysize=tile[0],
        blockxsize=tile[1],
        ENDIANNESS=endianness,
    )
    scene = same_as_gdal(path)
    assert isinstance(scene.reader, TiledCube)
    assert scene.blocks == (min(tile[0], 60), min(tile[1], 70))
    rows, cols = scene.piece_shape(12)
    assert tile[0] % rows == 0
    for window in WINDOWS:
        pieces = list(scene.pieces(window, [0, 7]))
        assert sum(piece.window.pixels for piece in pieces) == window.pixels
        assert all(piece.window.rows <= rows and piece.window.cols <= cols for piece in pieces)


def tiled(path: Path) -> Path:
    """Fields in tiles of 32, all bands in each."""
    layout = {"interleave": "pixel", "tiled": True, "blockysize": 32, "blockxsize": 32}
    return write_raster(path, fields_cube()[0].astype(np.float64), **layout)


def test_small_tiles_are_left_to_gdal(tmp_path: Path) -> None:
    layout = {"interleave": "pixel", "tiled": True, "blockysize": 32, "blockxsize": 32}
    path = write_raster(tmp_path / "a.tif", fields_cube()[0], **layout)
    assert not isinstance(same_as_gdal(path).reader, TiledCube)


def test_the_system_is_asked_for_the_lines_of_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiled(tmp_path / "a.tif")
    asked: set[int] = set()

    def remember(_file: int, at: int, size: int, _advice: int) -> None:
        asked.update(range(at, at + size))

    monkeypatch.setattr(os, "posix_fadvise", remember)
    before = Scene.open(path).read()
    Scene.open(path).prefetch(Window(20, 40, 30, 10))
    assert len(asked) == 30 * 32 * 12 * 8  # whole lines of one tile, and of the one below
    data = bytearray(path.read_bytes())
    for place in asked:
        data[place] ^= 0xFF
    path.write_bytes(data)
    changed = (Scene.open(path).read() != before).any(axis=0)
    assert changed[20:50, 32:64].all()
    assert changed.sum() == 30 * 32


def test_the_system_need_not_keep_whole_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tile that is read in parts somebody needs the rest."""
    scene = Scene.open(tiled(tmp_path / "a.tif"))
    told: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _file, _at, size, _advice: told.append(size))
    scene.release(Window(20, 30, 30, 36))  # two columns beside a tile at either side
    assert sum(told) == 30 * 32 * 12 * 8


def test_a_tile_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif")
    scene = Scene.open(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 6 * 32 * 12 * 8)  # its last four lines are filling
    with pytest.raises(InputError, match=r"a\.tif: in the tile at row 32, column 64: .*shorter"):
        scene.read()
    with pytest.raises(InputError, match=r"a\.tif: the file holds .*cut short"):
        Scene.open(path)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_tiles_as_wide_as_the_scene(tmp_path: Path, interleave: str) -> None:
    """The last is filled up with rows that are none of the scene's."""
    wide = np.concatenate([fields_cube()[0], fields_cube()[0][:, :, :10]], axis=2)
    path = write_raster(
        tmp_path / "a.tif",
        wide,
        tiled=True,
        blockxsize=80,
        blockysize=32,
        interleave=interleave,
    )
    same_as_gdal(path)


def _sparse(path: Path, cube: NDArray[np.int16]) -> None:
    empty = cube.copy()
    empty[:, 20:40] = 0
    write_raster(path, empty, interleave="pixel", blockysize=1, SPARSE_OK=True)


def _written_backwards(path: Path, cube: NDArray[np.int16]) -> None:
    profile = {"interleave": "pixel", "blockysize": 10}
    write_raster(path, cube, **profile)
    with rasterio.open(path) as dataset:
        whole = dataset.profile
    with rasterio.open(path, "w", **whole) as dataset:
        for row in range(50, -1, -10):
            dataset.write(cube[:, row : row + 10], window=RasterioWindow(0, row, 70, 10))


def _of_twelve_bits(path: Path, cube: NDArray[np.int16]) -> None:
    write_raster(path, cube.astype(np.uint16), interleave="pixel", blockysize=1, NBITS=12)


def _of_few_bits_that_fill_their_bytes(path: Path, cube: NDArray[np.int16]) -> None:
    """Seven pixels of 15 bits take as many bytes as seven of 16."""
    narrow = cube[:, :, :7].astype(np.uint16)
    write_raster(path, narrow, interleave="band", blockysize=1, NBITS=15)


def _in_colours_of_print(path: Path, cube: NDArray[np.int16]) -> None:
    """GDAL makes others of them."""
    inks = cube[:4].astype(np.uint8)
    write_raster(path, inks, interleave="pixel", blockysize=1, photometric="CMYK")


def _with_bits_in_another_order(path: Path, cube: NDArray[np.int16]) -> None:
    """The tag PlanarConfiguration, which may be left out, becomes FillOrder 2."""
    write_raster(path, cube, interleave="pixel", blockysize=1)
    data = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    entries = range(directory + 2, directory + 2 + 12 * count, 12)
    (place,) = (entry for entry in entries if struct.unpack_from("<H", data, entry) == (284,))
    struct.pack_into("<HHIHH", data, place, 266, 3, 1, 2, 0)
    path.write_bytes(data)


def _compressed(path: Path, cube: NDArray[np.int16]) -> None:
    write_raster(path, cube, interleave="pixel", blockysize=1, compress="packbits")


def _cog(path: Path, cube: NDArray[np.int16]) -> None:
    write_raster(path, cube, driver="COG", compress="none")


@pytest.mark.parametrize(
    "write",
    [
        _sparse,
        _written_backwards,
        _of_twelve_bits,
        _of_few_bits_that_fill_their_bytes,
        _in_colours_of_print,
        _with_bits_in_another_order,
        _compressed,
        _cog,
    ],
)
def test_other_files_are_left_to_gdal(tmp_path: Path, write: object) -> None:
    assert callable(write)
    write(tmp_path / "a.tif", fields_cube()[0])
    scene = same_as_gdal(tmp_path / "a.tif")
    assert not isinstance(scene.reader, RawCube)


@pytest.mark.parametrize(
    ("few", "most", "large", "raw"),
    [
        (60, 0, 2**20, True),
        (59, 60, 1680, True),  # bytes of a strip
        (59, 60, 1681, False),
        (59, 59, 1680, False),
    ],
)
def test_a_file_of_too_many_strips_is_left_to_gdal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int, most: int, large: int, raw: bool
) -> None:
    path = write_raster(tmp_path / "a.tif", fields_cube()[0], interleave="pixel", blockysize=1)
    for name, value in (("FEW_BLOCKS", few), ("MOST_BLOCKS", most), ("LARGE_BLOCK", large)):
        monkeypatch.setattr(f"hsiclust.rawtiff._{name}", value)
    assert isinstance(Scene.open(path).reader, RawCube) == raw


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, interleave: str) -> None:
    path = write_raster(tmp_path / "a.tif", fields_cube()[0], interleave=interleave, blockysize=4)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 100)
    with pytest.raises(InputError, match=rf"a\.tif: the file holds {size - 100} bytes.*cut short"):
        Scene.open(path)
