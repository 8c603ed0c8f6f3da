"""Which pixels hold a whole spectrum, whatever says that one has none."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import TRANSFORM, UTM, write_raster
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from hsiclust.errors import InputError
from hsiclust.grid import Window
from hsiclust.rasters import GdalReader
from hsiclust.rawcube import RawCube
from hsiclust.scene import Scene
from hsiclust.validity import Fills, valid_pixels

HOLE = (slice(3, 5), slice(2, 6))


def expected() -> NDArray[np.bool_]:
    valid = np.ones((8, 9), bool)
    valid[HOLE] = False
    return valid


def holed(dtype: str, fill: float) -> NDArray[np.generic]:
    cube = np.arange(4 * 8 * 9).reshape(4, 8, 9).astype(dtype)
    cube[:, *HOLE] = fill
    return cube


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("float32", np.finfo("f4").min),
        ("float32", 1e34),
        ("float32", np.nan),
        ("float32", -np.inf),
        ("float64", np.finfo("f8").max),
        ("float64", 1e39),
    ],
)
def test_what_no_sensor_measures_is_no_data(dtype: str, fill: float) -> None:
    """Declared in other digits, or not at all."""
    cube = holed(dtype, fill)
    assert np.array_equal(valid_pixels(cube, None), expected())
    assert np.array_equal(valid_pixels(cube, float(np.float32(-3.40282e38))), expected())
    one_band = np.where(np.arange(4)[:, None, None] == 2, cube, 1).astype(dtype)
    assert np.array_equal(valid_pixels(one_band, None), expected())


def test_large_readings_are_data() -> None:
    assert valid_pixels(np.full((2, 3, 4), 1e25, np.float32), None).all()
    assert valid_pixels(np.full((2, 3, 4), 65504, np.float16), None).all()


def test_bands_with_nodata_of_their_own() -> None:
    fills = Fills.of([None, -9999.0, 0.0, -9999.0], np.dtype("int16"))
    assert fills == Fills(-9999.0, (None, None, 0.0, None))
    block = np.array([0, -9999, 0], np.int16)[:, None, None].repeat(2, axis=1)
    fills.unify(block, [3, 1, 2])
    assert block[:, 0, 0].tolist() == [0, -9999, -9999]
    assert Fills.of([None, 7.0], np.dtype("uint8")) == Fills(7.0)
    assert Fills.of([-1.0, -1.0], np.dtype("uint8")) == Fills(-1.0)  # which it cannot hold


def stacked(path: Path, parts: list[tuple[Path, str, str]]) -> Path:
    """A VRT of bands of several files: each with its type and what it says of itself."""
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}">{words}<SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{file.name}</SourceFilename>'
        f"<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (file, kind, words) in enumerate(parts, 1)
    )
    path.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="8">{bands}</VRTDataset>')
    return path


def test_a_stack_of_bands_with_and_without_nodata(tmp_path: Path) -> None:
    plain = write_raster(tmp_path / "a.tif", holed("int16", 5))
    marked = write_raster(tmp_path / "b.tif", holed("int16", -9999))
    own = "<NoDataValue>-9999</NoDataValue>"
    scene = Scene.open(
        stacked(tmp_path / "s.vrt", [(plain, "Int16", "")] * 2 + [(marked, "Int16", own)] * 2)
    )
    assert scene.nodata == -9999
    assert np.array_equal(scene.valid(scene.read(), scene.grid.window), expected())
    zero = "<NoDataValue>0</NoDataValue>"
    holes = write_raster(tmp_path / "c.tif", holed("int16", 0))
    scene = Scene.open(
        stacked(tmp_path / "t.vrt", [(holes, "Int16", zero)] + [(plain, "Int16", own)] * 3)
    )
    wanted = expected()
    wanted[0, 0] = False  # the reading of the first band there
    assert np.array_equal(scene.valid(scene.read(), scene.grid.window), wanted)
    assert scene.holds_data(Scene.open(scene.path, nodata=1e4).read()).sum() == 72


def test_bands_of_several_types_are_read_as_one_that_holds_all(tmp_path: Path) -> None:
    cube = holed("float32", 0.5)
    halves = write_raster(tmp_path / "f.tif", cube)
    wholes = write_raster(tmp_path / "i.tif", holed("int16", -7))
    scene = Scene.open(
        stacked(tmp_path / "m.vrt", [(wholes, "Int16", "")] * 2 + [(halves, "Float32", "")] * 2)
    )
    assert scene.dtype == "float32"
    found = scene.read(Window(2, 1, 4, 6), [3, 0, 2])
    assert found.dtype == np.float32
    assert np.array_equal(found[0], cube[3, 2:6, 1:7])
    assert np.array_equal(found[1], holed("float32", -7)[0, 2:6, 1:7])
    pieces = [piece.values for piece in scene.pieces(scene.grid.window, [0, 3])]
    assert np.array_equal(np.concatenate(pieces, axis=1)[1], cube[3])


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("shape", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_the_mask_of_a_file(tmp_path: Path, inside: bool, shape: dict[str, object]) -> None:
    path = tmp_path / "m.tif"
    cube = holed("int16", 0)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
        rasterio.open(
            path, "w", "GTiff", 9, 8, 4, UTM, TRANSFORM, "int16", interleave="pixel", **shape
        ) as dataset,
    ):
        dataset.write(cube)
        dataset.write_mask(expected())
    assert path.with_suffix(".tif.msk").exists() is not inside
    scene = Scene.open(path)
    window = Window(2, 1, 5, 7)
    assert np.array_equal(scene.valid(scene.read(window), window), expected()[2:7, 1:8])
    assert scene.holds_data(scene.read()).all()
    assert scene.sources == (() if inside else (f"{path}.msk",))
    shared = scene.shared_by(3)
    assert np.array_equal(shared.valid(shared.read(window), window), expected()[2:7, 1:8])
    if isinstance(shared.reader, GdalReader):  # one handle a thread, and one size of the cache
        assert shared.masking is shared.reader
        assert shared.reader.threads == 3


def test_a_file_without_a_mask_is_read_without_gdal(tmp_path: Path) -> None:
    scene = Scene.open(write_raster(tmp_path / "p.tif", holed("int16", 0), interleave="pixel"))
    assert scene.masking is None
    assert isinstance(scene.reader, RawCube)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_alone_says_where_a_scene_lies(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "n.tif", holed("int16", 0), crs=None, transform=None)
    assert Scene.open(path).loose is None
    one = [1.0] * 20
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = RPC(0, 500, 50, 1, one, one, 4, 4, 10, 1, one, one, 4, 4)
    assert Scene.open(path).loose == "rational polynomials (RPCs)"
    corners = [(0, 0), (8, 9), (0, 9)]
    points = [GroundControlPoint(row, col, col / 9, row / 8) for row, col in corners]
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, UTM)
    assert Scene.open(path).loose == "control points (GCPs)"


def test_a_container_that_is_not_there_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"gone\.h5.*: no such file"):
        Scene.open(f'HDF5:"{tmp_path}/gone.h5"://cube')
    (tmp_path / "text.nc").write_text("no netCDF")
    with pytest.raises(InputError, match="cannot be opened as a raster"):
        Scene.open(f'NETCDF:"{tmp_path}/text.nc":cube')
    assert capfd.readouterr().err == ""
