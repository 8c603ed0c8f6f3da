from collections import Counter

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hsiclust.pyramid import Pyramid, levels_of, mean_of_known, most_frequent

CELLS = arrays.arrays(np.uint8, st.tuples(st.just(4), st.integers(1, 6), st.integers(1, 6)))


@given(CELLS.map(lambda corners: corners % 4))
def test_most_frequent(corners):
    expected = []
    for cell in corners.reshape(4, -1).T.tolist():
        counted = Counter(value for value in cell if value)  # the first of equals comes first
        expected.append(counted.most_common(1)[0][0] if counted else 0)
    assert most_frequent(list(corners)).ravel().tolist() == expected


@given(CELLS)
def test_mean_of_known(corners):
    corners = np.where(corners > 200, 255, corners).astype(np.uint8)
    expected = []
    for cell in corners.reshape(4, -1).T.tolist():
        known = [value for value in cell if value != 255]
        expected.append(int(sum(known) / len(known) + 0.5) if known else 255)
    assert mean_of_known(list(corners), 255).ravel().tolist() == expected


@given(st.data())
def test_rows_may_come_in_any_portions(tmp_path_factory, data):
    rows, cols = data.draw(st.integers(8, 40)), data.draw(st.integers(8, 40))
    values = np.random.default_rng(rows * cols).integers(0, 5, (rows, cols), np.uint8)
    shapes = levels_of(rows, cols, 4)
    whole = values
    folder = tmp_path_factory.mktemp("levels")
    pyramid = Pyramid(folder, (rows, cols), shapes, most_frequent)
    row = 0
    while row < rows:
        step = data.draw(st.integers(1, 9))
        pyramid.add(values[row : row + step])
        row += step
    for level, (high, wide) in zip(pyramid.levels, shapes, strict=True):
        # Corners of cells that cover the raster from edge to edge, as evenly as can be.
        tops, lefts = (
            [n * size // cells for n in range(cells + 1)]
            for size, cells in ((whole.shape[0], high), (whole.shape[1], wide))
        )
        corners = [
            np.array(
                [
                    [whole[tops[i + a] - a, lefts[j + b] - b] for j in range(wide)]
                    for i in range(high)
                ]
            )
            for a in (0, 1)
            for b in (0, 1)
        ]
        whole = most_frequent(corners)
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
