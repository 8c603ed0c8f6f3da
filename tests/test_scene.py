import gzip
import os
import pickle
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from conftest import TRANSFORM, UTM, fields_cube, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import netcdf_file

from hsiclust.api import predict
from hsiclust.datafile import files_of
from hsiclust.demonstration import demo_scene
from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError
from hsiclust.facts import info
from hsiclust.grid import Window
from hsiclust.predictoptions import PredictOptions
from hsiclust.rasters import open_raster
from hsiclust.rawcube import RawCube
from hsiclust.scene import Scene
from hsiclust.tiling import TileOptions, tile
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

ENVI_TYPES = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12}
AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write_envi(
    path: Path,
    cube: NDArray[np.generic],
    interleave: str = "bsq",
    *,
    byte_order: int = 0,
    offset: int = 0,
    extra: str = "",
    compress: bool = False,
) -> Path:
    """Write `(band, row, col)` as raw ENVI by hand, independently of the reader."""
    dtype = cube.dtype.newbyteorder(">" if byte_order else "<")
    data = b"\xab" * offset + cube.transpose(AXES[interleave]).astype(dtype).tobytes()
    path.write_bytes(gzip.compress(data) if compress else data)
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {cube.shape[2]}\nlines = {cube.shape[1]}\nbands = {cube.shape[0]}\n"
        f"header offset = {offset}\nfile type = ENVI Standard\n"
        f"data type = {ENVI_TYPES[cube.dtype.name]}\ninterleave = {interleave}\n"
        f"byte order = {byte_order}\n" + (f"file compression = {int(compress)}\n") + extra
    )
    return path


def test_it_is_said_that_a_bad_bands_list_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(write_envi(tmp_path / "a.img", fields_cube()[0], extra="bbl = {1, 0}\n"))
    said = f"{path}: bbl in its header is ignored: 2 values between commas are found, 12 expected"
    engine = EngineOptions(threads=1)
    model = tmp_path / "a.safetensors"
    options = TrainOptions(method="kmeans", classes=3, steps=2, engine=engine)
    for use in (
        lambda: info(path),
        lambda: train([path], model, options),
        lambda: predict(path, model, tmp_path / "map.tif", PredictOptions(engine=engine)),
        lambda: tile(path, tmp_path / "tiles.zarr", TileOptions(engine=engine)),
    ):
        caplog.clear()
        use()
        assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [said]


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("byte_order", [0, 1])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint16"])
def test_raw_envi_reads_what_gdal_reads(
    tmp_path: Path, interleave: str, byte_order: int, dtype: str
) -> None:
    cube = fields_cube(13, 17, 5)[0].astype(dtype)
    path = write_envi(tmp_path / "a.img", cube, interleave, byte_order=byte_order, offset=37)
    scene = Scene.open(path)
    assert isinstance(scene.reader, RawCube)
    assert scene.layout == f"raw ENVI {interleave.upper()}"
    block = scene.read()
    assert block.dtype == np.dtype(dtype)
    assert block.dtype.isnative
    with open_raster(str(path)) as dataset:
        assert np.array_equal(block, dataset.read())
    assert np.array_equal(block, cube)


def envi_that_says(folder: Path, cube: NDArray[np.generic], said: str, otherwise: str) -> Path:
    """A big-endian BIL with another entry in its header."""
    path = write_envi(folder / "a.img", cube, "bil", byte_order=1, offset=37)
    header = path.with_suffix(".hdr")
    assert said in header.read_text()
    header.write_text(header.read_text().replace(said, otherwise))
    return path


