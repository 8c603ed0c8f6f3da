import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3server
from conftest import fields_cube, write_raster
from test_scene import write_envi

from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError, StorageError
from hsiclust.facts import info
from hsiclust.grid import Window
from hsiclust.remote import (
    absolute_name,
    explain,
    gdal_name,
    gdal_settings,
    is_remote,
    source_stamp,
    spelled,
)
from hsiclust.scene import Scene
from hsiclust.staging import TileShape
from hsiclust.tiling import TileOptions, tile

CUBE = fields_cube()[0]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """A web server: its URL, its folder, its log."""
    folder, log = tmp_path / "web", tmp_path / "log"
    folder.mkdir()
    with s3server.serving("files", folder, log) as url:
        yield url, folder, log


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://b/a.tif", "/vsis3/b/a.tif"),
        ("https://h/a.tif?x=1&y=2", "/vsicurl/https://h/a.tif?x=1&y=2"),
        ("http://h/a.tif", "/vsicurl/http://h/a.tif"),
        ("gs://b/a.tif", "/vsigs/b/a.tif"),
        ("/vsis3/b/a.tif", "/vsis3/b/a.tif"),
    ],
)
def test_names_on_servers(name: str, expected: str) -> None:
    assert is_remote(name)
    assert gdal_name(name) == expected


@pytest.mark.parametrize("name", ["s3://b/a.tif", "https://h/a.tif", "/vsis3/b/a.tif", "s3/a.tif"])
def test_paths_made_of_names_are_the_names(name: str) -> None:
    assert spelled(Path(name)) == name


