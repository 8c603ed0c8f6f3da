import logging
import os
import resource
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import DriverRegistrationError
from rio_cogeo.cogeo import cog_validate

from hsiclust import labelmap
from hsiclust.errors import (
    HsiclustError,
    InputError,
    OutputBusyError,
    OutputExistsError,
    UsageError,
)
from hsiclust.grid import PixelGrid, Window
from hsiclust.labelmap import label_draft, rehearse_map, write_confidence, write_map
from hsiclust.legend import category_names, describe_map, read_classes
from hsiclust.mapformat import MapFormat, driver_for
from hsiclust.palette import MOST_CLASSES, Classes, class_colours
from hsiclust.rasters import grid_of, open_raster
from hsiclust.scene import Scene

# What GDAL makes of many an ENVI header; a GeoTIFF cannot hold it word for word.
ENVI_CRS = CRS.from_wkt(
    'PROJCS["UTM_Zone_33N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,'
    '298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],'
    'PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
    'PARAMETER["false_northing",0],UNIT["Meter",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
).to_wkt()
UTM = CRS.from_epsg(32633).to_wkt()
WGS84 = CRS.from_epsg(4326).to_wkt()
NORTH_UP = Affine(30.0, -0.0, 383472.37, -0.0, -30.0, 5818302.35)
THIRD_OF_SECOND = Affine(1 / 10800, 0, 13 + 1 / 3, 0, -1 / 10800, 48 + 1 / 7)
ROTATED = Affine(2.0, 0.3, 3e5 + 1 / 3, 0.3, -2.0, 5e6 + 1 / 7)
SOUTH_UP = Affine(30.0, 0, 3e5, 0, 30.0, 5e6)
GRID = PixelGrid(300, 410, NORTH_UP, UTM)
CLASSES = Classes(("water", "bare soil & rock", "Weizen, Äcker"), class_colours(3))


@dataclass
class Labels:
    """A map in memory, that keeps a record of what is asked of it."""

    values: Any
    fails_at_row: int | None = None

    def __post_init__(self):
        self.asked = []

    def read(self, window):
        self.asked.append(window)
        if self.fails_at_row is not None and window.row_stop > self.fails_at_row:
            raise InputError("no more labels")
        return self.values[window.slices]


def random_labels(grid=GRID, classes=3):
    return np.random.default_rng(5).integers(0, classes + 1, (grid.rows, grid.cols), np.uint8)


def put(path, grid=GRID, labels=None, classes=CLASSES, **form):
    values = random_labels(grid) if labels is None else labels
    write_map(Labels(values), grid, path, classes, MapFormat(**form))
    return path


def categories_by_gdal(path):
    """Category names as GDAL itself reads them: copied to a VRT."""
    vrt = path.with_name("copy.vrt")
    rasterio.shutil.copy(path, vrt, driver="VRT")
    root = ElementTree.parse(vrt)  # noqa: S314 - GDAL just wrote it
    names = [node.text for node in root.iter("Category")]
    vrt.unlink()
    return names


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# The default: a COG


def test_cog_is_valid_and_complete(tmp_path):
    tags = {"TIFFTAG_SOFTWARE": "hsiclust 0.1.0", "HSICLUST_SCENE": "a <b> & ä.tif"}
    labels = random_labels()
    path = put(tmp_path / "map.tif", labels=labels, block=128, tags=tags)
    valid, errors, notes = cog_validate(path, strict=True, quiet=True)
    assert (valid, errors, notes) == (True, [], [])
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.block_shapes == [(128, 128)]
        assert dataset.dtypes == ("uint8",)
        assert dataset.nodata == 0
        assert dataset.compression.value == "DEFLATE"
        assert dataset.colorinterp == (ColorInterp.palette,)
        assert dataset.overviews(1) == [2, 4]
        assert grid_of(dataset) == GRID
        assert tags.items() <= dataset.tags().items()
        colours = dataset.colormap(1)
        assert colours[0] == (0, 0, 0, 0)
        assert [colours[n][:3] for n in (1, 2, 3)] == list(CLASSES.colours)
        np.testing.assert_array_equal(dataset.read(1), labels)
    assert categories_by_gdal(path) == ["Unclassified", *CLASSES.names]
    assert names_in(tmp_path) == ["map.tif", "map.tif.aux.xml"]