@pytest.mark.parametrize(
    ("said", "otherwise"),
    [
        ("header offset = 37", "header offset = 37.0"),
        ("header offset = 37", "header offset = 37 ; bytes"),
        ("byte order = 1", "byte order = 1.0"),
        ("byte order = 1", "byte order = 1 ; big endian"),
        ("interleave = bil", "interleave = BIL ; lines"),
        ("interleave = bil", "interleave = "),
        ("data type = 2", "data type = 2.0"),
    ],
)
def test_header_entries_are_taken_as_gdal_takes_them(
    tmp_path: Path, said: str, otherwise: str
) -> None:
    cube = fields_cube(13, 17, 5)[0].astype("int16")
    path = envi_that_says(tmp_path, cube, said, otherwise)
    with open_raster(str(path)) as dataset:
        expected = dataset.read()
    assert np.array_equal(Scene.open(path).read(), expected)
    assert np.array_equal(expected, cube) or otherwise == "interleave = "


@pytest.mark.parametrize(
    ("said", "otherwise"),
    [
        ("interleave = bil", "interleave = foo"),
        ("header offset = 37", "header offset = {37}"),
        ("byte order = 1", "byte order = big"),
        ("file compression = 0", "file compression = yes"),
        ("file compression = 0", "data ignore value = {-9999}"),
        ("file compression = 0", "data ignore value = none"),
    ],
)
def test_a_header_that_does_not_tell_where_the_pixels_lie(
    tmp_path: Path, said: str, otherwise: str
) -> None:
    """GDAL would read something else, and say nothing."""
    cube = fields_cube(13, 17, 5)[0].astype("int16")
    path = envi_that_says(tmp_path, cube, said, otherwise)
    with pytest.raises(InputError, match=re.escape(f"a.img: its header has {otherwise}; ")):
        Scene.open(path)


@pytest.mark.parametrize("spelled", [str.upper, str.title])
def test_names_of_header_fields_in_any_case(tmp_path: Path, spelled: Callable[[str], str]) -> None:
    cube = fields_cube(5, 6, 3)[0].astype("int16")
    path = write_envi(tmp_path / "a.img", cube, "bil", byte_order=1, extra="bbl = {1, 0, 1}\n")
    header = path.with_suffix(".hdr")
    first, *lines = header.read_text().splitlines()
    parts = (line.partition(" = ") for line in lines)
    fields = [f"{spelled(key)}{sign}{value}" for key, sign, value in parts]
    header.write_text("\n".join([first, *fields]))
    scene = Scene.open(path)
    assert scene.layout == "raw ENVI BIL"
    assert scene.bands.usable() == (0, 2)
    assert np.array_equal(scene.read(), cube)


def test_a_header_that_is_not_utf8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cube = fields_cube(5, 6, 3)[0].astype("int16")
    path = write_envi(tmp_path / "a.img", cube, extra="wavelength = {400, 500, 600}\n")
    with path.with_suffix(".hdr").open("ab") as header:
        header.write("sensor type = Süd\nband names = {bänd 1, bänd 2, bänd 3}\n".encode("latin-1"))
    facts = info(str(path))
    assert facts["wavelengths_nm"] == [400, 500, 600]
    assert "a.img: its band names are ignored: they are not UTF-8 text" in caplog.text
    assert np.array_equal(Scene.open(path).read(), cube)


@pytest.mark.parametrize(
    ("interleave", "gaps", "layout"),
    [("bsq", (0, 0), "raw ENVI BSQ"), ("bil", (8, 4), "ENVI in"), ("bip", (8, 4), "ENVI in")],
)
def test_gaps_around_lines_are_skipped(
    tmp_path: Path, interleave: str, gaps: tuple[int, int], layout: str
) -> None:
    cube = fields_cube(13, 17, 5)[0].astype("int16")
    said = f"major frame offsets = {{{gaps[0]}, {gaps[1]}}}\nminor frame offsets = {{0, 0}}\n"
    path = write_envi(tmp_path / "a.img", cube, interleave, extra=said)
    frames = (frame.tobytes() for frame in cube.transpose(AXES[interleave]))
    path.write_bytes(b"".join(b"x" * gaps[0] + frame + b"y" * gaps[1] for frame in frames))
    scene = Scene.open(path)
    assert scene.layout.startswith(layout)
    assert np.array_equal(scene.read(), cube)


