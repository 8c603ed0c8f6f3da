"""Pixels of tiles, to learn from: drawn at random, or in pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hsiclust.models.base import Batch
from hsiclust.models.partitions import window_medians

FIT_PIXELS = 5000  # that each base partition is fitted to
_POOL_PIXELS = 2**15  # that the base partitions draw from
_STUDY_PIXELS = 2**17  # that the choices are made from


def thinned(tiles: Sequence[Batch]) -> list[Batch]:
    """Evenly chosen tiles with about `_STUDY_PIXELS` pixels to be learned from together."""
    pixels = sum(int(tile.fit.sum()) for tile in tiles)
    step = max(1.0, pixels / _STUDY_PIXELS)
    return [tiles[int(number * step)] for number in range(math.ceil(len(tiles) / step))]


def draw_places(
    tiles: Sequence[Batch], count: int, random: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Rows and columns in each tile of pixels drawn from all that may be learned from."""
    places = [torch.nonzero(tile.fit[0]) for tile in tiles]
    ends = torch.tensor([0, *(len(place) for place in places)]).cumsum(0)
    order = torch.randperm(int(ends[-1]), generator=random)[:count].sort().values
    found = []
    for place, start, end in zip(places, ends[:-1], ends[1:], strict=True):
        mine = place[(order[(order >= start) & (order < end)] - start).to(place.device)]
        found.append((mine[:, 0], mine[:, 1]))
    return found


def draw_pools(
    tiles: Sequence[Batch], windows: Sequence[int], random: torch.Generator
) -> dict[int, Tensor]:
    """Some pixels as seen through each median window, `(M, C)`; the same pixels for all."""
    places = draw_places(tiles, _POOL_PIXELS, random)
    pools: dict[int, list[Tensor]] = {window: [] for window in windows}
    for tile, (rows, cols) in zip(tiles, places, strict=True):
        for window in windows:
            if len(rows):
                edge = window // 2
                medians = window_medians(tile.within(edge).values[0], window, edge)
                pools[window].append(medians[:, rows, cols].T)
    return {window: torch.cat(parts) for window, parts in pools.items()}


def some(pixels: Tensor, count: int, random: torch.Generator) -> Tensor:
    """So many of them, or all: `(M, C)` to `(count, C)`."""
    return pixels[torch.randperm(len(pixels), generator=random)[:count].to(pixels.device)]


def pairs(values: Tensor, fit: Tensor, lag: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Values of pixels `lag` apart both of which may be learned from: down, then across.

    Args:
        values: `(..., row, col)`.
        fit: `(row, col)`.
        lag: Pixels.

    Yields:
        Two `(..., M)`.
    """
    for here, there in (
        (np.s_[..., lag:, :], np.s_[..., :-lag, :]),
        (np.s_[..., lag:], np.s_[..., :-lag]),
    ):
        both = fit[here] & fit[there]
        yield values[here][..., both], values[there][..., both]
