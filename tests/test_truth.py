import json
import logging
import os
import pickle
import sqlite3
import threading
from contextlib import closing
from itertools import product

import h5py
import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyogrio.raw import write as write_vectors
from rasterio.crs import CRS

from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid, Window
from hsiclust.truth import open_mask, open_truth
from hsiclust.vectors import majority

UTM = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(30.0, 0.0, 383472.37, 0.0, -30.0, 5818302.35)
ROTATED = NORTH_UP @ Affine.rotation(25)
GRID = PixelGrid(40, 50, NORTH_UP, UTM)


def write_raster(path, values, grid=GRID, **profile):
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    place = {} if grid.crs is None else {"crs": grid.crs, "transform": grid.transform}
    count, rows, cols = bands.shape
    shape = {"count": count, "height": rows, "width": cols, "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **profile) as dataset:
        dataset.write(bands)
    return path


def write_features(path, geometries, grid=GRID, crs="EPSG:32633", **fields):
    """Shapes given in pixels, x = column and y = row, written at their place on the ground."""

    def ground(points):
        return np.column_stack(grid.transform @ (points[:, 0], points[:, 1]))

    placed = shapely.transform(np.array(geometries, object), ground)
    columns = [np.array(values) for values in fields.values()]
    write_vectors(
        path, shapely.to_wkb(placed), columns, list(fields), crs=crs, geometry_type="Unknown"
    )
    return path


def sent_to_a_worker(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def numbers(rng, rows=40, cols=50):
    return rng.integers(0, 6, (rows, cols)).astype(np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# Rasters


def test_raster_on_the_grid_is_read_as_it_is(tmp_path, rng):
    values = numbers(rng)
    truth = open_truth(write_raster(tmp_path / "t.tif", values), GRID)
    read = truth.read(Window(3, 5, 30, 40))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, values[3:33, 5:45])
    assert truth.note is None
    assert truth.names == {}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rasters_without_place_match_by_shape(tmp_path, rng):
    values = numbers(rng)
    path = write_raster(tmp_path / "t.tif", values, PixelGrid(40, 50))
    read = open_truth(path, PixelGrid(40, 50)).read(Window(0, 0, 40, 50))
    np.testing.assert_array_equal(read, values)
    with pytest.raises(InputError, match=r"40 x 50 pixels .* do not match the scene's 41 x 50"):
        open_truth(path, PixelGrid(41, 50))
    with pytest.raises(InputError, match="no CRS"):
        open_truth(path, GRID)


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_nodata_and_negative_values_are_unlabelled(tmp_path, dtype):
    values = np.array([[1, -5, 3], [-9999, 0, 7]], dtype)
    grid = PixelGrid(2, 3, NORTH_UP, UTM)
    path = write_raster(tmp_path / "t.tif", values, grid, nodata=3)
    read = open_truth(path, grid).read(grid.window)
    np.testing.assert_array_equal(read, [[1, 0, 0], [0, 0, 7]])


def test_nan_is_unlabelled(tmp_path):
    grid = PixelGrid(1, 3, NORTH_UP, UTM)
    for nodata in ({}, {"nodata": np.nan}):
        path = write_raster(tmp_path / "t.tif", np.array([[1, np.nan, 2]], "f4"), grid, **nodata)
        np.testing.assert_array_equal(open_truth(path, grid).read(grid.window), [[1, 0, 2]])


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (1.5, "float32", "1.5 is no class number"),
        (np.inf, "float32", "class number inf is above 65535"),
        (70000, "int32", "class number 70000 is above 65535"),
    ],
)
def test_values_that_are_no_class_numbers_are_refused(tmp_path, value, dtype, message):
    grid = PixelGrid(1, 2, NORTH_UP, UTM)
    path = write_raster(tmp_path / "t.tif", np.array([[1, value]], dtype), grid)
    with pytest.raises(InputError, match=message):
        open_truth(path, grid).read(grid.window)