def test_overviews_show_the_most_frequent_class(tmp_path):
    cell = np.array([[1, 1], [1, 3]], np.uint8)
    path = put(tmp_path / "map.tif", PixelGrid(512, 512), np.tile(cell, (256, 256)), block=128)
    with open_raster(str(path)) as dataset:
        assert (dataset.read(1, out_shape=(256, 256)) == 1).all()


def test_overviews_lie_where_the_map_does(tmp_path):
    """An edge on a map of odd size stays where it is when the map is drawn small."""
    grid = PixelGrid(1023, 1021, NORTH_UP, UTM)
    labels = np.ones((grid.rows, grid.cols), np.uint8)
    labels[:, 900:] = 2
    labels[700:] = 3
    path = put(tmp_path / "map.tif", grid, labels, block=128)
    sure = tmp_path / "sure.tif"
    write_confidence(Labels(labels * 30), grid, sure, MapFormat(block=128))
    for number, factor in enumerate((2, 4, 8)):
        with rasterio.open(path, overview_level=number) as dataset:
            small = dataset.read(1)
        with rasterio.open(sure, overview_level=number) as dataset:
            means = dataset.read(1)
        high, wide = small.shape
        # Within a cell, and half a one for equal shares of a cell, which the first class gets.
        assert abs((small[0] == 1).sum() / wide - 900 / 1021) < 1.5 * factor / 1021
        assert abs((small[:, 0] == 1).sum() / high - 700 / 1023) < 1.5 * factor / 1023
        assert means[0, 0] == 30
        assert means[0, -1] == 60
        assert means[-1, 0] == 90


@pytest.mark.parametrize(
    ("block", "expected"), [(128, 128), (144, 144), (512, 512), (64, 512), (130, 512), (1, 512)]
)
def test_blocks_are_cores_where_tiff_allows(tmp_path, block, expected):
    grid = PixelGrid(20, 600, NORTH_UP, UTM)
    for driver in ("COG", "GTiff"):
        path = put(tmp_path / "map.tif", grid, driver=driver, block=block)
        with rasterio.open(path) as dataset:
            assert dataset.block_shapes == [(expected, expected)]
            np.testing.assert_array_equal(dataset.read(1), random_labels(grid))


def test_source_is_read_by_rows_of_blocks(tmp_path):
    source = Labels(random_labels())
    write_map(source, GRID, tmp_path / "map.tif", CLASSES, MapFormat(block=128))
    assert source.asked == [
        Window(0, 0, 128, 410),
        Window(128, 0, 128, 410),
        Window(256, 0, 44, 410),
    ]