@pytest.mark.parametrize(
    ("interleave", "said"),
    [
        ("bsq", "major frame offsets = {8, 4}"),
        ("bil", "major frame offsets = {8}"),
        ("bil", "minor frame offsets = {0, 4}"),
    ],
)
def test_gaps_that_gdal_takes_for_pixels_are_refused(
    tmp_path: Path, interleave: str, said: str
) -> None:
    cube = fields_cube(13, 17, 5)[0].astype("int16")
    path = write_envi(tmp_path / "a.img", cube, interleave, extra=f"{said}\n")
    path.write_bytes(bytes(2**16))  # as large as it is with any gaps
    with pytest.raises(InputError, match=re.escape(f"a.img: its header has {said}; ")):
        Scene.open(path)


def test_a_header_without_data_type(tmp_path: Path) -> None:
    """GDAL would read bytes."""
    path = envi_that_says(tmp_path, fields_cube(13, 17, 5)[0], "data type = 2\n", "")
    with pytest.raises(InputError, match=r"a\.img: its header has no data type"):
        Scene.open(path)


@pytest.mark.parametrize("said", ["-9999", "-9.999e3", " -9999.0 ; none", "nan", "-.5", "-Inf"])
def test_a_nodata_that_is_a_number(tmp_path: Path, said: str) -> None:
    path = write_envi(
        tmp_path / "a.img",
        fields_cube(5, 6, 3)[0].astype(np.float32),
        extra=f"data ignore value = {said}\n",
    )
    assert repr(Scene.open(path).nodata) == repr(float(said.partition(";")[0]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data(), interleave=st.sampled_from(["bsq", "bil", "bip"]))
def test_windows_and_bands_of_a_raw_cube(
    tmp_path: Path, data: st.DataObject, interleave: str
) -> None:
    cube = fields_cube(9, 11, 6)[0]
    scene = Scene.open(write_envi(tmp_path / f"{interleave}.img", cube, interleave))
    row, col = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 10))
    window = Window(
        row, col, data.draw(st.integers(1, 9 - row)), data.draw(st.integers(1, 11 - col))
    )
    bands = data.draw(st.lists(st.integers(0, 5), min_size=1, unique=True))
    expected = cube[bands][(..., *window.slices)]
    assert np.array_equal(scene.read(window, bands), expected)


def test_compressed_envi_goes_through_gdal(tmp_path: Path) -> None:
    cube = fields_cube(20, 30, 4)[0]
    scene = Scene.open(write_envi(tmp_path / "a.bsq", cube, compress=True))
    assert not isinstance(scene.reader, RawCube)
    assert "gzip" in scene.layout
    assert not list(tmp_path.glob("*.properties"))
    assert np.array_equal(scene.read(Window(3, 4, 10, 11), (2, 0)), cube[[2, 0], 3:13, 4:15])


def test_a_compression_that_geotiff_does_not_have(tmp_path: Path) -> None:
    cube = fields_cube(20, 30, 4)[0]
    plain, packed = write_raster(tmp_path / "a.tif", cube), tmp_path / "a.mrf"
    rasterio.shutil.copy(plain, packed, driver="MRF", COMPRESS="PNG")
    scene = Scene.open(packed)
    assert scene.layout.endswith("PIXEL-interleaved, png")
    assert np.array_equal(scene.read(Window(3, 4, 10, 11), (2, 0)), cube[[2, 0], 3:13, 4:15])


@pytest.mark.parametrize("name", ["a.img", "a.bsq", "a.hyspex", "a"])
def test_the_header_stands_for_its_data_file(tmp_path: Path, name: str) -> None:
    cube = fields_cube(5, 6, 3)[0]
    path = write_envi(tmp_path / name, cube)
    scene = Scene.open(path.with_suffix(".hdr"))
    assert scene.path == str(path)
    assert np.array_equal(scene.read(), cube)


def test_header_appended_to_the_data_files_name(tmp_path: Path) -> None:
    cube = fields_cube(5, 6, 3)[0]
    path = write_envi(tmp_path / "a.bsq", cube)
    header = path.with_suffix(".hdr").rename(tmp_path / "a.bsq.hdr")
    assert np.array_equal(Scene.open(header).read(), cube)
    assert np.array_equal(Scene.open(path).read(), cube)