def test_several_bands_and_complex_values_are_refused(tmp_path):
    with pytest.raises(InputError, match="3 bands"):
        open_truth(write_raster(tmp_path / "rgb.tif", np.zeros((3, 40, 50), "u1")), GRID)
    with pytest.raises(InputError, match="complex64 values"):
        open_truth(write_raster(tmp_path / "c.tif", np.zeros((40, 50), "c8")), GRID)
    with pytest.raises(InputError, match="no such file"):
        open_truth(tmp_path / "missing.tif", GRID)


@settings(max_examples=25, deadline=None)
@given(
    row=st.integers(-20, 20),
    col=st.integers(-20, 20),
    factor=st.sampled_from([1, 2, 3]),
    angle=st.sampled_from([0, 25, 180]),
)
def test_raster_of_another_grid_is_taken_at_pixel_centres(
    tmp_path_factory, row, col, factor, angle
):
    """Against a look-up of each pixel's centre, with no warping library."""
    rng = np.random.default_rng(3)
    values = rng.integers(1, 200, (45, 55)).astype(np.uint8)
    transform = NORTH_UP @ Affine.translation(col + 0.123, row + 0.234) @ Affine.scale(1 / factor)
    own = PixelGrid(45, 55, transform, UTM)
    grid = PixelGrid(40, 50, NORTH_UP @ Affine.rotation(angle), UTM)
    path = write_raster(tmp_path_factory.mktemp("t") / "t.tif", values, own)
    truth = open_truth(path, grid)
    at = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
    x, y = (~own.transform @ grid.transform) @ tuple(at)
    expected = np.zeros((40, 50), int)
    inside = (x >= 0) & (x < 55) & (y >= 0) & (y < 45)
    expected[inside] = values[np.floor(y[inside]).astype(int), np.floor(x[inside]).astype(int)]
    # A centre within a thousandth of a pixel of an edge may round to either side.
    clear = (np.abs(x - np.round(x)) > 1e-3) & (np.abs(y - np.round(y)) > 1e-3)
    read = truth.read(grid.window)
    np.testing.assert_array_equal(read[clear], expected[clear])
    np.testing.assert_array_equal(truth.read(Window(7, 9, 20, 30)), read[7:27, 9:39])
    assert "by nearest neighbour" in truth.note


def test_warping_is_said_and_logged(tmp_path, caplog):
    x, y = NORTH_UP @ (25, 20)
    (lon,), (lat,) = rasterio.warp.transform(CRS.from_wkt(UTM), "EPSG:4326", [x], [y])
    step = 4e-4
    around = Affine(step, 0, lon - 60 * step, 0, -step, lat + 50 * step)
    own = PixelGrid(100, 120, around, CRS.from_epsg(4326).to_wkt())
    path = write_raster(tmp_path / "t.tif", np.full((100, 120), 4, "u1"), own)
    with caplog.at_level(logging.INFO, "hsiclust"):
        truth = open_truth(path, GRID)
    assert "100 x 120 pixels in EPSG:4326" in truth.note
    assert "40 x 50 in EPSG:32633 by nearest neighbour" in truth.note
    assert truth.note in caplog.text
    assert (truth.read(GRID.window) == 4).all()


def test_nodata_is_unlabelled_after_warping(tmp_path):
    own = PixelGrid(40, 50, NORTH_UP @ Affine.translation(10, 0), UTM)
    path = write_raster(tmp_path / "t.tif", np.full((40, 50), 255, "u1"), own, nodata=255)
    assert not open_truth(path, GRID).read(GRID.window).any()