def test_same_input_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for suffix, driver in ((".tif", "COG"), (".gtiff.tif", "GTiff"), (".img", "ENVI")):
            put(
                tmp_path / name / f"map{suffix}", block=128, driver=driver, tags={"HSICLUST_A": "b"}
            )
    one, two = tmp_path / "one", tmp_path / "two"
    assert names_in(one) == names_in(two)
    for name in names_in(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_confidence(tmp_path):
    values = np.random.default_rng(1).integers(0, 101, (300, 410), np.uint8)
    values[:50] = 255
    for driver, suffix in (("COG", ".tif"), ("GTiff", ".tif"), ("ENVI", ".img")):
        path = tmp_path / f"confidence{suffix}"
        write_confidence(Labels(values), GRID, path, MapFormat(driver, 128))
        with rasterio.open(path) as dataset:
            assert dataset.nodata == 255
            assert grid_of(dataset) == GRID
            assert dataset.colorinterp != (ColorInterp.palette,)
            np.testing.assert_array_equal(dataset.read(1), values)
    path = tmp_path / "confidence.tif"
    write_confidence(Labels(values), GRID, path, MapFormat(block=128))
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as dataset:  # averages, and nodata is no part of them
        half = dataset.read(1, out_shape=(150, 205))
        assert (half[:25] == 255).all()
        assert abs(int(half[60, 60]) - values[120:122, 120:122].mean()) <= 1


# Where it lies


PLACES = {
    "north up": (NORTH_UP, UTM),
    "ENVI's words": (NORTH_UP, ENVI_CRS),
    "third of an arc second": (THIRD_OF_SECOND, WGS84),
    "south up": (SOUTH_UP, UTM),
    "nowhere": (Affine.identity(), None),
    "identity": (Affine.identity(), UTM),
    "no CRS": (THIRD_OF_SECOND, None),
    "rotated": (ROTATED, UTM),
    "sheared": (Affine(30, 3, 3e5, 0, -30, 5e6), UTM),
    "mirrored": (Affine(-30, 0, 3e5, 0, -30, 5e6), UTM),
    "flipped": (Affine(1, 0, 0, 0, -1, 0), None),
    "sphere": (NORTH_UP, CRS.from_string("+proj=sinu +R=6371007.181 +units=m").to_wkt()),
    "heights": (THIRD_OF_SECOND, CRS.from_epsg(4979).to_wkt()),
}


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
@pytest.mark.parametrize("place", PLACES)
def test_geotiff_lies_exactly_where_the_scene_does(tmp_path, driver, place):
    grid = PixelGrid(30, 41, *PLACES[place])
    path = put(tmp_path / "map.tif", grid, driver=driver)
    with open_raster(str(path)) as dataset:
        assert grid_of(dataset) == grid
        assert tuple(dataset.transform) == tuple(grid.transform)
        assert dataset.crs == (grid.crs and CRS.from_wkt(grid.crs))
    assert categories_by_gdal(path) == ["Unclassified", *CLASSES.names]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    numbers=st.lists(st.floats(-1e7, 1e7), min_size=6, max_size=6),
    crs=st.sampled_from([None, UTM, WGS84, ENVI_CRS]),
)
def test_any_grid_comes_back_from_a_cog(tmp_path_factory, shape, numbers, crs):
    transform = Affine(*numbers)
    if transform.is_degenerate:
        return
    grid = PixelGrid(*shape, transform, crs)
    path = put(tmp_path_factory.mktemp("m") / "map.tif", grid)
    with open_raster(str(path)) as dataset:
        assert grid_of(dataset) == grid
        np.testing.assert_array_equal(dataset.read(1), random_labels(grid))


def test_a_map_of_an_envi_scene_lies_where_the_scene_does(tmp_path):
    """The whole way: a scene with an ESRI-named CRS, as GDAL reads it from its header."""
    header = (
        "ENVI\nsamples = 41\nlines = 30\nbands = 2\nheader offset = 0\ndata type = 2\n"
        "interleave = bsq\nbyte order = 0\n"
        "map info = {UTM, 1, 1, 383472.37, 5818302.35, 30, 30, 33, North, WGS-84}\n"
        f"coordinate system string = {{{ENVI_CRS}}}\n"
    )
    (tmp_path / "scene.hdr").write_text(header)
    (tmp_path / "scene").write_bytes(bytes(41 * 30 * 2 * 2))
    scene = Scene.open(tmp_path / "scene")
    for name, driver in (("cog.tif", "COG"), ("plain.tif", "GTiff"), ("envi.img", "ENVI")):
        path = put(tmp_path / name, scene.grid, driver=driver)
        with open_raster(str(path)) as dataset:
            assert dataset.crs == CRS.from_wkt(scene.grid.crs)
            assert dataset.transform == scene.grid.transform


# ENVI


def test_envi_classification_has_what_envi_looks_for(tmp_path):
    labels = random_labels()
    path = put(tmp_path / "map.img", labels=labels, driver="ENVI", tags={"HSICLUST_A": "b"})
    assert names_in(tmp_path) == ["map.hdr", "map.img", "map.img.aux.xml"]
    np.testing.assert_array_equal(np.fromfile(path, np.uint8).reshape(300, 410), labels)
    lines = (tmp_path / "map.hdr").read_text("utf-8").replace("{\n", "{").splitlines()
    header = dict(line.split(" = ", 1) for line in lines if " = " in line)
    assert header["file type"] == "ENVI Classification"
    assert header["classes"] == "4"
    assert header["class lookup"] == "{0, 0, 0, 31, 119, 180, 230, 85, 45, 60, 160, 70}"
    assert header["class names"] == "{Unclassified, water, bare soil & rock, Weizen; Äcker}"
    assert header["data ignore value"] == "0"
    assert header["description"] == "{map.img}"
    assert header["map info"].startswith("{UTM, 1, 1, 383472.37, 5818302.35, 30, 30, 33, North")
    with rasterio.open(path) as dataset:
        assert grid_of(dataset) == GRID
        assert dataset.nodata == 0
        assert dataset.tags()["HSICLUST_A"] == "b"
        assert dataset.tags(ns="ENVI")["file_type"] == "ENVI Classification"
    assert categories_by_gdal(path)[1:3] == ["water", "bare soil & rock"]
    assert read_classes(path).colours == CLASSES.colours


