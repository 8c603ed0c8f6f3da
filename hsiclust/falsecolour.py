"""A scene as people see it: three of its bands, thinned out to the size of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid, Window
from hsiclust.scene import Scene

Image = NDArray[np.uint8]

NO_DATA = (236, 236, 236)
# Near infrared, red, green: healthy plants are red, as in colour-infrared film.
_FALSE_COLOUR = (860.0, 650.0, 550.0)
_FARTHEST_NM = 60.0  # a band that lies farther off does not show that colour
_PERCENTILES = (2, 98)
_MOST_ROWS = 512  # read at once


def false_colour(path: str | Path, grid: PixelGrid, step: int) -> tuple[str, Image]:
    """Every `step`-th pixel of a scene, of which `grid` is the whole or a part.

    Rows that are not shown are not read, as far as the file's layout allows.

    Returns:
        What it shows, and red, green, blue `(row, col, 3)`; pixels without data are grey.

    Raises:
        InputError: The scene cannot be read, or `grid` is no part of it.
    """
    scene = Scene.open(path)
    bands, title = _shown_bands(scene)
    area = _place_in(scene, grid)
    rows = [_thinned_rows(scene, window, bands, step) for window in _block_rows(scene, area, step)]
    values = np.concatenate([block for block, _ in rows], axis=1)
    valid = np.concatenate([here for _, here in rows])
    return title, _stretched(values.astype(np.float64), valid)


def _block_rows(scene: Scene, area: Window, step: int) -> list[Window]:
    """Rows that hold a shown row, as they lie in the file: each block is decoded once."""
    height = min(scene.blocks[0], _MOST_ROWS)
    shown = range(area.row, area.row_stop, step)
    windows: dict[int, Window] = {}
    for row in shown:
        start = windows[row // height].row if row // height in windows else row
        windows[row // height] = Window(start, area.col, row + 1 - start, area.cols)
    return list(windows.values())


def _thinned_rows(
    scene: Scene, window: Window, bands: Sequence[int], step: int
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Shown pixels `(band, row, col)` of a window that starts with a shown row, and the valid."""
    block = scene.read(window, bands)
    valid = scene.valid(block, window)
    return np.ascontiguousarray(block[:, ::step, ::step]), valid[::step, ::step].copy()


def _place_in(scene: Scene, grid: PixelGrid) -> Window:
    """The window of the scene that the map covers.

    Raises:
        InputError: Their pixels are not the same.
    """
    shift = ~scene.grid.transform @ grid.transform
    window = Window(round(shift.f), round(shift.c), grid.rows, grid.cols)
    drift = np.subtract(shift[:6], (1, 0, window.col, 0, 1, window.row))
    reach = np.array([grid.cols, grid.rows, 1] * 2)  # how far a wrong scale gets across the map
    if np.abs(drift * reach).max() > 1e-3 or not scene.grid.window.contains(window):
        raise InputError(f"{scene.path}: its pixels are not those of the map; give the map's scene")
    return window


def _shown_bands(scene: Scene) -> tuple[list[int], str]:
    """Three bands for red, green and blue, and what to call them."""
    usable = scene.bands.usable() or tuple(range(scene.bands.count))
    if scene.bands.wavelengths is not None:
        centres = np.array(scene.bands.wavelengths)[list(usable)]
        distance = np.abs(centres[:, None] - np.array(_FALSE_COLOUR))  # (band, colour)
        if (distance.min(axis=0) <= _FARTHEST_NM).all():
            nearest = distance.argmin(axis=0)
            named = ", ".join(f"{centres[at]:.0f}" for at in nearest)
            return [usable[at] for at in nearest], f"Scene at {named} nm"
    bands = [usable[int(len(usable) * part)] for part in (0.75, 0.5, 0.25)]
    return bands, f"Scene, bands {', '.join(str(band + 1) for band in bands)}"


def _stretched(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> Image:
    """Each band between its percentiles, `(row, col, 3)`; pixels without data are grey."""
    image = np.full((*valid.shape, 3), NO_DATA, np.uint8)
    if not valid.any():
        return image
    for index, band in enumerate(values):
        low, high = np.percentile(band[valid], _PERCENTILES)
        shares = np.clip((band[valid] - low) / max(high - low, 1e-12), 0, 1)
        image[valid, index] = np.round(255 * shares)
    return image