def test_raster_truth_is_read_from_threads_and_other_processes(tmp_path, rng):
    values = numbers(rng)
    truth = open_truth(write_raster(tmp_path / "t.tif", values, tiled=True), GRID)
    copy = sent_to_a_worker(truth)
    assert copy == truth
    wrong = []

    def work(source):
        for row, col in product(range(0, 40, 7), range(0, 50, 9)):
            window = Window(row, col, min(7, 40 - row), min(9, 50 - col))
            if (source.read(window) != values[window.slices]).any():
                wrong.append(window)

    threads = [threading.Thread(target=work, args=(source,)) for source in (truth, copy) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Vectors


def square(row, col, rows=1.0, cols=1.0):
    return shapely.box(col, row, col + cols, row + rows)


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, Affine(5, 0, 10, 0, 5, 20)])
def test_polygons_cover_their_pixels(tmp_path, transform):
    grid = PixelGrid(40, 50, transform, UTM)
    shapes = [square(2, 3, 10, 20), square(20, 30, 7, 5), square(38, 48, 10, 10)]
    path = write_features(tmp_path / "v.gpkg", shapes, grid, kind=[2, 1, 300])
    truth = open_truth(path, grid, field="kind")
    expected = np.zeros((40, 50), int)
    expected[2:12, 3:23], expected[20:27, 30:35], expected[38:, 48:] = 2, 1, 300
    np.testing.assert_array_equal(truth.read(grid.window), expected)
    assert truth.names == {1: "1", 2: "2", 300: "300"}
    assert truth.note is None