def test_header_without_data_file(tmp_path: Path) -> None:
    path = write_envi(tmp_path / "a.img", fields_cube(5, 6, 3)[0])
    path.unlink()
    (tmp_path / "a.refl").touch()
    with pytest.raises(InputError, match=r"no data file beside.*\.img.*name the data file itself"):
        Scene.open(path.with_suffix(".hdr"))


def test_a_cut_file_is_named_with_its_numbers(tmp_path: Path) -> None:
    path = write_envi(tmp_path / "a.img", fields_cube(5, 6, 3)[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.img: the file holds 179 bytes.*180"):
        Scene.open(path)


def test_a_cut_compressed_file_is_named(tmp_path: Path) -> None:
    """GDAL would give zeros for what is missing."""
    cube = fields_cube(20, 30, 4)[0]
    path = write_envi(tmp_path / "a.bsq", cube, compress=True)
    whole = path.read_bytes()
    for missing in (1, 4, 8):  # of the checksum and size at the end: the pixels are all there
        path.write_bytes(whole[:-missing])
        assert np.array_equal(Scene.open(path).read(), cube)
    for length in (3, 12, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.bsq"):
            Scene.open(path)
    with pytest.raises(InputError, match=r"a\.bsq: cannot be decompressed, or is cut short"):
        Scene.open(path)
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-5]))
    with pytest.raises(InputError, match=r"a\.bsq: 5 bytes less are compressed in it"):
        Scene.open(path)


def test_a_file_compressed_in_parts_is_whole(tmp_path: Path) -> None:
    cube = fields_cube(20, 30, 4)[0]
    path = write_envi(tmp_path / "a.bsq", cube, compress=True)
    data = gzip.decompress(path.read_bytes())
    for parts in ((data[:700], data[700:]), (data, b"more")):
        path.write_bytes(b"".join(map(gzip.compress, parts)))
        assert np.array_equal(Scene.open(path).read(), cube)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(30.0, -0.0, 383472.37, -0.0, -30.0, 5818302.35),
        Affine.translation(4e5, 5e6) @ Affine.rotation(17.3) @ Affine.scale(2.5, -2.5),
        Affine(1.0, 0.0, 3.0, 0.0, 1.0, 4.0),
    ],
)
def test_the_grid_is_the_files_own(tmp_path: Path, transform: Affine) -> None:
    path = write_raster(tmp_path / "a.tif", fields_cube(7, 9, 3)[0], transform=transform)
    grid = Scene.open(path).grid
    assert (grid.rows, grid.cols) == (7, 9)
    assert grid.transform == transform
    assert grid.crs == UTM


def test_a_scene_whose_place_is_no_number(tmp_path: Path) -> None:
    place = "map info = {UTM, 1, 1, nan, 4600000, 30, 30, 33, North, WGS-84}\n"
    path = write_envi(tmp_path / "a.img", fields_cube(5, 6, 3)[0], extra=place)
    with pytest.raises(InputError, match=r"a\.img: its place is no number: \(nan, 30\.0"):
        Scene.open(path)


def test_a_scene_whose_pixels_have_no_area(tmp_path: Path) -> None:
    place = "map info = {UTM, 1, 1, 383000, 4600000, 0, 30, 33, North, WGS-84}\n"
    path = write_envi(tmp_path / "a.img", fields_cube(5, 6, 3)[0], extra=place)
    with pytest.raises(InputError, match=r"a\.img: its pixels have no area: \(383000\.0, -?0\.0"):
        Scene.open(path)


def test_a_scene_without_georeference_opens_without_a_warning(tmp_path: Path) -> None:
    scene = Scene.open(write_envi(tmp_path / "a.img", fields_cube(7, 9, 3)[0]))
    assert not scene.grid.georeferenced
    assert scene.grid.transform == Affine.identity()


