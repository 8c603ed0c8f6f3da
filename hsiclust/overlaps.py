"""Polygons of different classes that claim the same ground."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

from hsiclust.features import Geometries, Numbers

# Pixels that two polygons have in common at least: less may be the rounding of a shared border.
_LEAST = 0.5
# Corners of the polygons that are held against each other, before the search is given up.
_MOST_CORNERS = 5_000_000
# Pairs that are looked up at once: 64 MB.
_MOST_PAIRS = 2**22


def overlap_note(polygons: Geometries, numbers: Numbers, extent: shapely.Polygon) -> str | None:
    """What polygons of different classes have in common, in words; None when that is nothing.

    Args:
        polygons: `(N,)` in pixels.
        numbers: `(N,)` their classes.
        extent: The scene, in pixels; what lies outside is of no interest.
    """
    if len(polygons) < 2 or (numbers == numbers[0]).all():
        return None
    pairs, pixels, left = 0, 0.0, _MOST_CORNERS
    corners = shapely.get_num_coordinates(polygons)
    for one, other in _neighbours(polygons, numbers):
        cost = np.cumsum(corners[one] + corners[other])
        within = cost <= left
        common = _common(polygons[one[within]], polygons[other[within]], extent)
        pairs += int(np.count_nonzero(common >= _LEAST))
        pixels += float(common[common >= _LEAST].sum())
        left -= int(cost[-1])
        if left < 0:
            break
    if not pairs:
        return None
    return (
        f"polygons of different classes overlap (pairs: {'at least ' if left < 0 else ''}{pairs}, "
        f"pixels: about {max(1, round(pixels))}): the lower class number was taken there"
    )


def _neighbours(
    polygons: Geometries, numbers: Numbers
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs of polygons of different classes whose bounds meet, some at a time."""
    tree = shapely.STRtree(polygons)
    step = max(1, _MOST_PAIRS // len(polygons))
    for start in range(0, len(polygons), step):
        one, other = tree.query(polygons[start : start + step])
        one = one + start
        chosen = (one < other) & (numbers[one] != numbers[other])
        if chosen.any():
            yield one[chosen], other[chosen]


def _common(one: Geometries, other: Geometries, extent: shapely.Polygon) -> NDArray[np.float64]:
    """Area that the polygons of each pair have in common inside the scene, `(N,)`."""
    try:
        shared = shapely.intersection(shapely.intersection(one, other), extent)
    except shapely.GEOSException:  # one outline that crosses itself spoils a whole batch
        one, other = shapely.make_valid(one), shapely.make_valid(other)
        shared = shapely.intersection(shapely.intersection(one, other), extent)
    area: NDArray[np.float64] = shapely.area(shared)
    return area