@settings(max_examples=30, deadline=None)
@given(
    edges=st.lists(st.tuples(*[st.integers(0, 96)] * 4), min_size=1, max_size=4),
    origin=st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_majority_is_that_of_exact_areas(tmp_path_factory, edges, origin):
    """Boxes on eighths of pixels, where samples and areas are the same thing."""
    grid = PixelGrid(12, 12, ROTATED, UTM)
    boxes = [
        shapely.box(min(a, c) / 8, min(b, d) / 8, max(a, c) / 8 + 0.125, max(b, d) / 8 + 0.125)
        for a, b, c, d in edges
    ]
    kinds = [3 + index % 3 for index in range(len(boxes))]
    path = write_features(tmp_path_factory.mktemp("v") / "v.gpkg", boxes, grid, kind=kinds)
    read = open_truth(path, grid, field="kind").read(Window(*origin, 4, 4))
    free = shapely.box(0, 0, 99, 99)
    areas = {}
    for kind in sorted(set(kinds)):  # of two shapes the lower number is on top
        union = shapely.union_all([b for b, k in zip(boxes, kinds, strict=True) if k == kind])
        areas[kind] = shapely.intersection(union, free)
        free = shapely.difference(free, union)
    for row, col in product(range(4), range(4)):
        pixel = square(origin[0] + row, origin[1] + col)
        shares = {k: round(shapely.intersection(a, pixel).area, 9) for k, a in areas.items()}
        best = max(shares, key=lambda k: (shares[k], -k))
        assert read[row, col] == (best if round(sum(shares.values()), 9) >= 0.5 else 0)


def test_a_pixel_goes_to_the_largest_part_of_at_least_half():
    cells = np.array([[1, 1, 2, 0], [0, 0, 5, 4], [0, 0, 0, 3]], np.uint16).reshape(3, 2, 2)
    samples = np.concatenate(list(cells), axis=1)
    # 1 leads; 4 and 5 are even; a quarter is too little
    np.testing.assert_array_equal(majority(samples, 2), [[1, 4, 0]])


def test_neighbouring_polygons_leave_no_gap(tmp_path):
    """Two classes that share a slanted border: no pixel between them is left out."""
    left = shapely.Polygon([(0, 0), (20.3, 0), (31.7, 40), (0, 40)])
    right = shapely.Polygon([(20.3, 0), (50, 0), (50, 40), (31.7, 40)])
    path = write_features(tmp_path / "v.gpkg", [left, right], kind=["a", "b"])
    read = open_truth(path, GRID, field="kind").read(GRID.window)
    assert set(np.unique(read)) == {1, 2}


def test_windows_fit_together(tmp_path, rng):
    centres = rng.uniform(0, 300, (40, 2))
    shapes = list(shapely.buffer(shapely.points(centres), rng.uniform(2, 30, 40)))
    grid = PixelGrid(300, 290, ROTATED, UTM)
    path = write_features(tmp_path / "v.gpkg", shapes, grid, kind=rng.integers(1, 9, 40))
    truth = open_truth(path, grid, field="kind")
    whole = truth.read(grid.window)
    for window in (Window(0, 0, 1, 1), Window(17, 130, 200, 140), Window(299, 289, 1, 1)):
        np.testing.assert_array_equal(truth.read(window), whole[window.slices])
    np.testing.assert_array_equal(sent_to_a_worker(truth).read(grid.window), whole)


def test_points_and_lines_label_the_pixels_that_they_meet(tmp_path):
    shapes = [
        square(0, 0, 40, 50),
        shapely.Point(7.9, 3.1),
        shapely.MultiPoint([(49.99, 39.99), (0, 0), (60, 3)]),
        shapely.LineString([(10.5, 20.5), (14.5, 20.5)]),
        shapely.GeometryCollection([shapely.Point(30.5, 30.5), square(5, 5)]),
    ]
    path = write_features(tmp_path / "v.gpkg", shapes, kind=[9, 1, 2, 3, 4])
    read = open_truth(path, GRID, field="kind").read(GRID.window)
    expected = np.full((40, 50), 9)
    expected[3, 7] = 1
    expected[39, 49] = expected[0, 0] = 2
    expected[20, 10:15] = 3
    expected[30, 30] = expected[5, 5] = 4
    np.testing.assert_array_equal(read, expected)


def test_of_two_points_in_a_pixel_the_lower_number_stays(tmp_path):
    shapes = [shapely.Point(7.2, 3.1), shapely.Point(7.8, 3.9), shapely.Point(7.5, 3.5)]
    path = write_features(tmp_path / "v.gpkg", shapes, kind=[5, 2, 8])
    assert open_truth(path, GRID, field="kind").read(Window(3, 7, 1, 1)) == [[2]]


def test_text_classes_are_numbered_in_sorted_order(tmp_path):
    shapes = [square(0, 0), square(1, 1), square(2, 2), square(3, 3), square(4, 4)]
    texts = ["oats", "corn", " oats ", None, ""]
    path = write_features(tmp_path / "v.gpkg", shapes, crop=np.array(texts, object))
    truth = open_truth(path, GRID, field="crop")
    assert truth.names == {1: "corn", 2: "oats"}
    assert truth.read(GRID.window).diagonal()[:5].tolist() == [2, 1, 2, 0, 0]
    assert "2 of 5 features left out" in truth.note


def test_codes_that_are_kept_as_text_are_numbers(tmp_path):
    shapes = [square(at, at) for at in range(5)]
    for texts, names, numbers in (
        (["10", "2", " 2", "0", None], {2: "2", 10: "10"}, [10, 2, 2, 0, 0]),
        (["10", "2", "02", "3", ""], {1: "02", 2: "10", 3: "2", 4: "3"}, [2, 3, 1, 4, 0]),
        (["10", "2", "70000", "3", ""], {1: "10", 2: "2", 3: "3", 4: "70000"}, [1, 2, 4, 3, 0]),
    ):
        (tmp_path / "v.gpkg").unlink(missing_ok=True)
        path = write_features(tmp_path / "v.gpkg", shapes, code=np.array(texts, object))
        truth = open_truth(path, GRID, field="code")
        assert truth.names == names
        assert truth.read(GRID.window).diagonal()[:5].tolist() == numbers


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_formats_and_reference_systems(tmp_path, suffix):
    """A field near the scene's edge, drawn in longitude and latitude."""
    corners = np.array([(10, 5), (40, 5), (40, 30), (10, 30)], float)
    x, y = NORTH_UP @ tuple(corners.T)
    lon, lat = rasterio.warp.transform(CRS.from_wkt(UTM), "EPSG:4326", x, y)
    path = tmp_path / f"v.{suffix}"
    wkb = shapely.to_wkb([shapely.Polygon(list(zip(lon, lat, strict=True)))])
    write_vectors(path, wkb, [np.array([3])], ["kind"], crs="EPSG:4326", geometry_type="Polygon")
    truth = open_truth(path, GRID, field="kind")
    expected = np.zeros((40, 50), int)
    expected[5:30, 10:40] = 3
    np.testing.assert_array_equal(truth.read(GRID.window), expected)
    assert "reprojected from EPSG:4326 to EPSG:32633" in truth.note


def test_long_edges_keep_their_curve_when_reprojected(tmp_path):
    """The edge of a degree cell bends by kilometres in UTM; corners alone would miss it."""
    grid = PixelGrid(60, 60, Affine(2000, 0, 440000, 0, -2000, 6700000), UTM)
    box = shapely.box(14, 59.5, 19, 60.5)
    write_vectors(
        tmp_path / "v.gpkg", shapely.to_wkb([box]), [], [], crs="EPSG:4326", geometry_type="Polygon"
    )
    read = open_mask(tmp_path / "v.gpkg", grid).read(grid.window)
    cols, rows = np.meshgrid(np.arange(60) + 0.5, np.arange(60) + 0.5)
    x, y = grid.transform @ (cols.ravel(), rows.ravel())
    lon, lat = map(np.array, rasterio.warp.transform(CRS.from_wkt(UTM), "EPSG:4326", x, y))
    centre = ((lon > 14) & (lon < 19) & (lat > 59.5) & (lat < 60.5)).reshape(60, 60)
    assert 200 < centre.sum() < 3400
    assert np.count_nonzero(read != centre) < 10  # pixels that an edge halves


def test_what_cannot_be_reprojected_is_left_out(tmp_path):
    lon, lat = 13.3, 52.5
    x, y = (v[0] for v in rasterio.warp.transform("EPSG:4326", CRS.from_wkt(UTM), [lon], [lat]))
    grid = PixelGrid(10, 10, Affine(30, 0, x - 150, 0, -30, y + 150), UTM)
    collection = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {"kind": 1}, "geometry": geometry}
            for geometry in (
                {"type": "Point", "coordinates": [lon, lat, 30.5]},
                {"type": "Point", "coordinates": [lon, 95]},
                None,
            )
        ],
    }
    (tmp_path / "v.geojson").write_text(json.dumps(collection))
    truth = open_truth(tmp_path / "v.geojson", grid, field="kind")
    assert "2 of 3 features left out" in truth.note
    assert truth.read(grid.window).sum() == 1


