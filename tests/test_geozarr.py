import base64
import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3server
import zarr
from affine import Affine
from conftest import UTM, fields_cube
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS

from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError, StorageError
from hsiclust.facts import info
from hsiclust.geozarr import is_zarr
from hsiclust.grid import Window
from hsiclust.scene import Scene
from hsiclust.staging import TileShape
from hsiclust.tiles import is_tile_store
from hsiclust.tiling import TileOptions, tile

ROWS, COLS, BANDS = 30, 25, 12
CUBE = fields_cube(ROWS, COLS, BANDS)[0]
CENTRES = np.linspace(400, 2400, BANDS)


def add(group: zarr.Group, name: str, values: Any, dims: tuple[str, ...], **options: Any) -> Any:
    """An array with named dimensions, in the way of the group's version."""
    data = np.asarray(values)
    if group.metadata.zarr_format == 3:
        return group.create_array(name, data=data, dimension_names=dims or None, **options)
    array = group.create_array(name, data=data, **options)
    array.attrs["_ARRAY_DIMENSIONS"] = list(dims)
    return array


def write_geozarr(
    path: Path,
    cube: NDArray[np.generic] = CUBE,
    dims: tuple[str, ...] = ("wavelength", "y", "x"),
    version: Any = 3,
    **options: Any,
) -> Path:
    """A group as rioxarray writes it."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    add(group, "reflectance", cube, dims, **options).attrs["grid_mapping"] = "spatial_ref"
    add(group, "wavelength", CENTRES, ("wavelength",)).attrs["units"] = "nm"
    add(group, "fwhm", np.full(BANDS, 9.5), ("wavelength",))
    add(group, "y", 5.8e6 - 15 - 30 * np.arange(ROWS), ("y",))
    add(group, "x", 4e5 + 15 + 30.0 * np.arange(COLS), ("x",))
    place = add(group, "spatial_ref", 0, ())
    place.attrs["crs_wkt"] = UTM
    place.attrs["GeoTransform"] = "400000.0 30.0 0.0 5800000.0 0.0 -30.0"
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_a_group_as_rioxarray_writes_it(tmp_path: Path, version: int) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", version=version, chunks=(4, 8, 10))
    scene = Scene.open(path)
    assert np.array_equal(scene.read(), CUBE)
    assert scene.grid.transform == Affine(30, 0, 400000, 0, -30, 5800000)
    assert scene.grid.crs == UTM
    assert scene.bands.wavelengths == pytest.approx(CENTRES.tolist())
    assert scene.bands.fwhm == (9.5,) * BANDS
    assert scene.dtype == "int16"
    assert scene.nodata is None
    codec = {2: "blosc", 3: "zstd"}[version]
    assert scene.layout == f"Zarr {version} chunks of 4 x 8 x 10, band first, {codec}"
    assert scene.blocks == (8, 10)
    assert Scene.open(path / "reflectance").grid == scene.grid
    assert info(str(path))["wavelengths_nm"] == pytest.approx(CENTRES.tolist())


def test_coordinates_stand_for_a_transform(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    del zarr.open_group(path, mode="r+")["spatial_ref"]
    scene = Scene.open(path)
    assert scene.grid.transform == Affine(30, 0, 400000, 0, -30, 5800000)
    assert scene.grid.crs is None


def test_degrees_need_no_grid_mapping(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    add(group, "data", CUBE.transpose(1, 2, 0), ("lat", "lon", "band"))
    add(group, "lat", (50 - 0.01 * np.arange(ROWS)).astype(np.float32), ("lat",))
    add(group, "lon", (10 + 0.01 * np.arange(COLS)).astype(np.float32), ("lon",))
    scene = Scene.open(tmp_path / "a.zarr")
    assert np.array_equal(scene.read(), CUBE)
    assert scene.grid.crs == CRS.from_epsg(4326).to_wkt()
    assert tuple(scene.grid.transform)[:6] == pytest.approx(
        (0.01, 0, 9.995, 0, -0.01, 50.005), 1e-5
    )


@pytest.mark.parametrize(
    "said", ["32633", "EPSG:32633", "epsg:32633", "urn:ogc:def:crs:EPSG::32633", UTM]
)
def test_ways_to_say_a_reference_system(tmp_path: Path, said: str) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    zarr.open_group(path, mode="r+")["spatial_ref"].attrs["crs_wkt"] = said
    assert Scene.open(path).grid.crs == CRS.from_epsg(32633).to_wkt()


@pytest.mark.parametrize("said", ["file", "PROJCS[", "EPSG:99999", "9" * 5000, "\u00b2"])
def test_a_reference_system_that_is_not_understood(
    tmp_path: Path,
    said: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A stranger's scene names it: GDAL would open it if it is a file, or a URL."""
    path = write_geozarr(tmp_path / "scene.zarr")
    if said == "file":
        file = tmp_path / "mine.prj"
        file.write_text(UTM)
        said = str(file)
    zarr.open_group(path, mode="r+")["spatial_ref"].attrs["crs_wkt"] = said
    scene = Scene.open(path)
    assert scene.grid.crs is None
    assert scene.grid.georeferenced  # the transform is there
    (line,) = (each.getMessage() for each in caplog.records if each.name.startswith("hsiclust"))
    assert line.startswith(f"{path}: its reference system is not understood")
    assert len(line) < len(str(path)) + 150
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("attributes", ["[1]", "[" * 50000 + "]" * 50000, "9" * 5000])
@pytest.mark.parametrize("part", ["", "reflectance"])
def test_what_is_no_metadata_is_refused(tmp_path: Path, part: str, attributes: str) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    record = path / part / "zarr.json"
    rest = {**json.loads(record.read_text()), "attributes": "here"}
    record.write_text(json.dumps(rest).replace('"here"', attributes))
    with pytest.raises(InputError, match=r"scene\.zarr: cannot be opened as Zarr"):
        Scene.open(path)
    with pytest.raises(InputError, match=r"scene\.zarr"):
        info(str(path))


