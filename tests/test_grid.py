import random

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.errors import UsageError
from hsiclust.grid import PixelGrid, Window
from hsiclust.spread import spread_windows
from hsiclust.tilegrid import RowsDone, TileGrid, even_tile_size, pad_reflect, reflect_indices


@st.composite
def tile_grids(draw: st.DrawFn) -> TileGrid:
    rows, cols = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    row, col = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    area = Window(row, col, draw(st.integers(1, rows - row)), draw(st.integers(1, cols - col)))
    return TileGrid(
        Window(0, 0, rows, cols),
        area,
        draw(st.integers(1, 50)),
        draw(st.integers(1, 50)),
        draw(st.integers(0, 45)),
    )


@given(tile_grids())
def test_cores_partition_the_area(grid: TileGrid) -> None:
    seen = np.zeros((grid.scene.rows, grid.scene.cols), int)
    for tile in grid:
        seen[tile.core.slices] += 1
    expected = np.zeros_like(seen)
    expected[grid.area.slices] = 1
    assert (seen == expected).all()


@given(tile_grids())
def test_padded_tile_is_a_cut_of_the_padded_scene(grid: TileGrid) -> None:
    scene = np.arange(grid.scene.pixels).reshape(1, grid.scene.rows, grid.scene.cols)
    halo = grid.halo
    padded = np.pad(scene, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    for tile in grid:
        block = pad_reflect(scene[(..., *tile.read.slices)], tile, grid.scene)
        core = tile.core
        expected = padded[
            :, core.row : core.row_stop + 2 * halo, core.col : core.col_stop + 2 * halo
        ]
        assert np.array_equal(block, expected)


@given(tile_grids())
def test_tiles_count_from_zero_and_end(grid: TileGrid) -> None:
    assert [tile.index for tile in grid] == list(range(len(grid)))
    with pytest.raises(IndexError):
        grid[len(grid)]


@given(st.integers(1, 30), st.integers(0, 70))
def test_reflect_indices_are_numpys(size: int, pad: int) -> None:
    expected = np.pad(np.arange(size), pad, mode="reflect")
    assert np.array_equal(reflect_indices(-pad, size + pad, size), expected)


@given(st.integers(1, 2000), st.integers(1, 300))
def test_even_tiles_are_small_enough_and_no_more_than_needed(length: int, largest: int) -> None:
    side = even_tile_size(length, largest)
    assert side <= largest
    assert -(-length // side) == -(-length // largest)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 100_000),
    st.integers(8, 64),
    st.integers(0, 9),
)
def test_spread_windows_lie_apart_within_the_area_and_the_budget(
    rows: int, cols: int, pixels: int, side: int, seed: int
) -> None:
    area = Window(7, 3, rows, cols)
    windows = spread_windows(area, pixels, side, np.random.default_rng(seed))
    seen = np.zeros((rows, cols), int)
    for window in windows:
        assert area.contains(window)
        seen[window.relative_to(area).slices] += 1
    assert seen.max() == 1
    if area.pixels <= pixels:
        assert seen.min() == 1
    else:
        assert seen.sum() <= max(pixels, min(side, rows) * min(side, cols))


def test_spread_windows_reach_every_part_of_a_large_area() -> None:
    area = Window(0, 0, 1000, 3000)
    windows = spread_windows(area, 300_000, 32, np.random.default_rng(0))
    thirds = {(window.row * 3 // 1000, window.col * 3 // 3000) for window in windows}
    assert len(thirds) == 9
    assert len(windows) * 32**2 > 200_000


@given(st.floats(-1e6, 1e6), st.floats(0.1, 100), st.floats(-3, 3), st.integers(0, 9))
def test_crop_keeps_pixels_on_their_ground(x: float, size: float, turn: float, shift: int) -> None:
    transform = Affine.translation(x, -x) @ Affine.rotation(turn * 60) @ Affine.scale(size, -size)
    grid = PixelGrid(20, 30, transform, "EPSG:32633")
    crop = grid.crop(Window(shift, 2 * shift, 5, 6))
    assert (crop.rows, crop.cols, crop.crs) == (5, 6, grid.crs)
    assert crop.transform @ (1.5, 2.5) == pytest.approx(transform @ (2 * shift + 1.5, shift + 2.5))


def test_crop_of_everything_is_the_same_grid_bit_by_bit() -> None:
    grid = PixelGrid(20, 30, Affine(30.1, 0.7, 383472.37, 0.2, -29.9, 5818302.35))
    assert grid.crop(grid.window) is grid


def test_bounds_of_a_window_give_the_window_back() -> None:
    grid = PixelGrid(100, 80, Affine(30.0, 0, 383472.37, 0, -30.0, 5818302.35))
    window = Window(13, 7, 21, 33)
    west, north = grid.transform @ (window.col, window.row)
    east, south = grid.transform @ (window.col_stop, window.row_stop)
    assert grid.window_of_bounds(west, south, east, north) == window
    assert grid.window_of_bounds(west - 1e9, south, east, north).col == 0


@pytest.mark.parametrize("bounds", [(0, 0, 1, 1), (5, 5, 1, 9)])
def test_bounds_elsewhere_or_upside_down_are_refused(
    bounds: tuple[float, float, float, float],
) -> None:
    grid = PixelGrid(100, 80, Affine(30.0, 0, 383472.37, 0, -30.0, 5818302.35))
    with pytest.raises(UsageError, match="bounds"):
        grid.window_of_bounds(*bounds)


def test_windows_and_grids_without_pixels_are_refused() -> None:
    with pytest.raises(UsageError):
        Window(0, 0, 0, 5)
    with pytest.raises(UsageError):
        PixelGrid(0, 5)
    with pytest.raises(UsageError, match="beyond"):
        PixelGrid(5, 5).crop(Window(0, 0, 6, 5))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    return Window(*(draw(st.integers(low, 40)) for low in (0, 0, 1, 1)))


@given(windows(), windows())
def test_windows_share_the_pixels_of_both(one: Window, other: Window) -> None:
    seen = np.zeros((2, 80, 80), bool)
    seen[0][one.slices] = seen[1][other.slices] = True
    shared = one.shared_with(other)
    assert shared == other.shared_with(one)
    found = np.zeros((80, 80), bool)
    if shared is not None:
        found[shared.slices] = True
    assert np.array_equal(found, seen.all(axis=0))


@given(tile_grids())
def test_tiles_hold_the_pixels_of_their_cores(grid: TileGrid) -> None:
    rows, cols = np.mgrid[
        grid.area.row : grid.area.row_stop, grid.area.col : grid.area.col_stop
    ].reshape(2, -1)
    holding = grid.holding(rows, cols)
    for tile in grid:
        here = holding == tile.index
        assert here.sum() == tile.core.pixels
        assert rows[here].min() == tile.core.row
        assert cols[here].max() == tile.core.col_stop - 1


@given(tile_grids(), windows())
def test_tiles_meet_a_window_where_their_cores_do(grid: TileGrid, window: Window) -> None:
    wanted = [tile for tile in grid if tile.core.shared_with(window) is not None]
    assert list(grid.meeting(window)) == wanted


@given(tile_grids(), st.randoms(use_true_random=False), st.integers(0, 100))
def test_rows_are_done_when_all_tiles_on_and_above_them_are(
    grid: TileGrid, chance: random.Random, before: int
) -> None:
    order = list(range(len(grid)))
    chance.shuffle(order)
    done = set(order[:before])
    rows = RowsDone(grid, order[before:])
    assert rows.after(()) == _whole_rows(grid, done)
    for index in order[before:]:
        done.add(index)
        assert rows.after([index]) == _whole_rows(grid, done)
    assert rows.after(()) == grid.area.rows


def _whole_rows(grid: TileGrid, done: set[int]) -> int:
    """Rows of the area above the first pixel of a tile that is not done."""
    missing = [tile.core.row for tile in grid if tile.index not in done]
    return min(missing, default=grid.area.row_stop) - grid.area.row
