from collections import Counter

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hsiclust.pyramid import Pyramid, levels_of, mean_of_known, most_frequent

RASTERS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda n: (2 * n[0], 2 * n[1]))
)


def squares(values):
    """The four pixels of each square, row by row."""
    for row in range(0, values.shape[0], 2):
        for col in range(0, values.shape[1], 2):
            yield [int(v) for v in values[row : row + 2, col : col + 2].ravel()]


@given(RASTERS.map(lambda values: values % 4))
def test_most_frequent(values):
    expected = []
    for square in squares(values):
        counted = Counter(value for value in square if value)  # the first of equals comes first
        expected.append(counted.most_common(1)[0][0] if counted else 0)
    assert most_frequent(values).ravel().tolist() == expected


@given(RASTERS)
def test_mean_of_known(values):
    values = np.where(values > 200, 255, values).astype(np.uint8)
    expected = []
    for square in squares(values):
        known = [value for value in square if value != 255]
        expected.append(int(sum(known) / len(known) + 0.5) if known else 255)
    assert mean_of_known(values).ravel().tolist() == expected


@given(st.data())
def test_rows_may_come_in_any_portions(tmp_path_factory, data):
    rows, cols = data.draw(st.integers(8, 40)), data.draw(st.integers(8, 40))
    values = np.random.default_rng(rows * cols).integers(0, 5, (rows, cols), np.uint8)
    shapes = levels_of(rows, cols, 4)
    whole = values
    pyramid = Pyramid(tmp_path_factory.mktemp("levels"), shapes, most_frequent)
    row = 0
    while row < rows:
        step = data.draw(st.integers(1, 9))
        pyramid.add(values[row : row + step])
        row += step
    for level, (high, wide) in zip(pyramid.levels, shapes, strict=True):
        whole = most_frequent(whole[: 2 * high, : 2 * wide])
        found = np.fromfile(level.file, np.uint8).reshape(level.rows, level.cols)
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("shape", [(300, 410), (128, 128), (129, 7), (1024, 1023), (515, 130)])
def test_as_many_levels_as_gdal_makes(tmp_path, shape):
    path = tmp_path / "cog.tif"
    kind = {"dtype": "uint8", "blocksize": 128, "transform": Affine.scale(2.0)}
    with rasterio.open(path, "w", "COG", shape[1], shape[0], 1, **kind) as dataset:
        dataset.write(np.ones(shape, np.uint8), 1)
    with rasterio.open(path) as dataset:
        count = len(dataset.overviews(1))
    found = []
    for number in range(count):
        with rasterio.open(path, overview_level=number) as overview:
            found.append(overview.shape)
    assert levels_of(*shape, 128) == found


def test_a_line_has_no_levels():
    assert levels_of(1, 5000, 512) == []
    assert levels_of(5000, 3, 512) == []