@pytest.mark.parametrize("fill", [10**400, [None], {"a": 1}])
def test_a_fill_that_is_no_number_is_none(tmp_path: Path, fill: Any) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    zarr.open_group(path, mode="r+")["reflectance"].attrs["_FillValue"] = fill
    assert Scene.open(path).nodata is None


def test_uneven_coordinates_are_no_grid(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    group = zarr.open_group(path, mode="r+")
    del group["spatial_ref"]
    group["x"][3] += 4.0
    assert not Scene.open(path).grid.georeferenced


def test_as_gdal_says_where_it_lies(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", version=2)
    group = zarr.open_group(path, mode="r+")
    del group["spatial_ref"]
    del group["reflectance"].attrs["grid_mapping"]
    group["reflectance"].attrs["_CRS"] = {"wkt": UTM}
    assert Scene.open(path).grid.crs == UTM


@pytest.mark.parametrize("version", [2, 3])
def test_a_lone_array(tmp_path: Path, version: Any) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", data=CUBE.astype(">f4"), zarr_format=version, chunks=(12, 30, 7)
    )
    array.attrs["_ARRAY_DIMENSIONS"] = ["band", "y", "x"]
    array.attrs["wavelength"] = CENTRES.tolist()
    scene = Scene.open(tmp_path / "a.zarr")
    assert np.array_equal(scene.read(), CUBE)
    assert scene.read().dtype == np.dtype("float32")
    assert scene.bands.wavelengths == pytest.approx(CENTRES.tolist())


@pytest.mark.parametrize("value", [-9999.0, base64.b64encode(struct.pack("<d", -9999)).decode()])
def test_nodata_as_an_attribute(tmp_path: Path, value: object) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", CUBE.astype(np.float32))
    zarr.open_group(path, mode="r+")["reflectance"].attrs["_FillValue"] = value
    assert Scene.open(path).nodata == -9999
    assert Scene.open(path, nodata=7).nodata == 7


def test_the_fill_value_is_nodata(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", version=2, fill_value=-9999, chunks=(12, 10, 25))
    shutil.rmtree(path / "reflectance" / "0") if (path / "reflectance" / "0").is_dir() else (
        path / "reflectance" / "0.1.0"
    ).unlink()
    scene = Scene.open(path)
    assert scene.nodata == -9999
    valid = scene.holds_data(scene.read())
    assert not valid[10:20].any()
    assert valid[:10].all()


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("gone", ["reflectance", "wavelength"])
def test_an_array_that_is_gone_is_not_read_as_zeros(
    tmp_path: Path, version: int, gone: str
) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", version=version)
    zarr.consolidate_metadata(path)
    assert np.array_equal(Scene.open(path).read(), CUBE)
    shutil.rmtree(path / gone)
    with pytest.raises(InputError, match=rf"scene\.zarr/{gone}: is not there, although"):
        Scene.open(path)


@pytest.mark.parametrize("name", ["", "reflectance"])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [0, -9999])
def test_an_array_without_any_chunk(tmp_path: Path, version: int, name: str, fill: int) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", version=version, fill_value=fill)
    for file in (path / "reflectance").rglob("*"):
        if file.is_file() and file.name[0] not in ".z":
            file.unlink()
    if fill:
        scene = Scene.open(path / name)
        assert not scene.holds_data(scene.read()).any()
    else:
        with pytest.raises(InputError, match=r"scene\.zarr/reflectance: holds no values"):
            Scene.open(path / name)


def test_shards(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "s.zarr", chunks=(12, 5, 5), shards=(12, 10, 10))
    scene = Scene.open(path)
    assert scene.blocks == (5, 5)
    assert np.array_equal(scene.read(Window(3, 4, 20, 11)), CUBE[:, 3:23, 4:15])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data(), order=st.permutations(range(3)))