@pytest.mark.parametrize(
    "place",
    ["north up", "ENVI's words", "third of an arc second", "south up", "nowhere", "sphere"],
)
def test_envi_lies_exactly_where_the_scene_does(tmp_path, place):
    grid = PixelGrid(30, 41, *PLACES[place])
    with open_raster(str(put(tmp_path / "map", grid, driver="ENVI"))) as dataset:
        assert tuple(dataset.transform) == tuple(grid.transform)
        assert dataset.crs == (grid.crs and CRS.from_wkt(grid.crs))


def test_envi_rotation_comes_back_to_a_millionth_of_a_pixel(tmp_path):
    transform = Affine.translation(3e5 + 1 / 3, 5e6) @ Affine.rotation(20) @ Affine.scale(2, -2)
    grid = PixelGrid(30, 41, transform, UTM)
    with open_raster(str(put(tmp_path / "map.img", grid, driver="ENVI"))) as dataset:
        col, row = ~dataset.transform @ (transform @ (41, 30))
        assert (col, row) == pytest.approx((41, 30), abs=1e-6)


@pytest.mark.parametrize("place", ["sheared", "mirrored", "heights"])
def test_what_envi_cannot_hold_is_refused(tmp_path, place):
    grid = PixelGrid(30, 41, *PLACES[place])
    with pytest.raises(UsageError, match=r"map.img: ENVI .*write a COG"):
        put(tmp_path / "map.img", grid, driver="ENVI")
    assert names_in(tmp_path) == []


def test_envi_never_takes_the_header_of_a_scene(tmp_path):
    (tmp_path / "scene.img").write_bytes(b"pixels")
    (tmp_path / "scene.hdr").write_text("ENVI\n")
    with pytest.raises(OutputExistsError, match=r"scene.hdr would replace that of scene.img"):
        driver_for(tmp_path / "scene.dat")
    with pytest.raises(OutputExistsError):
        put(tmp_path / "scene.dat", driver="ENVI")
    assert names_in(tmp_path) == ["scene.hdr", "scene.img"]
    assert (tmp_path / "scene.hdr").read_text() == "ENVI\n"


def test_envi_replaces_itself_and_what_a_killed_run_left(tmp_path):
    (tmp_path / "map.hdr").write_text("half a hea")
    for _ in range(2):
        path = put(tmp_path / "map.dat", driver="ENVI")
        assert read_classes(path).names[0] == "water"
    assert names_in(tmp_path) == ["map.dat", "map.dat.aux.xml", "map.hdr"]


# Failures


@pytest.mark.parametrize(
    ("creation", "message"),
    [
        ({"COMPRESS": "FOO"}, "'FOO' is an unexpected value for COMPRESS"),
        ({"COMPRES": "LZW"}, "does not support creation option COMPRES"),
        ({"blocksize": "77"}, "'77' is an unexpected value for BLOCKSIZE"),
        ({"TILING_SCHEME": "GoogleMapsCompatible"}, "leave out creation options that warp"),
    ],
)
@pytest.mark.parametrize("level", [logging.NOTSET, logging.CRITICAL])
def test_bad_creation_options_leave_nothing(tmp_path, creation, message, level):
    logger = logging.getLogger("rasterio")
    before = logger.level
    logger.setLevel(level)
    try:
        with pytest.raises(UsageError, match=message):
            put(tmp_path / "map.tif", creation=creation)
    finally:
        logger.setLevel(before)
    assert names_in(tmp_path) == []
    assert logging.getLogger("rasterio._env").level == logging.NOTSET


