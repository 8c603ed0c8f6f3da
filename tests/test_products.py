"""HDF5 products in miniature, written in the structure that each has."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from affine import Affine
from conftest import UTM, fields_cube
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS

from hsiclust import cube as cubes
from hsiclust.cube import CubeReader
from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError
from hsiclust.facts import info
from hsiclust.falsecolour import false_colour
from hsiclust.grid import Window
from hsiclust.scene import Scene
from hsiclust.staging import TileShape
from hsiclust.tiling import TileOptions, tile

ROWS, COLS, BANDS = 30, 25, 12
CENTRES = np.linspace(400, 2400, BANDS).astype(np.float32)


def dimension(file: h5py.File, name: str, size: int) -> Any:
    """A dimension as netCDF-4 keeps it."""
    scale = file.create_dataset(name, data=np.zeros(size, np.float32))
    scale.make_scale("This is a netCDF dimension but not a netCDF variable")
    return scale


def write_emit(path: Path, cube: NDArray[np.generic]) -> Path:
    """`(band, row, col)` as an EMIT L2A granule."""
    with h5py.File(path, "w") as file:
        scales = [
            dimension(file, name, size)
            for name, size in zip(
                ("downtrack", "crosstrack", "bands"), cube.transpose(1, 2, 0).shape, strict=True
            )
        ]
        for name in ("reflectance", "reflectance_uncertainty"):
            data = file.create_dataset(
                name,
                data=cube.transpose(1, 2, 0).astype("<f4"),
                chunks=(8, 10, 5),
                compression="gzip",
            )
            data.attrs["_FillValue"] = np.float32(-9999)
            for axis, scale in enumerate(scales):
                data.dims[axis].attach_scale(scale)
        group = file.create_group("sensor_band_parameters")
        count = len(cube)
        for name, values in (
            ("wavelengths", np.linspace(381, 2493, count, dtype=np.float32)),
            ("fwhm", np.full(count, 8.5, np.float32)),
            ("good_wavelengths", (np.arange(count) != 3).astype(np.float32)),
        ):
            group.create_dataset(name, data=values).dims[0].attach_scale(scales[2])
        group["wavelengths"].attrs["units"] = "nm"
        location = file.create_group("location")
        location.create_dataset("glt_x", data=np.zeros((40, 40), np.int32))
        file.attrs["geotransform"] = np.array([10.0, 5e-4, 0.0, 50.0, 0.0, -5e-4])
        file.attrs["spatial_ref"] = CRS.from_epsg(4326).to_wkt()
    return path


def write_prisma(path: Path, vnir: NDArray[np.uint16], swir: NDArray[np.uint16]) -> Path:
    """Cubes `(band, row, col)` of both sensors, short waves first, as a PRISMA L2D product.

    The file begins with a band of each sensor that was never measured.
    """
    rows, cols = vnir.shape[1:]
    with h5py.File(path, "w") as file:
        for name, cube, low, high in (("Vnir", vnir, 400, 980), ("Swir", swir, 940, 2500)):
            stored = np.concatenate([cube, np.zeros((1, rows, cols), np.uint16)])[::-1]
            fields = file.require_group("HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields")
            fields.create_dataset(
                f"{name.upper()}_Cube", data=stored.transpose(1, 0, 2), chunks=(7, 4, cols)
            )
            centres = np.linspace(low, high, len(cube)).tolist()
            file.attrs[f"List_Cw_{name}"] = np.array([0.0, *centres[::-1]], np.float32)
            file.attrs[f"List_Fwhm_{name}"] = np.array([0.0, *[10.0] * len(cube)], np.float32)
            file.attrs[f"List_Cw_{name}_Flags"] = np.array([0, *[1] * len(cube)], np.uint8)
        file.attrs["Epsg_Code"] = np.uint32(32633)
        file.attrs["Product_ULcorner_easting"] = 400015.0
        file.attrs["Product_ULcorner_northing"] = 5799985.0
        file.attrs["Product_LRcorner_easting"] = 400015.0 + 30 * (cols - 1)
        file.attrs["Product_LRcorner_northing"] = 5799985.0 - 30 * (rows - 1)
    return path


def write_neon(path: Path, cube: NDArray[np.int16]) -> Path:
    """`(band, row, col)` as a NEON AOP reflectance tile."""
    with h5py.File(path, "w") as file:
        base = file.create_group("SERC/Reflectance")
        base.attrs["Band_Window_1_Nanometers"] = np.array([1340, 1445])
        base.attrs["Band_Window_2_Nanometers"] = np.array([1790, 1955])
        data = base.create_dataset("Reflectance_Data", data=cube.transpose(1, 2, 0))
        data.attrs["Scale_Factor"] = 10000.0
        data.attrs["Data_Ignore_Value"] = -9999.0
        spectral = base.create_group("Metadata/Spectral_Data")
        spectral["Wavelength"] = np.linspace(380, 2510, len(cube))
        spectral["FWHM"] = np.full(len(cube), 5.9)
        place = base.create_group("Metadata/Coordinate_System")
        place["Map_Info"] = (
            "UTM,  1.000,  1.000,       368000.00,       4306000.0,       1.0000000,       "
            "1.0000000,  18,  North,  WGS-84,  units=Meters"
        )
        place["EPSG Code"] = "32618"
    return path


def test_emit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0].astype(np.float32)
    path = write_emit(tmp_path / "EMIT_L2A_RFL.nc", cube)
    scene = Scene.open(path)
    assert np.array_equal(scene.read(), cube)
    assert "no place" in caplog.text
    assert not scene.grid.georeferenced
    assert scene.nodata == -9999
    assert scene.layout == "HDF5 chunks of 8 x 10 x 5, band last, gzip"
    assert scene.blocks == (8, 10)
    assert scene.bands.wavelengths is not None
    assert scene.bands.wavelengths[::11] == (381.0, 2493.0)
    assert scene.bands.fwhm == (8.5,) * BANDS
    assert scene.bands.units == "nm"
    assert scene.bands.usable() == (0, 1, 2, *range(4, BANDS))


@pytest.mark.parametrize(
    "spelling",
    [
        'NETCDF:"{}":reflectance_uncertainty',
        "NETCDF:{}:/reflectance_uncertainty",
        'HDF5:"{}"://reflectance_uncertainty',
        "netcdf:{}:reflectance_uncertainty",
    ],
)
def test_an_array_of_an_emit_file_by_name(tmp_path: Path, spelling: str) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0].astype(np.float32)
    path = write_emit(tmp_path / "a.nc", cube)
    scene = Scene.open(spelling.format(path))
    assert np.array_equal(scene.read(Window(3, 4, 5, 6), (7, 2)), cube[[7, 2], 3:8, 4:10])
    assert scene.bands.wavelengths is not None


def test_what_is_no_cube_stays_with_gdal(tmp_path: Path) -> None:
    path = write_emit(tmp_path / "a.nc", fields_cube(ROWS, COLS, BANDS)[0].astype(np.float32))
    scene = Scene.open(f'HDF5:"{path}"://location/glt_x')
    assert scene.bands.count == 1
    assert not isinstance(scene.reader, CubeReader)


def prisma_cubes() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    cube = fields_cube(ROWS, COLS, BANDS)[0].astype(np.uint16)
    cube[:, :4, :] = 0  # margin
    cube[2, 10, 10] = cube[9, 12, 12] = 0  # values
    return cube[:5], cube[5:]


def test_prisma(tmp_path: Path) -> None:
    vnir, swir = prisma_cubes()
    scene = Scene.open(write_prisma(tmp_path / "PRS_L2D.he5", vnir, swir))
    block = scene.read()
    expected = np.concatenate([vnir, swir])
    assert np.array_equal(block[:, :4], expected[:, :4])
    assert np.array_equal(block[:, 4:], np.maximum(expected[:, 4:], 1))
    assert np.array_equal(scene.holds_data(block).all(axis=1), np.arange(ROWS) >= 4)
    assert scene.grid.transform == Affine(30, 0, 400000, 0, -30, 5800000)
    assert scene.grid.crs == UTM
    assert scene.bands.wavelengths is not None
    assert scene.bands.wavelengths[0] == 400
    assert list(scene.bands.wavelengths[:5]) == sorted(scene.bands.wavelengths[:5])
    assert list(scene.bands.wavelengths[5:]) == sorted(scene.bands.wavelengths[5:])
    assert scene.bands.fwhm == (10.0,) * BANDS
    assert scene.layout == f"HDF5 chunks of 7 x 4 x {COLS}, band in the middle, uncompressed"


def test_one_sensor_of_prisma_in_gdals_spelling(tmp_path: Path) -> None:
    vnir, swir = prisma_cubes()
    path = write_prisma(tmp_path / "a.he5", vnir, swir)
    scene = Scene.open(f'HDF5:"{path}"://HDFEOS/SWATHS/PRS_L2D_HCO/Data_Fields/SWIR_Cube')
    assert np.array_equal(scene.read()[:, 4:], np.maximum(swir[:, 4:], 1))
    assert scene.bands.count == len(swir)


def test_prisma_corners_that_are_edges(tmp_path: Path) -> None:
    path = write_prisma(tmp_path / "a.he5", *prisma_cubes())
    with h5py.File(path, "r+") as file:
        file.attrs["Product_LRcorner_easting"] = 400015.0 + 30 * COLS
        file.attrs["Product_LRcorner_northing"] = 5799985.0 - 30 * ROWS
    assert Scene.open(path).grid.transform == Affine(30, 0, 400015, 0, -30, 5799985)


def test_prisma_without_a_map_grid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_prisma(tmp_path / "a.he5", *prisma_cubes())
    with h5py.File(path, "r+") as file:
        del file.attrs["Epsg_Code"]
    assert not Scene.open(path).grid.georeferenced
    assert "no place" in caplog.text
    with h5py.File(path, "r+") as file:
        file.attrs["Epsg_Code"] = -9999
    assert not Scene.open(path).grid.georeferenced


def test_neon_with_an_unknown_reference_system(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_neon(tmp_path / "NEON.h5", fields_cube(ROWS, COLS, BANDS)[0])
    with h5py.File(path, "r+") as file:
        file["SERC/Reflectance/Metadata/Coordinate_System/EPSG Code"][()] = "/etc/hosts"
    assert Scene.open(path).grid.crs is None
    assert "is not understood" in caplog.text


def test_prisma_with_too_few_wavelengths(tmp_path: Path) -> None:
    path = write_prisma(tmp_path / "a.he5", *prisma_cubes())
    with h5py.File(path, "r+") as file:
        file.attrs["List_Cw_Swir"] = np.zeros(3, np.float32)
    with pytest.raises(InputError, match=r"SWIR_Cube has 8 bands, List_Cw_Swir 3"):
        Scene.open(path)


def test_neon(tmp_path: Path) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0]
    scene = Scene.open(write_neon(tmp_path / "NEON.h5", cube))
    assert np.array_equal(scene.read(), cube)
    assert scene.dtype == "int16"
    assert scene.nodata == -9999
    assert scene.grid.transform == Affine(1, 0, 368000, 0, -1, 4306000)
    assert scene.grid.crs == CRS.from_epsg(32618).to_wkt()
    assert scene.layout == "HDF5 in one piece, band last, uncompressed"
    assert scene.blocks == (1, COLS)
    centres = np.linspace(380, 2510, BANDS)
    bad = ((centres >= 1340) & (centres <= 1445)) | ((centres >= 1790) & (centres <= 1955))
    assert bad.any()
    assert scene.bands.usable() == tuple(np.flatnonzero(~bad))


def write_general(path: Path, cube: NDArray[np.generic], order: tuple[int, int, int]) -> Path:
    """An array in any order of axes, and wavelengths beside it."""
    with h5py.File(path, "w") as file:
        file["data"] = cube.transpose(order)
        file["wavelength"] = np.linspace(0.4, 2.4, len(cube))
    return path


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_wavelengths_tell_the_band_axis(tmp_path: Path, order: tuple[int, int, int]) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0].astype(">i2")
    scene = Scene.open(write_general(tmp_path / "a.h5", cube, order))
    assert np.array_equal(scene.read(), cube)
    assert scene.read().dtype == np.dtype("int16")
    assert scene.bands.wavelengths is not None
    assert scene.bands.wavelengths[-1] == pytest.approx(2400)


def test_a_cube_of_as_many_rows_as_bands_is_not_guessed(tmp_path: Path) -> None:
    path = write_general(tmp_path / "a.h5", np.zeros((9, 9, 7), np.int16), (0, 1, 2))
    with pytest.raises(InputError, match=r"nothing says which axis of data, \(9, 9, 7\)"):
        Scene.open(path)


def test_several_cubes_are_named(tmp_path: Path) -> None:
    path = write_general(tmp_path / "a.h5", fields_cube(ROWS, COLS, BANDS)[0], (0, 1, 2))
    with h5py.File(path, "r+") as file:
        file["group/more"] = file["data"][:]
    with pytest.raises(InputError, match=r'2 cubes; name one of them: HDF5:".*"://data, .*//group'):
        Scene.open(path)
    assert Scene.open(f'HDF5:"{path}"://group/more').bands.count == BANDS
    with pytest.raises(InputError, match="holds no array none; it holds data, group/more"):
        Scene.open(f'HDF5:"{path}"://none')


def test_coordinates_give_the_grid(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    cube = fields_cube(ROWS, COLS, BANDS)[0]
    with h5py.File(path, "w") as file:
        data = file.create_dataset("reflectance", data=cube)
        data.attrs["grid_mapping"] = "crs"
        values = (CENTRES, 5e6 - 30 * np.arange(ROWS), 4e5 + 30 * np.arange(COLS))
        for axis, (name, coordinate) in enumerate(zip(("band", "y", "x"), values, strict=True)):
            file[name] = coordinate
            file[name].make_scale(name)
            data.dims[axis].attach_scale(file[name])
        file["band"].attrs["units"] = "nm"
        file["crs"] = 0
        file["crs"].attrs["crs_wkt"] = UTM
    scene = Scene.open(path)
    assert scene.grid.transform == Affine(30, 0, 4e5 - 15, 0, -30, 5e6 + 15)
    assert scene.grid.crs == UTM
    assert scene.bands.wavelengths == pytest.approx(CENTRES.tolist())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data(), order=st.permutations(range(3)), piece=st.sampled_from([1, 300, 2**26]))
def test_windows_and_bands_in_any_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: st.DataObject,
    order: list[int],
    piece: int,
) -> None:
    monkeypatch.setattr(cubes, "DECODED_BYTES", piece)
    cube = fields_cube(19, 11, 8)[0]
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        chunks = data.draw(st.sampled_from([None, (3, 4, 2), (8, 1, 5)]))
        array = file.create_dataset("data", data=cube.transpose(order), chunks=chunks)
        for axis in range(3):
            array.dims[axis].label = ("band", "y", "x")[order[axis]]
    row, col = data.draw(st.integers(0, 18)), data.draw(st.integers(0, 10))
    window = Window(
        row, col, data.draw(st.integers(1, 19 - row)), data.draw(st.integers(1, 11 - col))
    )
    bands = data.draw(st.lists(st.integers(0, 7), min_size=1, unique=True))
    assert np.array_equal(Scene.open(path).read(window, bands), cube[bands][(..., *window.slices)])


def test_the_reader_goes_to_other_processes(tmp_path: Path) -> None:
    scene = Scene.open(write_neon(tmp_path / "a.h5", fields_cube(ROWS, COLS, BANDS)[0]))
    scene.read()  # an open file must not travel
    copy = pickle.loads(pickle.dumps(scene))  # noqa: S301 - our own bytes
    assert copy == scene
    assert np.array_equal(copy.read(), scene.read())
    store = tile(
        scene.path,
        tmp_path / "x.zarr",
        TileOptions(TileShape(16, 3), engine=EngineOptions(workers=1)),
    )
    assert store.missing() == []


def test_info_of_a_product(tmp_path: Path) -> None:
    path = write_prisma(tmp_path / "a.he5", *prisma_cubes())
    facts = info(str(path))
    assert (facts["kind"], facts["bands"], facts["georeferenced"]) == ("scene", BANDS, True)


def test_a_picture_of_a_product(tmp_path: Path) -> None:
    scene = Scene.open(write_prisma(tmp_path / "a.he5", *prisma_cubes()))
    title, image = false_colour(Path(scene.path), scene.grid, 2)
    assert "nm" in title
    assert image.shape == (15, 13, 3)
    assert np.ptp(image[2:]) > 0


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    secret = write_general(tmp_path / "secret.h5", fields_cube(ROWS, COLS, BANDS)[0], (0, 1, 2))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink(secret.name, "/data")
        file["wavelength"] = np.linspace(0.4, 2.4, BANDS)
        file["one"] = np.zeros((3, 4))
    with pytest.raises(InputError, match="holds no array data"):
        Scene.open(f'HDF5:"{path}"://data')


def test_gdal_follows_no_links_out_of_the_file(tmp_path: Path) -> None:
    secret = write_general(tmp_path / "secret.h5", fields_cube(ROWS, COLS, BANDS)[0], (0, 1, 2))
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        file["group/cube"] = h5py.ExternalLink(secret.name, "/data")
    with pytest.raises(InputError, match=r"a\.nc: group/cube: leads into another file"):
        Scene.open(path)


def test_values_in_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(ROWS * COLS * BANDS * 2))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "SERC/Reflectance/Reflectance_Data",
            (ROWS, COLS, BANDS),
            "i2",
            external=[(str(tmp_path / "raw"), 0, ROWS * COLS * BANDS * 2)],
        )
    with pytest.raises(InputError, match="lie in other files"):
        Scene.open(path)


@pytest.mark.parametrize("name", ["{}", 'HDF5:"{}"://data'])
@pytest.mark.parametrize("virtual", [False, True])
def test_gdal_is_not_given_values_of_other_files(tmp_path: Path, name: str, virtual: bool) -> None:
    (tmp_path / "raw").write_bytes(bytes(ROWS * COLS * 2))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros((ROWS, COLS), "i2")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        if virtual:
            layout = h5py.VirtualLayout((ROWS, COLS), "i2")
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "data", (ROWS, COLS))
            file.create_virtual_dataset("data", layout)
        else:
            outside = [(str(tmp_path / "raw"), 0, ROWS * COLS * 2)]
            file.create_dataset("data", (ROWS, COLS), "i2", external=outside)
    with pytest.raises(InputError, match="data: its values lie in other files"):
        Scene.open(name.format(path))


def test_arrays_without_values_and_groups_within_themselves(tmp_path: Path) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0]
    path = write_general(tmp_path / "a.h5", cube, (0, 1, 2))
    with h5py.File(path, "a") as file:
        file["empty"] = h5py.Empty("f4")
        file["group/above"] = file["/"]
    assert np.array_equal(Scene.open(path).read(), cube)


@pytest.mark.parametrize("size", [512, 4096, 2**16])
def test_hdf5_begins_after_a_block_of_the_users(tmp_path: Path, size: int) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0]
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=size) as file:
        file["data"] = cube.transpose(1, 2, 0)
        file["wavelength"] = CENTRES
    assert np.array_equal(Scene.open(path).read(), cube)


def test_damage_is_named(tmp_path: Path) -> None:
    path = write_emit(tmp_path / "a.nc", fields_cube(ROWS, COLS, BANDS)[0].astype(np.float32))
    with h5py.File(path) as file:
        info_ = file["reflectance"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[info_.byte_offset : info_.byte_offset + info_.size] = bytes(info_.size)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"a\.nc: rows 0 to 29, columns 0 to 24 cannot be read"):
        Scene.open(path).read()


def test_a_cut_file(tmp_path: Path) -> None:
    path = write_neon(tmp_path / "a.h5", fields_cube(ROWS, COLS, BANDS)[0])
    path.write_bytes(path.read_bytes()[:-999])
    with pytest.raises(InputError, match="cannot be opened as HDF5"):
        Scene.open(path)


def test_identity_follows_the_file(tmp_path: Path) -> None:
    path = write_neon(tmp_path / "a.h5", fields_cube(ROWS, COLS, BANDS)[0])
    name = f'HDF5:"{path}"://SERC/Reflectance/Reflectance_Data'
    first = Scene.open(name).identity
    shutil.copy(path, tmp_path / "b.h5")
    (tmp_path / "b.h5").replace(path)
    assert Scene.open(name).identity != first


def write_tanager(path: Path, cube: NDArray[np.float32], kind: str = "GRIDS") -> Path:
    """`(band, row, col)` as a Tanager product of Planet: ortho (a grid) or basic (a swath)."""
    bands, rows, cols = cube.shape
    with h5py.File(path, "w") as file:
        group = file.create_group(f"HDFEOS/{kind}/HYP")
        for name in ("surface_reflectance", "surface_reflectance_uncertainty"):
            data = group.create_dataset(f"Data Fields/{name}", data=cube, chunks=(5, 8, 10))
            data.attrs["wavelengths"] = np.linspace(376, 2499, bands)
            data.attrs["fwhm"] = np.full(bands, 5.5)
            data.attrs["good_wavelengths"] = (np.arange(bands) != 4).astype(np.uint8)
            data.attrs["_FillValue"] = np.float32(-9999)
        group.create_dataset("Data Fields/nodata_pixels", data=np.zeros((rows, cols), np.uint8))
        group.attrs["epsg_code"] = 32633
        structure = (
            f'GROUP=GRID_1\n\t\tGridName="HYP"\n\t\tXDim={cols}\n\t\tYDim={rows}\n'
            "\t\tUpperLeftPointMtrs=(400000.000000,5800000.000000)\n"
            f"\t\tLowerRightMtrs=({400000 + 30 * cols}.000000,{5800000 - 30 * rows}.000000)\n"
            "\t\tProjection=HE5_GCTP_UTM\n\t\tPixelRegistration=HE5_HDFE_CORNER\n"
        )
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.bytes_(structure.encode())
    return path


@pytest.mark.parametrize("cols", [COLS, ROWS, BANDS])
def test_tanager(tmp_path: Path, cols: int) -> None:
    cube = fields_cube(ROWS, cols, BANDS)[0].astype(np.float32)
    scene = Scene.open(write_tanager(tmp_path / "x_ortho_sr_hdf5.h5", cube))
    assert np.array_equal(scene.read(), cube)
    assert scene.grid.transform == Affine(30, 0, 400000, 0, -30, 5800000)
    assert scene.grid.crs == UTM
    assert scene.nodata == -9999
    assert scene.bands.wavelengths is not None
    assert scene.bands.wavelengths[::11] == (376.0, 2499.0)
    assert scene.bands.fwhm == (5.5,) * BANDS
    assert scene.bands.usable() == (0, 1, 2, 3, *range(5, BANDS))


def test_another_array_of_tanager(tmp_path: Path) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0].astype(np.float32)
    path = write_tanager(tmp_path / "a.h5", cube)
    name = f'HDF5:"{path}"://HDFEOS/GRIDS/HYP/Data_Fields/surface_reflectance'
    assert Scene.open(name).grid.georeferenced
    other = Scene.open(f"{name}_uncertainty")  # its own attributes tell its band axis
    assert np.array_equal(other.read(), cube)
    assert other.bands.wavelengths is not None


@pytest.mark.parametrize(
    ("kind", "corner"), [("SWATHS", "400000.000000"), ("GRIDS", "west"), ("GRIDS", "999999.0")]
)
def test_tanager_without_a_map_grid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, corner: str
) -> None:
    cube = fields_cube(ROWS, COLS, BANDS)[0].astype(np.float32)
    path = write_tanager(tmp_path / "a.h5", cube, kind)
    with h5py.File(path, "r+") as file:
        text = file["HDFEOS INFORMATION/StructMetadata.0"][()]
        del file["HDFEOS INFORMATION/StructMetadata.0"]
        changed = text.replace(b"(400000.000000", b"(" + corner.encode())
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.bytes_(changed)
    scene = Scene.open(path)
    assert not scene.grid.georeferenced
    assert np.array_equal(scene.read(), cube)
    assert "Tanager swath without a map grid" in caplog.text


def test_a_tanager_cube_of_two_axes(tmp_path: Path) -> None:
    with h5py.File(path := tmp_path / "a.h5", "w") as file:
        file["HDFEOS/GRIDS/HYP/Data Fields/toa_radiance"] = np.zeros((4, 5))
    with pytest.raises(InputError, match=r"has the shape \(4, 5\), not bands, rows, columns"):
        Scene.open(path)


def write_oci(path: Path, name: str, axes: tuple[str, str, str], band: int, waves: str) -> Path:
    """A cube of PACE OCI: dimensions without coordinates, wavelengths in a group of their own."""
    shape = [BANDS if axis == band else (ROWS, COLS)[axis - (band < axis)] for axis in range(3)]
    with h5py.File(path, "w") as file:
        scales = [dimension(file, axis, size) for axis, size in zip(axes, shape, strict=True)]
        data = file.create_dataset(name, data=np.arange(np.prod(shape)).reshape(shape))
        for axis, scale in enumerate(scales):
            data.dims[axis].attach_scale(scale)
        centres = file.create_dataset(f"sensor_band_parameters/{waves}", data=CENTRES)
        centres.attrs["units"] = "nm"
        centres.dims[0].attach_scale(scales[band])
    return path


@pytest.mark.parametrize(
    ("name", "axes", "band", "waves"),
    [
        ("observation_data/rhot_red", ("red_bands", "scans", "pixels"), 0, "red_wavelength"),
        (
            "observation_data/rhot_blue",
            ("blue_bands", "number_of_scans", "ccd_pixels"),
            0,
            "blue_wavelength",
        ),
        (
            "geophysical_data/Rrs",
            ("number_of_lines", "pixels_per_line", "wavelength_3d"),
            2,
            "wavelength_3d",
        ),
    ],
)
def test_oci(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    axes: tuple[str, str, str],
    band: int,
    waves: str,
) -> None:
    path = write_oci(tmp_path / "PACE_OCI.nc", name, axes, band, waves)
    scene = Scene.open(f'NETCDF:"{path}":{name}')
    assert (scene.bands.count, scene.grid.rows, scene.grid.cols) == (BANDS, ROWS, COLS)
    assert scene.bands.wavelengths is not None
    assert np.allclose(scene.bands.wavelengths, CENTRES)
    assert "EMIT" not in caplog.text