def test_windows_and_bands_in_any_order(
    tmp_path: Path, data: st.DataObject, order: list[int]
) -> None:
    path = tmp_path / "a.zarr"
    names = ("band", "y", "x")
    group = zarr.open_group(path, mode="w")
    dims = tuple(names[axis] for axis in order)
    add(group, "data", CUBE.transpose(order), dims, chunks=(4, 7, 5))
    row, col = data.draw(st.integers(0, ROWS - 1)), data.draw(st.integers(0, COLS - 1))
    rows = data.draw(st.integers(1, ROWS - row))
    window = Window(row, col, rows, data.draw(st.integers(1, COLS - col)))
    bands = data.draw(st.lists(st.integers(0, BANDS - 1), min_size=1, unique=True))
    assert np.array_equal(Scene.open(path).read(window, bands), CUBE[bands][(..., *window.slices)])


def test_no_band_axis_is_no_scene(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=CUBE)
    with pytest.raises(InputError, match=r"nothing says which axis of \(12, 30, 25\)"):
        Scene.open(tmp_path / "a.zarr")


def test_several_cubes_are_named(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    group = zarr.open_group(path, mode="r+")
    add(group, "more", CUBE, ("wavelength", "y", "x"))
    with pytest.raises(InputError, match=r"2 cubes; name one of them: .*(/more|/reflectance), "):
        Scene.open(path)
    assert Scene.open(path / "more").bands.wavelengths is not None


def test_no_cube(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(InputError, match="no array of three axes"):
        Scene.open(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="cannot be opened as Zarr"):
        Scene.open(tmp_path / "b.zarr")


def test_a_chunk_as_large_as_memory_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    shape = (400, 100_000, 100_000)
    group.create_array(
        "data", shape=shape, chunks=shape, dtype="f4", dimension_names=("band", "y", "x")
    )
    with pytest.raises(InputError, match="one chunk of it is 16000000000000 bytes"):
        Scene.open(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore:Array .* The stored chunk shape")
def test_chunks_of_nothing_are_refused(tmp_path: Path) -> None:
    """At once, or as they are read: from 3.4 on Zarr takes them for chunks of one, and warns."""
    path = write_geozarr(tmp_path / "scene.zarr", version=2)
    metadata = path / "reflectance" / ".zarray"
    said = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**said, "chunks": [0, *said["chunks"][1:]]}))
    refused = r"scene\.zarr: (its chunks are \(0, |rows 0 to 9, columns 0 to 9 cannot be read: )"
    with pytest.raises(InputError, match=refused):
        Scene.open(path).read(Window(0, 0, 10, 10), [0])


