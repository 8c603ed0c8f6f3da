import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsiclust.georef import pixels_elsewhere
from hsiclust.grid import PixelGrid

UTM = CRS.from_epsg(32633).to_wkt()
COARSE = PixelGrid(10, 10, Affine(60, 0, 4e5, 0, -60, 5.8e6), UTM)
FINE = PixelGrid(20, 20, Affine(30, 0, 4e5, 0, -30, 5.8e6), UTM)


def elsewhere(pixels, source, target, reach=0):
    rows, cols = np.array(pixels).T
    found = np.stack(pixels_elsewhere(rows, cols, source, target, reach), axis=1)
    return {tuple(pixel) for pixel in found.tolist()}


def test_pixels_of_other_sizes_lie_under_each_other():
    assert elsewhere([(2, 3)], COARSE, FINE) == {(4, 6), (4, 7), (5, 6), (5, 7)}
    assert elsewhere([(4, 6), (5, 7)], FINE, COARSE) == {(2, 3)}


def test_pixels_beyond_the_grid_are_told_as_far_as_asked():
    shifted = PixelGrid(5, 5, FINE.transform @ Affine.translation(2, 0), UTM)
    assert elsewhere([(0, 0), (0, 1), (0, 2)], FINE, shifted) == {(0, 0)}
    assert elsewhere([(0, 0), (0, 1), (0, 2)], FINE, shifted, reach=1) == {(0, -1), (0, 0)}


@pytest.mark.parametrize(
    "other",
    [
        PixelGrid(20, 20),
        PixelGrid(20, 20, FINE.transform),
        PixelGrid(20, 20, Affine(30, 0, 9e5, 0, -30, 5.8e6), UTM),
        PixelGrid(20, 20, FINE.transform, CRS.from_epsg(32755).to_wkt()),  # in Australia
    ],
)
def test_grids_without_common_ground_share_no_pixel(other):
    assert elsewhere([(2, 3)], FINE, other, reach=50) == set()