def test_envi_header_fields(tmp_path: Path) -> None:
    extra = (
        "wavelength units = Nanometers\nwavelength = {400, 500.5, 600}\nfwhm = {9, 9, 9}\n"
        "bbl = {1, 0, 1}\ndata ignore value = -99\n"
    )
    path = write_envi(tmp_path / "a.img", fields_cube(7, 9, 3)[0], extra=extra)
    scene = Scene.open(path)
    assert scene.nodata == -99
    assert scene.bands.wavelengths == (400.0, 500.5, 600.0)
    assert scene.bands.usable() == (0, 2)
    assert Scene.open(path, nodata=7).nodata == 7


@pytest.mark.parametrize("suffix", ["tif", "vrt"])
@pytest.mark.parametrize("units", ["wavelength_units", "wavelength units"])
def test_envi_header_fields_of_other_formats(tmp_path: Path, suffix: str, units: str) -> None:
    path = write_raster(tmp_path / "a.tif", fields_cube(5, 6, 3)[0])
    if suffix == "vrt":
        rasterio.shutil.copy(path, path := tmp_path / "a.vrt", driver="VRT")
    with rasterio.open(path, "r+") as dataset:
        lists = {"wavelength": "{0.42, 0.5, 1.3}", "fwhm": "{.01, .01, .02}", "bbl": "{1, 1, 0}"}
        dataset.update_tags(ns="ENVI", **lists, **{units: "Micrometers"})
    bands = Scene.open(path).bands
    assert (bands.wavelengths, bands.fwhm) == ((420.0, 500.0, 1300.0), (10.0, 10.0, 20.0))
    assert (bands.units, bands.usable()) == ("Micrometers", (0, 1))


def test_the_demonstration_scene() -> None:
    scene = Scene.open(demo_scene())
    assert (scene.bands.count, scene.grid.rows, scene.grid.cols) == (200, 145, 145)
    assert scene.bands.wavelengths is not None
    assert scene.bands.wavelengths[0] == pytest.approx(400.02)
    assert scene.bands.fwhm is not None
    assert scene.nbytes == 145 * 145 * 200 * 2


def test_valid_pixels() -> None:
    scene = Scene.open(demo_scene(), nodata=-9999)
    block = np.ones((2, 2, 3), np.float32)
    block[0, 0, 0], block[1, 0, 1], block[1, 1, 2] = -9999, np.nan, np.inf
    assert np.array_equal(scene.holds_data(block), [[False, False, True], [True, True, False]])
    # -9999 is no value of an unsigned type, so there no pixel can be without data
    assert scene.holds_data(np.ones((2, 2, 3), np.uint16)).all()


def test_large_float_nodata_is_found(tmp_path: Path) -> None:
    cube = np.ones((2, 3, 4), np.float32)
    cube[0, 1, 1] = np.finfo(np.float32).min
    path = write_raster(tmp_path / "a.tif", cube, nodata=float(np.finfo(np.float32).min))
    scene = Scene.open(path)
    assert scene.holds_data(scene.read()).sum() == 11


def test_one_scene_for_threads_and_processes(fields: tuple[Path, Path]) -> None:
    scene = Scene.open(fields[0])
    copy = pickle.loads(pickle.dumps(scene))  # noqa: S301 - our own bytes
    assert copy == scene
    expected = scene.read()
    windows = [Window(row, 0, 1, 70) for row in range(60)] * 4
    with ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(scene.read, windows))
    for window, row in zip(windows, rows, strict=True):
        assert np.array_equal(row, expected[:, window.row : window.row + 1])


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"nonsense", "cannot be opened")]
)
def test_files_that_are_no_scene(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Scene.open(path)


@pytest.mark.parametrize("dims", [("band", "y", "x"), ("y", "x", "band"), ("y", "band", "x")])
def test_a_classic_netcdf_is_not_read_along_a_wrong_axis(
    tmp_path: Path, dims: tuple[str, ...]
) -> None:
    cube = fields_cube(5, 6, 3)[0].astype("int16")
    path = tmp_path / "a.nc"
    with netcdf_file(path, "w") as file:
        for name, length in zip(("band", "y", "x"), cube.shape, strict=True):
            file.createDimension(name, length)
        values = cube.transpose([("band", "y", "x").index(name) for name in dims])
        file.createVariable("cube", "i2", dims)[:] = values
    if dims[1] == "band":
        with pytest.raises(InputError, match=r"a\.nc: GDAL takes its dimension y for the bands; "):
            Scene.open(path)
    else:
        south_up = Scene.open(path).read()[:, ::-1]  # what GDAL assumes where nothing tells
        assert np.array_equal(south_up, cube)


def test_complex_values_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((2, 3, 4), np.complex64))
    with pytest.raises(InputError, match="complex64"):
        Scene.open(path)