class _Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_pickled_chunks_are_not_read(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, data=CUBE, zarr_format=2, compressors=None, chunks=CUBE.shape)
    array.attrs["_ARRAY_DIMENSIONS"] = ["band", "y", "x"]
    metadata = json.loads((path / ".zarray").read_text())
    codec = {"id": "pickle"}
    metadata[place] = [codec] if place == "filters" else codec
    (path / ".zarray").write_text(json.dumps(metadata))
    for chunk in path.glob("0*"):
        chunk.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(InputError):
        Scene.open(path).read()
    assert not (tmp_path / "trapped").exists()


def test_damage_is_named(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    for chunk in (path / "reflectance" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"scene\.zarr: rows 0 to 29.*cannot be read"):
        Scene.open(path).read()


def test_a_tile_store_is_no_scene_and_a_scene_no_tile_store(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    assert is_zarr(str(path))
    assert not is_tile_store(path)
    options = TileOptions(TileShape(16, 3), engine=EngineOptions(workers=1))
    store = tile(str(path), tmp_path / "tiles.zarr", options)
    assert store.missing() == []
    assert info(str(tmp_path / "tiles.zarr"))["kind"] == "store"


def test_identity_follows_the_chunks(tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr")
    first = Scene.open(path).identity
    assert Scene.open(path).identity == first
    zarr.open_group(path, mode="r+")["reflectance"][0, 0, 0] = 1
    assert Scene.open(path).identity != first


@pytest.mark.parametrize("version", [2, 3])
def test_a_scene_on_s3(s3: str, tmp_path: Path, version: int) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", version=version, chunks=(6, 8, 10))
    zarr.consolidate_metadata(path) if version == 2 else None
    url = s3server.put("deep/scene.zarr", path)
    assert not is_tile_store(url)
    here = Scene.open(path)
    for name in (url, f"{url}/reflectance", url.replace("s3://", "/vsis3/")):
        there = Scene.open(name)
        assert (there.grid, there.bands, there.layout) == (here.grid, here.bands, here.layout)
        window = Window(5, 6, 12, 13)
        assert np.array_equal(there.read(window, (3, 9)), here.read(window, (3, 9)))
    copy = pickle.loads(pickle.dumps(there))  # noqa: S301 - our own bytes
    assert np.array_equal(copy.read(), CUBE)
    assert info(url)["kind"] == "scene"
    first = Scene.open(url).identity
    assert Scene.open(url).identity == first
    s3server.put("deep/scene.zarr/reflectance/more", b"x")
    assert Scene.open(url).identity != first


def test_an_array_that_is_gone_on_s3(s3: str, tmp_path: Path) -> None:
    path = write_geozarr(tmp_path / "scene.zarr", version=2)
    zarr.consolidate_metadata(path)
    shutil.rmtree(path / "reflectance")
    with pytest.raises(InputError, match=r"scene\.zarr/reflectance: is not there, although"):
        Scene.open(s3server.put("cut/scene.zarr", path))


def test_no_scene_on_s3(s3: str, refusing_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{s3server.BUCKET}/none.zarr"
    with pytest.raises(
        InputError, match=r"none\.zarr: there is no Zarr group or array of this name"
    ):
        Scene.open(url)
    with pytest.raises(InputError, match=r"from disk and from s3:// alone"):
        Scene.open("https://127.0.0.1/none.zarr")
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing_server)
    with pytest.raises(StorageError, match="refuses access"):
        Scene.open(url)