def test_mask_is_what_is_covered(tmp_path):
    path = write_features(tmp_path / "v.gpkg", [square(2, 3, 4, 5), square(20, 20)], kind=[0, 7])
    inside = open_mask(path, GRID).read(Window(0, 0, 10, 10))
    assert inside.dtype == np.bool_
    expected = np.zeros((10, 10), bool)
    expected[2:6, 3:8] = True
    np.testing.assert_array_equal(inside, expected)
    raster = write_raster(
        tmp_path / "m.tif", expected.astype("u1"), PixelGrid(10, 10, NORTH_UP, UTM)
    )
    np.testing.assert_array_equal(
        open_mask(raster, PixelGrid(10, 10, NORTH_UP, UTM)).read(Window(0, 0, 10, 10)), expected
    )


def test_mask_is_any_value_above_0(tmp_path):
    values = np.array([[0.25, -1.0, 0.0], [np.nan, 1e6, 7.0]], "f4")
    grid = PixelGrid(2, 3, NORTH_UP, UTM)
    raster = write_raster(tmp_path / "m.tif", values, grid, nodata=7)
    inside = open_mask(raster, grid).read(grid.window)
    np.testing.assert_array_equal(inside, [[True, False, False], [False, True, False]])


def test_vectors_without_place_lie_on_pixels(tmp_path):
    path = tmp_path / "v.gpkg"
    grid = PixelGrid(10, 10)
    with pytest.warns(UserWarning, match="crs"):
        write_features(path, [square(2, 3)], grid, crs=None, kind=[4])
    read = open_truth(path, grid, field="kind").read(grid.window)
    assert np.argwhere(read).tolist() == [[2, 3]]
    with pytest.raises(InputError, match="no CRS, and the scene has EPSG:32633"):
        open_truth(path, GRID, field="kind")


