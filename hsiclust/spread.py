"""Windows spread over an area: what a bounded sample of a scene is made of."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hsiclust.grid import Window
from hsiclust.tilegrid import TileGrid


def spread_windows(
    area: Window, pixels: int, side: int, generator: np.random.Generator
) -> list[Window]:
    """Windows spread evenly over an area that hold about `pixels` pixels together.

    An area that holds no more than that is cut into windows that cover it. A larger one is
    divided into equal cells and each gets one window at a random place.

    Args:
        area: Where the windows lie.
        pixels: How many pixels they may hold together.
        side: Largest side of a window.
        generator: Places the windows.
    """
    if area.pixels <= pixels:
        tiles = TileGrid(area, area, min(side, area.rows), min(side, area.cols), 0)
        return [tile.core for tile in tiles]
    height, width = min(side, area.rows), min(side, area.cols)
    count = max(1, pixels // (height * width))
    down = round((count * area.rows * width / (area.cols * height)) ** 0.5)
    down = int(np.clip(down, 1, min(count, area.rows // height)))
    across = int(np.clip(count // down, 1, area.cols // width))
    row_edges = area.row + np.arange(down + 1) * area.rows // down
    col_edges = area.col + np.arange(across + 1) * area.cols // across
    return [
        Window(
            int(generator.integers(top, bottom - height + 1)),
            int(generator.integers(left, right - width + 1)),
            height,
            width,
        )
        for top, bottom in pairwise(row_edges)
        for left, right in pairwise(col_edges)
    ]