@pytest.mark.parametrize(
    ("driver", "creation", "message"),
    [
        ("ENVI", {"COMPRESS": "LZW"}, "driver ENVI does not support creation option COMPRESS"),
        # GDAL before 3.12, and since
        ("GTiff", {"BLOCKXSIZE": "100"}, "Field:map/map.tif: Bad value 100 |BLOCKXSIZE must be a "),
        ("GTiff", {"NBITS": "1"}, "map.tif: what was written reads back differently"),
        ("GTiff", {"NBITS": "2"}, "map.tif: what was written reads back differently"),
        ("GTiff", {"PIXELTYPE": "SIGNEDBYTE"}, "map.tif: reads back as int8 with nodata"),
    ],
)
def test_a_rehearsal_finds_what_gdal_cannot_do(tmp_path, driver, creation, message):
    output = tmp_path / "map.tif"
    with pytest.raises(UsageError, match=message) as raised:
        rehearse_map(GRID, output, CLASSES, MapFormat(driver, creation=creation), confidence=True)
    assert "/" not in str(raised.value).replace(str(output), "").replace("map/map.tif", "")


def test_a_map_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A power cut leaves no name of a map that is not whole."""
    flushed = []
    monkeypatch.setattr("os.fsync", lambda file: flushed.append(os.fstat(file).st_ino))
    path = put(tmp_path / "map.tif")
    assert path.stat().st_ino in flushed
    assert Path(f"{path}.aux.xml").stat().st_ino in flushed


def test_a_rehearsal_finds_that_gdal_has_no_such_driver(tmp_path, monkeypatch):
    def copy(*_: object, driver: str, **__: object) -> None:
        raise DriverRegistrationError(f"Unrecognized driver: {driver}")

    monkeypatch.setattr("rasterio.shutil.copy", copy)
    with pytest.raises(HsiclustError, match=r"map\.tif: cannot be written: .*driver: COG"):
        rehearse_map(GRID, tmp_path / "map.tif", CLASSES, MapFormat())


def test_a_rehearsal_lets_through_what_a_larger_map_can_have(tmp_path):
    form = MapFormat(creation={"overview_count": "3"})
    with pytest.raises(HsiclustError, match=r"map\.tif: cannot be written: "):
        put(tmp_path / "map.tif", PixelGrid(1, 1), creation=form.creation)
    rehearse_map(GRID, tmp_path / "map.tif", CLASSES, form, confidence=True)
    assert names_in(tmp_path) == []


def test_creation_options_go_before_the_defaults(tmp_path):
    path = put(tmp_path / "map.tif", block=128, creation={"compress": "LZW", "OVERVIEWS": "NONE"})
    with rasterio.open(path) as dataset:
        assert dataset.compression.value == "LZW"
        assert dataset.overviews(1) == []


@pytest.mark.parametrize(
    ("creation", "count"),
    [({"COMPRESS": "LZW"}, 2), ({"OVERVIEW_COUNT": "1"}, 1), ({"blocksize": "256"}, 1)],
)
def test_who_asks_for_overviews_gets_those(tmp_path, creation, count):
    path = put(tmp_path / "map.tif", block=128, creation=creation)
    with rasterio.open(path) as dataset:
        assert len(dataset.overviews(1)) == count
    assert cog_validate(path, strict=True, quiet=True)[0]


def test_a_map_that_comes_bit_by_bit_has_the_same_bytes(tmp_path):
    whole = put(tmp_path / "whole.tif", block=128).read_bytes()
    source = Labels(random_labels())
    with label_draft(source, GRID, tmp_path / "map.tif", CLASSES, MapFormat(block=128)) as draft:
        for rows in (0, 100, 128, 140, 299):
            draft.advance(rows)
            assert sum(window.rows for window in source.asked) == rows // 128 * 128
            assert names_in(tmp_path) == [
                ".map.tif.partial",
                "whole.tif",
                "whole.tif.aux.xml",
            ]
        draft.publish()
    assert (tmp_path / "map.tif").read_bytes() == whole
    assert not (tmp_path / ".map.tif.partial").exists()


def test_another_run_on_the_same_map_is_noticed(tmp_path):
    """Where the file system has no locks."""
    ours, others = (
        label_draft(Labels(random_labels()), GRID, tmp_path / "map.tif", CLASSES, MapFormat())
        for _ in range(2)
    )
    with ours, others:
        others.advance(300)
        with pytest.raises(OutputBusyError, match=r"map\.tif: another run is writing it"):
            ours.advance(300)


def test_a_wide_map_is_taken_in_few_rows_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(labelmap, "_TAKEN_PIXELS", 410 * 50)
    source = Labels(random_labels())
    write_map(source, GRID, tmp_path / "map.tif", CLASSES, MapFormat(block=128))
    assert {window.rows for window in source.asked} == {50}
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), random_labels())
        assert dataset.overviews(1) == [2, 4]


def test_gdal_keeps_little_of_what_is_read_back(tmp_path, monkeypatch):
    """By itself it keeps a twentieth of the machine's memory, whatever a run may take."""
    caches, check = [], labelmap._check_values

    def watched(*arguments):
        caches.append(rasterio.env.getenv().get("GDAL_CACHEMAX"))
        check(*arguments)

    monkeypatch.setattr(labelmap, "_check_values", watched)
    put(tmp_path / "map.tif")
    assert caches == [labelmap._GDAL_CACHE_BYTES]