def test_vector_errors_name_what_there_is(tmp_path):
    path = write_features(tmp_path / "v.gpkg", [square(0, 0)], crop=["oats"], area=[1.5], none=[0])
    with pytest.raises(InputError, match=r"no field 'kind'; there are: crop, area, none"):
        open_truth(path, GRID, field="kind")
    with pytest.raises(
        InputError, match=r"name the field \(--field\) .*; there are: crop, area, none"
    ):
        open_truth(path, GRID)
    with pytest.raises(InputError, match=r"1.5 in field 'area' is no class number"):
        open_truth(path, GRID, field="area")
    with pytest.raises(InputError, match="none of its 0 usable features meets"):
        open_truth(path, GRID, field="none")
    with pytest.raises(InputError, match="'other'"):
        open_truth(path, GRID, layer="other")
    with pytest.raises(InputError, match="none of its 1 usable features meets the scene's grid"):
        open_truth(path, PixelGrid(5, 5, Affine(30, 0, 0, 0, -30, 0), UTM), field="crop")
    with pytest.raises(InputError, match="no such file"):
        open_truth(tmp_path / "missing.gpkg", GRID)
    (tmp_path / "broken.geojson").write_text("{")
    with pytest.raises(InputError, match="cannot be read as vectors"):
        open_truth(tmp_path / "broken.geojson", GRID)


def test_features_that_share_an_id_are_read_without_a_word(tmp_path):
    features = [
        {
            "type": "Feature",
            "properties": {"id": 1, "kind": kind},
            "geometry": {"type": "Point", "coordinates": [col + 0.5, 0.5]},
        }
        for col, kind in enumerate((3, 5))
    ]
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    collection = {"type": "FeatureCollection", "crs": crs, "features": features}
    (tmp_path / "v.geojson").write_text(json.dumps(collection))
    grid = PixelGrid(1, 3, Affine(1, 0, 0, 0, -1, 1), UTM)
    truth = open_truth(tmp_path / "v.geojson", grid, field="kind")
    assert truth.read(grid.window).tolist() == [[3, 5, 0]]


def test_shapes_with_measures_are_read_without_a_word(tmp_path):
    path = write_features(tmp_path / "v.gpkg", [square(1, 2)], kind=[3])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE gpkg_geometry_columns SET m = 1, geometry_type_name = 'POLYGON'")
    read = open_truth(path, GRID, field="kind").read(Window(0, 0, 2, 4))
    np.testing.assert_array_equal(read, [[0, 0, 0, 0], [0, 0, 3, 0]])


def test_layers(tmp_path):
    path = tmp_path / "v.gpkg"
    write_features(path, [square(0, 0)], kind=[1])
    wkb = shapely.to_wkb(
        [shapely.transform(square(1, 1), lambda p: np.column_stack(NORTH_UP @ tuple(p.T)))]
    )
    kind = [np.array([2])], ["kind"]
    write_vectors(
        path, wkb, *kind, crs="EPSG:32633", geometry_type="Polygon", layer="two", append=False
    )
    with pytest.raises(InputError, match="has 2 layers with shapes; name one of: v, two"):
        open_truth(path, GRID, field="kind")
    read = open_truth(path, GRID, field="kind", layer="two").read(Window(0, 0, 2, 2))
    np.testing.assert_array_equal(read, [[0, 0], [0, 2]])