def test_complex_integers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=6,
        height=5,
        count=2,
        dtype="complex_int16",
        transform=TRANSFORM,
    ):
        pass
    with pytest.raises(InputError, match="holds complex_int16 values"):
        Scene.open(path)


def test_a_source_of_a_vrt_that_is_gone_is_named_every_time(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", fields_cube()[0])
    shutil.copy(source, tmp_path / "other.tif")
    path = tmp_path / "scene.vrt"
    rasterio.shutil.copy(source, path, driver="VRT")
    before, name, after = path.read_text().rpartition(">scene.tif<")
    path.write_text(before + name.replace("scene", "other") + after)
    scene = Scene.open(path)
    (tmp_path / "other.tif").unlink()
    for _ in range(3):  # what fails is tried again
        with pytest.raises(InputError, match=r"scene\.vrt: rows 0 to 59.*other\.tif"):
            scene.read()


def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    cube = fields_cube(64, 64, 3)[0]
    path = write_raster(tmp_path / "a.tif", cube, compress="deflate", interleave="band")
    data = bytearray(path.read_bytes())
    data[600:4000] = b"\x00" * 3400
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"a\.tif: rows 0 to 63.*cannot be read"):
        Scene.open(path).read()


@pytest.mark.parametrize(
    ("profile", "blocks"),
    [
        ({"blockysize": 5}, (1, 70)),
        ({"blockysize": 5, "compress": "deflate"}, (5, 70)),
        ({"tiled": True, "blockxsize": 32, "blockysize": 16}, (16, 32)),
        ({"tiled": True, "blockxsize": 128, "blockysize": 16}, (16, 70)),
    ],
)
def test_blocks_of_a_raster(
    tmp_path: Path, profile: dict[str, object], blocks: tuple[int, int]
) -> None:
    path = write_raster(tmp_path / "a.tif", fields_cube()[0], **profile)
    assert Scene.open(path).blocks == blocks


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_blocks_of_a_raw_cube_are_lines(tmp_path: Path, interleave: str) -> None:
    path = write_envi(tmp_path / "a.img", fields_cube()[0], interleave)
    assert Scene.open(path).blocks == (1, 70)


def test_a_vrt_of_a_name_that_is_no_text_is_left_to_who_reads_it(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"sc\xe9ne.vrt")
    path.write_text("<VRTDataset/>")
    assert files_of(path, None) == [path]
    with pytest.raises(InputError, match="not UTF-8 text"):
        Scene.open(path)


@pytest.mark.timeout(20)
def test_pipes_and_devices_are_no_scenes(tmp_path: Path) -> None:
    """To open a pipe waits for who writes to it."""
    os.mkfifo(tmp_path / "scene.tif")
    (tmp_path / "link.tif").symlink_to("scene.tif")
    for name in (tmp_path / "scene.tif", tmp_path / "link.tif", "/dev/null"):
        for opened in (Scene.open, info):
            with pytest.raises(InputError, match=f"^{name}: is a pipe or a device; save what"):
                opened(str(name))


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_hints_to_the_system_never_fail(tmp_path: Path, compress: str) -> None:
    path = write_raster(tmp_path / "a.tif", fields_cube()[0], compress=compress)
    scene = Scene.open(path)
    assert scene.file == str(path)
    path.unlink()
    scene.prefetch(scene.grid.window)
    scene.release(scene.grid.window)
    assert scene.file is None