@pytest.mark.parametrize("name", ["a.tif", "/a/b.tif", "/vsizip/a.zip/b.tif", "https/a.tif"])
def test_names_on_disk(name: str) -> None:
    assert not is_remote(name)
    assert gdal_name(name) == name
    assert gdal_settings(name, {}) == {"CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO"}
    assert gdal_settings(name, {"CPL_VSIL_GZIP_WRITE_PROPERTIES": "YES"}) == {}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (None, None, None)),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}, ("127.0.0.1:9000", "NO", "FALSE")),
        ({"AWS_ENDPOINT_URL": "https://minio.org/s3/"}, ("minio.org/s3", "YES", "FALSE")),
        ({"AWS_ENDPOINT_URL_S3": "http://a", "AWS_ENDPOINT_URL": "b"}, ("a", "NO", "FALSE")),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_S3_ENDPOINT": "b"}, (None, "NO", "FALSE")),
    ],
)
def test_one_endpoint_for_all_clients(
    environment: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    found = gdal_settings("s3://b/a.tif", environment)
    names = ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING")
    assert tuple(found.get(name) for name in names) == expected


def test_what_the_user_has_set_stays() -> None:
    assert "GDAL_HTTP_MAX_RETRY" in gdal_settings("s3://b/a.tif", {})
    # Or a server that says nothing is waited for without an end.
    assert "GDAL_HTTP_LOW_SPEED_TIME" in gdal_settings("https://b/a.tif", {})
    assert "GDAL_HTTP_MAX_RETRY" not in gdal_settings("s3://b/a.tif", {"GDAL_HTTP_MAX_RETRY": "9"})


def test_raw_files_are_asked_for_in_large_pieces() -> None:
    size, room = "CPL_VSIL_CURL_CHUNK_SIZE", "CPL_VSIL_CURL_CACHE_SIZE"
    found = gdal_settings("s3://b/a.bil", {})
    assert 2**20 >= int(found[size]) >= 2**18
    assert int(found[room]) >= 200 * int(found[size])  # of each band one, where bands lie apart
    assert size not in gdal_settings("s3://b/a.bil", {size: "16384"})
    assert size not in gdal_settings("s3://b/a.tif", {})  # small tiles, far from each other


def test_a_tiff_on_s3(s3: str, tmp_path: Path) -> None:
    here = write_raster(tmp_path / "a.tif", CUBE, tiled=True, blockxsize=32, blockysize=32)
    url = s3server.put("deep/a.tif", here)
    for name in (url, "/vsis3/scenes/deep/a.tif"):
        scene = Scene.open(name)
        assert scene.path == name
        assert scene.name == "a.tif"
        assert scene.grid == Scene.open(here).grid
        assert np.array_equal(scene.read(Window(3, 4, 40, 50), (7, 2)), CUBE[[7, 2], 3:43, 4:54])
    assert info(url)["kind"] == "scene"


def test_workers_read_from_s3(s3: str, tmp_path: Path) -> None:
    here = write_raster(tmp_path / "a.tif", CUBE)
    options = TileOptions(TileShape(32, 5), engine=EngineOptions(workers=1))
    url = s3server.put("a.tif", here)
    there = tile(url, f"s3://{s3server.BUCKET}/x.zarr", options)
    expected = tile(str(here), tmp_path / "x.zarr", options)
    for each in expected.tiles:
        assert np.array_equal(there.read_chunk(each.index)[0], expected.read_chunk(each.index)[0])


@pytest.mark.parametrize("name", ["a.img", "a", "a.bip"])
def test_envi_on_s3(s3: str, tmp_path: Path, name: str) -> None:
    path = write_envi(tmp_path / name, CUBE, "bip", extra="wavelength = {" + "1," * 11 + "1}\n")
    data = s3server.put(f"deep/{name}", path)
    for url in (s3server.put("deep/a.hdr", path.with_suffix(".hdr")), data):
        scene = Scene.open(url)
        assert scene.path == data
        assert np.array_equal(scene.read(), CUBE)
        assert scene.bands.wavelengths is not None


def test_a_header_alone_on_s3(s3: str) -> None:
    url = s3server.put("a.hdr", b"ENVI\n")
    with pytest.raises(InputError, match="no data file beside this ENVI header"):
        Scene.open(url)


def test_identity_follows_the_object(s3: str, tmp_path: Path) -> None:
    here = write_raster(tmp_path / "a.tif", CUBE)
    url = s3server.put("a.tif", here)
    first = Scene.open(url).identity
    assert Scene.open(url).identity == first
    assert np.array_equal(Scene.open(url).read(), CUBE)
    write_raster(here, CUBE + 1)  # as long as before: only its tag tells
    s3server.put("a.tif", here)
    assert Scene.open(url).identity != first
    assert np.array_equal(Scene.open(url).read(), CUBE + 1)


def test_over_http(web: tuple[str, Path, Path]) -> None:
    url, folder, log = web
    path = write_raster(folder / "a.tif", CUBE, tiled=True, blockxsize=32, blockysize=32)
    scene = Scene.open(f"{url}/a.tif")
    assert np.array_equal(scene.read(), CUBE)
    asked = log.read_text().splitlines()
    assert {line.split()[1] for line in asked} == {"/a.tif"}  # and for none of its neighbours
    first = scene.identity
    os.utime(path, (1e9, 1e9))
    assert scene.identity != first


def test_envi_over_http(web: tuple[str, Path, Path]) -> None:
    url, folder, _ = web
    write_envi(folder / "a.bsq", CUBE)
    assert np.array_equal(Scene.open(f"{url}/a.hdr").read(), CUBE)


def test_nothing_there(s3: str, web: tuple[str, Path, Path]) -> None:
    for name in (f"s3://{s3server.BUCKET}/none.tif", f"{web[0]}/none.tif"):
        with pytest.raises(
            InputError, match=r"none\.tif: cannot be opened: there is nothing of this name"
        ):
            Scene.open(name)
    with pytest.raises(InputError, match="bucket does not exist"):
        Scene.open("s3://nowhere/a.tif")


def test_no_access(s3: str, refusing_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing_server)
    for name in ("s3://bucket/a.tif", f"{refusing_server}/a.tif"):
        with pytest.raises(
            InputError, match=r"a\.tif: cannot be opened: the server refuses access"
        ):
            Scene.open(name)
    with pytest.raises(StorageError, match="403"):
        source_stamp(f"{refusing_server}/a.tif")


def test_no_route(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("s3://bucket/a.tif", "http://127.0.0.1:9/a.tif"):
        with pytest.raises(InputError, match=r"Failed to connect to 127\.0\.0\.1"):
            Scene.open(name)
    with pytest.raises(StorageError, match="cannot be asked"):
        source_stamp("http://127.0.0.1:9/a.tif")


def test_no_credentials() -> None:
    said = "AWS_SECRET_ACCESS_KEY and AWS_NO_SIGN_REQUEST configuration options not defined"
    assert explain(said).startswith("no credentials; set AWS_ACCESS_KEY_ID")


def test_hdf5_on_a_server_is_refused(s3: str) -> None:
    url = s3server.put("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(5000))
    with pytest.raises(InputError, match="HDF5 and netCDF files are read from disk"):
        Scene.open(url)


def test_names_that_mean_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s3://b/a.tif", "https://h/a.tif", "/vsizip/a.zip/a.tif", "/x/a.tif"):
        assert absolute_name(name) == name
    assert absolute_name("a.tif") == str(tmp_path / "a.tif")
    assert absolute_name('HDF5:"c.h5"://c.h5') == f'HDF5:"{tmp_path}/c.h5"://c.h5'
    assert absolute_name("NETCDF:n.nc:cube") == f"NETCDF:{tmp_path}/n.nc:cube"