def test_a_draft_that_is_given_up_leaves_nothing(tmp_path):
    source = Labels(random_labels())
    with label_draft(source, GRID, tmp_path / "map.tif", CLASSES, MapFormat(block=128)) as draft:
        draft.advance(200)
        assert names_in(tmp_path) == [".map.tif.partial"]
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("room", [60_000, 125_000])
def test_a_full_disk_leaves_the_old_map_or_none(tmp_path, room):
    """Stopped while labels are staged, and while GDAL writes."""
    old = put(tmp_path / "old.tif", block=128)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    for path in (old, tmp_path / "new.tif"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))
        try:
            with pytest.raises(HsiclustError, match=f"{path.name}: cannot be written"):
                put(path, labels=random_labels()[::-1], block=128, creation={"COMPRESS": "NONE"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_source_that_fails_leaves_nothing(tmp_path):
    source = Labels(random_labels(), fails_at_row=200)
    with pytest.raises(InputError, match="no more labels"):
        write_map(source, GRID, tmp_path / "map.tif", CLASSES, MapFormat(block=128))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((300, 410), 4, np.uint8), "label 4 in Window.*the largest is 3"),
        (np.ones((300, 410), np.int64), "int64 labels"),
        (np.ones((300, 400), np.uint8), "uint8 labels .* given for Window"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, message):
    with pytest.raises(UsageError, match=message):
        put(tmp_path / "map.tif", labels=labels)
    assert names_in(tmp_path) == []


def test_leftovers_of_a_killed_run_are_replaced(tmp_path):
    left = tmp_path / ".map.tif.partial"
    (left / "map").mkdir(parents=True)
    (left / "map" / "map.tif").write_bytes(b"half")
    for stale in ("map.tif.ovr", "map.tif.msk", "map.tif.aux.xml"):
        (tmp_path / stale).write_bytes(b"of another map")
    put(tmp_path / "map.tif")
    assert names_in(tmp_path) == ["map.tif", "map.tif.aux.xml"]
    assert read_classes(tmp_path / "map.tif") == CLASSES


def test_outputs_that_cannot_be_are_said(tmp_path):
    with pytest.raises(HsiclustError, match=r"nowhere/map.tif: cannot be written: .*No such file"):
        put(tmp_path / "nowhere" / "map.tif")
    (tmp_path / "map.tif").mkdir()
    with pytest.raises(HsiclustError, match=r"map.tif: cannot be written"):
        put(tmp_path / "map.tif")
    assert names_in(tmp_path) == ["map.tif"]


def test_no_georeference_makes_no_warning(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        put(tmp_path / "map.tif", PixelGrid(20, 20))
    assert not caught


# Names of formats


def test_driver_of_a_suffix():
    suffixes = {".tif": "COG", ".TIFF": "COG", ".img": "ENVI", ".dat": "ENVI", ".bsq": "ENVI"}
    for suffix, driver in {**suffixes, "": "ENVI"}.items():
        assert driver_for(Path(f"map{suffix}")) == driver
    assert driver_for(Path("map.tif"), "gtiff") == "GTiff"
    assert driver_for(Path("map.xyz"), "cog") == "COG"
    with pytest.raises(UsageError, match=r"not .png"):
        driver_for(Path("map.png"))
    with pytest.raises(UsageError, match=r"'PNG' is not one of COG, GTiff, ENVI"):
        driver_for(Path("map.tif"), "PNG")
    with pytest.raises(UsageError, match=r"not .hdr"):
        driver_for(Path("map.hdr"), "ENVI")
    with pytest.raises(UsageError, match="not one of COG"):
        MapFormat("PNG")
    with pytest.raises(UsageError, match="empty"):
        MapFormat(block=0)


# Maps that are there already


@pytest.mark.parametrize(
    ("suffix", "driver"), [(".tif", "COG"), (".tif", "GTiff"), (".img", "ENVI")]
)
def test_classes_come_back(tmp_path, suffix, driver):
    classes = Classes.numbered(MOST_CLASSES)
    labels = random_labels(classes=MOST_CLASSES)
    path = put(tmp_path / f"map{suffix}", labels=labels, classes=classes, driver=driver)
    assert read_classes(path) == classes
    assert category_names(path)[0] == "Unclassified"


def test_a_raster_without_names_has_no_classes(tmp_path):
    path = put(tmp_path / "map.tif")
    (tmp_path / "map.tif.aux.xml").unlink()
    assert read_classes(path) is None
    assert category_names(path) == ()
    with pytest.raises(InputError, match="no such file"):
        read_classes(tmp_path / "missing.tif")


def test_names_that_an_envi_header_cannot_hold_keep_their_classes(tmp_path):
    names = ("NDVI>=0.3", "a, {b}", "=x", "wood")
    classes = Classes(names, class_colours(4))
    path = put(tmp_path / "map.img", classes=classes, driver="ENVI")
    assert read_classes(path).names == ("NDVI>:0.3", "a; (b)", ":x", "wood")


def test_a_class_without_a_name_between_others_keeps_its_number(tmp_path):
    path = put(tmp_path / "map.img", driver="ENVI")
    (tmp_path / "map.img.aux.xml").unlink(missing_ok=True)
    header = tmp_path / "map.hdr"
    kept = [line for line in header.read_text().splitlines() if "class names" not in line]
    header.write_text("\n".join([*kept, "class names = {Unclassified, , Soy, Wood, }", ""]))
    assert category_names(path) == ("Unclassified", "", "Soy", "Wood")
    assert read_classes(path).names == ("class 1", "Soy", "Wood")


def test_names_of_a_vrt_are_read(tmp_path):
    source, path = put(tmp_path / "map.tif"), tmp_path / "map.vrt"
    rasterio.shutil.copy(source, path, driver="VRT")
    assert category_names(path) == category_names(source)
    assert not (tmp_path / "map.vrt.aux.xml").exists()


@pytest.mark.parametrize(
    ("columns", "rows", "names"),
    [
        # as ERDAS has it: a row for each value from 0 on
        ([("Histogram", 1), ("Class_Names", 2)], [(5, "none"), (3, "Öl"), (2, "")], ("none", "Öl")),
        ([("VALUE", 5), ("COUNT", 1), ("n", 2)], [(3, 9, "c"), (1, 9, "a")], ("", "a", "", "c")),
        ([("VALUE", 5), ("n", 2)], [(2**16, "far"), (-1, "below"), (1, "a")], ("", "a")),
        ([("VALUE", 5), ("n", 2)], [("inf", "a")], ()),
        ([("VALUE", 5), ("n", 2)], [("one", "a")], ()),
        ([("VALUE", 5), ("n", 2)], [(1,)], ()),
        ([("VALUE", 5), ("n", 0)], [(1, "a")], ()),  # no column that says that it holds names
    ],
)
def test_names_of_an_attribute_table_are_read(tmp_path, columns, rows, names):
    path = put(tmp_path / "map.tif")
    fields = (
        f'<FieldDefn index="{at}"><Name>{name}</Name><Type>2</Type>'
        f"<Usage>{usage}</Usage></FieldDefn>"
        for at, (name, usage) in enumerate(columns)
    )
    cells = ("".join(f"<F>{cell}</F>" for cell in row) for row in rows)
    lines = (f'<Row index="{at}">{row}</Row>' for at, row in enumerate(cells))
    table = f"<GDALRasterAttributeTable>{''.join([*fields, *lines])}</GDALRasterAttributeTable>"
    sidecar(path, f'<PAMDataset><PAMRasterBand band="1">{table}</PAMRasterBand></PAMDataset>')
    assert category_names(path) == names


def test_a_table_that_is_too_long_names_nothing(tmp_path, monkeypatch):
    source, path = put(tmp_path / "map.tif"), tmp_path / "map.vrt"
    rasterio.shutil.copy(source, path, driver="VRT")
    monkeypatch.setattr("hsiclust.legend._LARGEST_SIDECAR", 99)
    assert category_names(path) == ()


def sidecar(path, text):
    Path(f"{path}.aux.xml").write_text(text, "utf-8")


def test_names_of_strangers_are_cleaned(tmp_path):
    path = put(tmp_path / "map.tif")
    names = "".join(f"<Category>{name}</Category>" for name in ("none", " a\n b\t", "", "\u202ec"))
    sidecar(
        path,
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames>'
        f"{names}</CategoryNames></PAMRasterBand></PAMDataset>",
    )
    assert read_classes(path).names == ("a b", "class 2", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<PAMDataset>", "cannot be read as a GDAL sidecar"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><PAMDataset>&a;</PAMDataset>', "document type 'x'"),
        ('<!DOCTYPE x SYSTEM "file:///etc/hostname"><PAMDataset/>', "document type 'x'"),
        ("<PAMDataset/>" + " " * 5_000_000, "5000013 bytes is no list of class names"),
    ],
)
def test_sidecars_that_would_harm_are_refused(tmp_path, text, message):
    path = put(tmp_path / "map.tif")
    sidecar(path, text)
    with pytest.raises(InputError, match=message):
        read_classes(path)


def test_describe_map(tmp_path):
    path = put(tmp_path / "map.tif", block=128, tags={"HSICLUST_METHOD": "kmeans"})
    facts = describe_map(path)
    assert facts["classes"] == list(CLASSES.names)
    assert facts["tags"] == {"HSICLUST_METHOD": "kmeans"}
    assert (facts["rows"], facts["cols"], facts["block"]) == (300, 410, [128, 128])
    assert facts["format"] == "COG"
    assert facts["crs"] == UTM
    with rasterio.open(
        tmp_path / "scene.tif", "w", width=5, height=5, count=2, dtype="int16", transform=NORTH_UP
    ) as dataset:
        dataset.write(np.zeros((2, 5, 5), np.int16))
    assert describe_map(tmp_path / "scene.tif") is None


# Names and colours


def oklab(colours):
    """https://bottosson.github.io/posts/oklab"""
    light = np.asarray(colours, float) / 255
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    cones = light @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


@pytest.mark.parametrize(("count", "apart"), [(20, 0.12), (64, 0.09), (255, 0.05)])
def test_colours_are_apart_from_each_other_and_from_black_and_white(count, apart):
    seen = oklab([*class_colours(count), (0, 0, 0), (255, 255, 255)])
    distances = np.linalg.norm(seen[:, None] - seen, axis=2) + np.eye(len(seen))
    assert distances.min() > apart


def test_a_class_keeps_its_colour():
    assert class_colours(0) == ()
    assert len(set(class_colours(255))) == 255
    for count in (1, 7, 100):
        assert class_colours(count) == class_colours(255)[:count]
    with pytest.raises(UsageError, match="256 classes"):
        class_colours(256)


@pytest.mark.parametrize(
    ("names", "colours", "message"),
    [
        ((), (), "0 classes"),
        (("a",), (), "1 class names but 0 colours"),
        (("a\nb",), ((1, 2, 3),), "not one line"),
        (("",), ((1, 2, 3),), "not one line"),
        (("a",), ((1, 2, 256),), "not three of 0 to 255"),
        (("a",), ((1, 2),), "not three of 0 to 255"),
    ],
)
def test_classes_are_checked(names, colours, message):
    with pytest.raises(UsageError, match=message):
        Classes(names, colours)


def test_numbered_classes():
    classes = Classes.numbered(3)
    assert classes.names == ("cluster 1", "cluster 2", "cluster 3")
    assert classes.colours == class_colours(3)
    assert len(classes) == 3
