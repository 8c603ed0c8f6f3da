"""The grain of a scene: how far its components stay alike, and so how far to look around a pixel.

Smoothing over more pixels than its features are wide would mix what it should tell apart, and
smoothing over fewer would leave noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hsiclust.models.base import Batch
from hsiclust.models.pixels import pairs

# Shortest correlation length, pixels, that each median and each histogram window needs.
_MEDIAN_LENGTHS = {1: 0.0, 3: 2.0, 5: 3.0, 9: 4.5}
_HISTOGRAM_LENGTHS = {1: 0.0, 3: 3.0, 5: 5.0}
_MEDIANS_DRAWN = 3  # the largest that are allowed
_COMPONENTS = 12
_LONGEST = 50.0
_LEAST_CORRELATION = 0.05  # less than this between neighbours is chance

HISTOGRAM_WINDOWS = tuple(_HISTOGRAM_LENGTHS)


def median_windows(length: float) -> list[int]:
    """Median windows for a scene whose components stay alike over `length` pixels."""
    return [window for window, need in _MEDIAN_LENGTHS.items() if length >= need][-_MEDIANS_DRAWN:]


def histogram_window(length: float) -> int:
    """Window of the histograms for such a scene."""
    return max(window for window, need in _HISTOGRAM_LENGTHS.items() if length >= need)


def correlation_length(tiles: Sequence[Batch]) -> float:
    """Pixels over which the leading components lose all but 1/e of their correlation.

    From the correlations at lags 1 and 3, of which noise takes the same part:
    `-2 / log(rho(3) / rho(1))`.
    """
    near, far = (_autocorrelation(tiles, lag) for lag in (1, 3))
    if near < _LEAST_CORRELATION:
        return 0.0
    if far >= near:
        return _LONGEST
    return min(_LONGEST, -2 / math.log(max(far / near, 1e-6)))


def _autocorrelation(tiles: Sequence[Batch], lag: int) -> float:
    """Correlation of pixels `lag` apart with both to be learned from, over rows and columns."""
    product = power = 0.0
    mean = _mean(tiles)
    for tile in tiles:
        for first, second in pairs((_core(tile) - mean) * tile.fit[0], tile.fit[0], lag):
            product += float((first * second).sum())
            power += float(first.square().sum() + second.square().sum()) / 2
    return product / power if power > 0 else 0.0


def _mean(tiles: Sequence[Batch]) -> Tensor:
    """Of the pixels to be learned from, `(c, 1, 1)`."""
    pixels = [_core(tile)[:, tile.fit[0]] for tile in tiles]
    return torch.cat(pixels, dim=1).mean(dim=1)[:, None, None]


def _core(tile: Batch) -> Tensor:
    """Leading components of the pixels that a tile may be learned from, `(c, row, col)`."""
    return tile.within(0).values[0, :_COMPONENTS]
