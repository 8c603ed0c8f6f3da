import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

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


@pytest.mark.parametrize("reach", [0, 1, 4])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.3, 3.0, 7.5])
@pytest.mark.parametrize("angle", [0, 30, 45])
def test_squares_around_the_pixels_cover_all_that_is_near(reach, scale, angle, monkeypatch):
    """Against the distance of every pixel, in pixels of either grid."""
    monkeypatch.setattr("hsiclust.georef._POINTS", 300)
    place = Affine.translation(4e5, 5.8e6) @ Affine.scale(10, -10)
    turned = Affine.translation(60, 50) @ Affine.rotation(angle) @ Affine.scale(scale)
    source, target = PixelGrid(9, 9, place @ turned, UTM), PixelGrid(120, 130, place, UTM)
    rows, cols = np.array([0, 3, 3]), np.array([0, 1, 2])
    marked = np.zeros((target.rows + 2 * reach, target.cols + 2 * reach), bool)
    there = pixels_elsewhere(rows, cols, source, target, reach)
    marked[there[0] + reach, there[1] + reach] = True
    found = ndimage.maximum_filter(marked, 2 * reach + 1)[reach:, reach:]
    found = found[: target.rows, : target.cols]
    row, col = np.indices(found.shape) + 0.5
    near = np.zeros(found.shape, bool)
    far = np.ones(found.shape, bool)
    x, y = ~turned @ (col, row)
    for at, left in zip(rows + 0.5, cols + 0.5, strict=True):
        apart = np.maximum(np.abs(y - at), np.abs(x - left))
        mid = turned @ (left, at)
        beside = np.maximum(np.abs(row - mid[1]), np.abs(col - mid[0]))
        near |= (apart < reach + 0.5 - 1e-6) | (beside < reach)
        far &= apart > reach + 0.5 + 1.5 * (reach + 1) / scale  # a square reaches so much farther
    assert near.any() or scale < 1
    assert found[near].all()
    assert far.any()
    assert not (found & far).any()