def test_what_is_left_out_is_counted_in_one_line(tmp_path):
    shapes = [square(0, 0), square(1, 1), square(900, 0), None, shapely.Polygon(), square(5, 5)]
    path = tmp_path / "v.gpkg"
    placed = [
        None
        if shape is None
        else shapely.transform(shape, lambda p: np.column_stack(NORTH_UP @ tuple(p.T)))
        for shape in shapes
    ]
    kind = np.array([1, 0, 2, 3, 4, 5])
    write_vectors(
        path, shapely.to_wkb(placed), [kind], ["kind"], crs="EPSG:32633", geometry_type="Polygon"
    )
    truth = open_truth(path, GRID, field="kind")
    assert truth.note == (
        f"{path}: 3 of 6 features left out (no class: 1, no shape that can be read: 1, empty: 1); "
        "1 of 3 features lie outside the scene"
    )


def test_overlapping_polygons_of_different_classes_are_said(tmp_path):
    bow = shapely.Polygon([(30, 20), (40, 30), (40, 20), (30, 30)])  # crosses itself
    shapes = [
        square(0, 0, 10, 10),
        square(0, 8, 10, 10),  # another class on 10 x 2 pixels
        square(0, 18, 10, 10),  # shares a border
        square(5, 18, 10, 10),  # overlaps one of its own class
        square(35, 0, 99, 4),
        square(38, 0, 99, 4),  # in common 2 x 4 pixels on the scene, and many outside
        bow,
    ]
    path = write_features(tmp_path / "v.gpkg", shapes, kind=[2, 1, 3, 3, 4, 5, 6])
    truth = open_truth(path, GRID, field="kind")
    assert truth.note == (
        f"{path}: polygons of different classes overlap (pairs: 2, pixels: about 28): "
        "the lower class number was taken there"
    )
    np.testing.assert_array_equal(truth.read(Window(3, 6, 1, 6)), [[2, 2, 1, 1, 1, 1]])


def test_an_outline_that_crosses_itself_is_looked_at(tmp_path):
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    path = write_features(tmp_path / "v.gpkg", [bow, square(0, 0, 10, 10)], kind=[1, 2])
    assert "(pairs: 1, pixels: about 50)" in open_truth(path, GRID, field="kind").note


def test_the_search_for_overlaps_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("hsiclust.overlaps._MOST_CORNERS", 25)
    shapes = [square(0, 0, 9, 9)] * 4
    path = write_features(tmp_path / "v.gpkg", shapes, kind=[1, 2, 3, 4])
    assert "(pairs: at least 2, pixels: about 162)" in open_truth(path, GRID, field="kind").note


@pytest.mark.parametrize("opened", [open_truth, open_mask])
@pytest.mark.parametrize("name", ["{}", 'HDF5:"{}"://labels'])
@pytest.mark.parametrize("kind", ["virtual", "external", "link"])
def test_labels_in_hdf5_are_not_read_from_other_files(tmp_path, opened, name, kind):
    (tmp_path / "raw").write_bytes(bytes(40 * 50))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["labels"] = np.ones((40, 50), np.uint8)
    path = tmp_path / "labels.h5"
    with h5py.File(path, "w") as file:
        if kind == "virtual":
            layout = h5py.VirtualLayout((40, 50), np.uint8)
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "labels", (40, 50))
            file.create_virtual_dataset("labels", layout)
        elif kind == "external":
            outside = [(str(tmp_path / "raw"), 0, 40 * 50)]
            file.create_dataset("labels", (40, 50), np.uint8, external=outside)
        else:
            file["labels"] = h5py.ExternalLink(tmp_path / "other.h5", "/labels")
    with pytest.raises(InputError, match=r"other files?, which|holds no array labels"):
        opened(name.format(path), PixelGrid(40, 50, Affine.identity(), None))


def test_labels_in_hdf5(tmp_path):
    values = numbers(np.random.default_rng(0))
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["labels"] = values
    truth = open_truth(tmp_path / "labels.h5", PixelGrid(40, 50, Affine.identity(), None))
    assert np.array_equal(truth.read(Window(0, 0, 40, 50)), values)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["labels.gpkg", "labels.tif"])
def test_a_pipe_holds_no_labels(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a pipe or a device"):
        open_truth(tmp_path / name, GRID)
