import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid, Window
from hsiclust.labelmap import write_confidence, write_map
from hsiclust.legend import LABELS_TAG
from hsiclust.mapformat import MapFormat
from hsiclust.palette import Classes
from hsiclust.reliability import ConfidenceMap, reliability, summarise

GRID = PixelGrid(6, 8, Affine(30, 0, 4e5, 0, -30, 5e6), CRS.from_epsg(32633).to_wkt())

FORM = MapFormat(tags={LABELS_TAG: "classes"})  # of both maps of a run


class Held:
    def __init__(self, values, dtype=np.uint16):
        self.values = np.atleast_2d(np.asarray(values, dtype))

    def read(self, window):
        return self.values[window.slices]


def reliability_of(truth, found, percents, matching):
    held = Held(found), Held(truth), Held(percents, np.uint8)
    return reliability(*held, matching, Window(0, 0, *held[0].values.shape))


def by_hand(right, sure, bins=10):
    """The definition, pixel by pixel: bins ((m - 1) / M, m / M], weighed by their pixels."""
    error = 0
    for m in range(1, bins + 1):
        inside = [at for at, p in enumerate(sure) if (m - 1) * 10 < p <= m * 10 or (p, m) == (0, 1)]
        if inside:
            accuracy = sum(right[at] for at in inside) / len(inside)
            confidence = sum(sure[at] for at in inside) / len(inside) / 100
            error += len(inside) / len(right) * abs(accuracy - confidence)
    return error


pixels = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 100)), min_size=1, max_size=80
)


@settings(max_examples=150, deadline=None)
@given(pixels=pixels)
def test_the_error_is_as_defined(pixels):
    truth, found, percents = zip(*pixels, strict=True)
    matching = {1: 2, 2: 1}  # the map's class 3 means nothing
    result = reliability_of(truth, found, percents, matching)
    labelled = [at for at, number in enumerate(truth) if number]
    right = [matching.get(found[at]) == truth[at] for at in labelled]
    sure = [percents[at] for at in labelled]
    assert result.pixels == len(labelled) == sum(each.pixels for each in result.bins)
    if not labelled:
        assert (result.ece, result.confidence, result.accuracy) == (None, None, None)
        return
    assert result.ece == pytest.approx(by_hand(right, sure))
    assert result.accuracy == pytest.approx(np.mean(right))
    assert result.confidence == pytest.approx(np.mean(sure) / 100)
    for each in result.bins:
        if each.pixels:
            assert each.above - 1e-9 <= each.confidence <= each.up_to + 1e-9


def test_honest_and_boastful_confidence():
    rng = np.random.default_rng(0)
    sure = rng.integers(50, 101, 60_000)
    found = np.where(rng.random(60_000) < sure / 100, 1, 2)
    truth = np.ones(60_000)
    honest = reliability_of(truth, found, sure, {1: 1})
    assert honest.ece < 0.01
    boastful = reliability_of(truth, found, np.minimum(sure + 20, 100), {1: 1})
    assert boastful.ece == pytest.approx(boastful.confidence - boastful.accuracy)
    assert boastful.ece > 0.1


def test_pixels_without_confidence_are_counted_apart():
    result = reliability_of([1, 1, 1, 0], [1, 0, 1, 1], [80, 255, 255, 255], {1: 1})
    assert (result.pixels, result.without) == (1, 2)
    assert result.ece == pytest.approx(0.2)
    assert result.bins[7].pixels == 1  # (0.7, 0.8]
    none = reliability_of([1], [1], [255], {1: 1})
    assert (none.pixels, none.without, none.ece) == (0, 1, None)
    json.dumps(none.to_json(), allow_nan=False)


def test_windows_add_up():
    rng = np.random.default_rng(1)
    shape = (1100, 1200)
    truth, found = rng.integers(0, 3, shape), rng.integers(0, 3, shape)
    percents = rng.integers(0, 101, shape)
    result = reliability_of(truth, found, percents, {1: 1, 2: 2})
    inside = truth > 0
    right = (truth == found)[inside]
    counts = [
        np.bincount(percents[inside][right == is_right], minlength=101) for is_right in (0, 1)
    ]
    assert result == summarise(np.array(counts))


# The file


def put(path, values, grid=GRID):
    write_confidence(Held(values, np.uint8), grid, path, FORM)
    return path


def test_the_map_that_predict_writes_is_read(tmp_path):
    values = np.arange(48).reshape(6, 8) * 2
    values[0] = 255
    read = ConfidenceMap.open(put(tmp_path / "c.tif", values), GRID).read(Window(0, 2, 3, 4))
    np.testing.assert_array_equal(read, values[:3, 2:6])
    assert read.dtype == np.uint8


def test_other_rasters_are_refused(tmp_path):
    values = np.full((6, 8), 50)
    for other in (
        PixelGrid(6, 8, GRID.transform @ Affine.translation(1, 0), GRID.crs),
        PixelGrid(6, 8, GRID.transform, CRS.from_epsg(32634).to_wkt()),
        PixelGrid(6, 8),
    ):
        path = put(tmp_path / "elsewhere.tif", values, other)
        with pytest.raises(InputError, match=r"elsewhere.tif: its pixels are not those of the map"):
            ConfidenceMap.open(path, GRID)
    profile = {"width": 8, "height": 6, "crs": "EPSG:32633", "transform": GRID.transform}
    for count, dtype in ((1, "float32"), (2, "uint8")):
        with rasterio.open(tmp_path / "f.tif", "w", count=count, dtype=dtype, **profile) as dataset:
            dataset.write(np.zeros((count, 6, 8), dtype))
        with pytest.raises(InputError, match=f"{count} bands of {dtype} are no confidence map"):
            ConfidenceMap.open(tmp_path / "f.tif", GRID)
    write_map(Held(values, np.uint8), GRID, tmp_path / "l.tif", Classes.numbered(50), FORM)
    with pytest.raises(InputError, match=r"l.tif: is a map of labels"):
        ConfidenceMap.open(tmp_path / "l.tif", GRID)
    with rasterio.open(tmp_path / "g.tif", "w", count=1, dtype="uint8", **profile) as dataset:
        dataset.write(np.full((1, 6, 8), 120, "uint8"))
    with pytest.raises(InputError, match=r"g.tif: confidence 120 is not 0 to 100"):
        ConfidenceMap.open(tmp_path / "g.tif", GRID).read(GRID.window)
