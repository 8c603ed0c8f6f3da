"""The order of clusters: the same run, the same numbers and colours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from hsiclust.crops import StoredTiles
from hsiclust.grid import Window
from hsiclust.labeller import TorchLabeller
from hsiclust.models.base import Method
from hsiclust.tiles import TileStore
from hsiclust.truth import open_truth

log = logging.getLogger(__name__)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledTile:
    """Labels of one tile's core, of the pixels that were learned from.

    Attributes:
        store: The store that the tile comes from.
        core: Where it lies in the scene.
        labels: `(row, col)`, 0 where a pixel was not learned from.
    """

    store: TileStore
    core: Window
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledSample:
    """The training pixels as a method labels them.

    Attributes:
        tiles: Their labels.
        counts: `(K,)`, pixels of each cluster.
        brightness: `(K,)`, mean of the first component of each cluster; 0 for an empty one.
    """

    tiles: Sequence[LabelledTile]
    counts: Counts
    brightness: NDArray[np.float64]


def label_sample(method: Method, tiles: Sequence[StoredTiles]) -> LabelledSample:
    """Label the pixels that a method has learned from."""
    labeller = TorchLabeller(method, next(iter(method.state_dict().values())).device)
    labelled: list[LabelledTile] = []
    counts = np.zeros(method.classes + 1, np.int64)
    sums = np.zeros(method.classes + 1)
    for source in tiles:
        halo = source.store.tiles.halo
        for index in source.indices:
            tile = source.store.tiles[index]
            components = source.store.read(tile)
            labels = labeller(components.trimmed(halo - labeller.halo)).classes
            if source.mask is not None:
                labels = np.where(source.mask.read(tile.core), labels, 0).astype(np.uint8)
            flat = labels.ravel()
            first = components.trimmed(halo).values[0].cpu().numpy().ravel()
            counts += np.bincount(flat, minlength=len(counts))
            sums += np.bincount(flat, weights=first, minlength=len(counts))
            labelled.append(LabelledTile(source.store, tile.core, labels))
    brightness = sums[1:] / np.maximum(counts[1:], 1)
    return LabelledSample(labelled, counts[1:], brightness)


def canonical_order(sample: LabelledSample) -> list[int]:
    """Used clusters by rising mean of the first component, then the empty ones."""
    empty = sample.counts == 0
    return [int(cluster) for cluster in np.lexsort((sample.brightness, empty))]


def order_like_map(sample: LabelledSample, path: str | Path) -> list[int]:
    """The order that agrees best with the class numbers of an earlier map (Kuhn 1955).

    Raises:
        InputError: The map cannot be read, or does not lie where the scenes do.
    """
    classes = len(sample.counts)
    shared = np.zeros((classes, classes))  # cluster, number in the map
    grids = {tile.store.path: tile.store.grid for tile in sample.tiles}
    maps = {store: open_truth(path, grid) for store, grid in grids.items()}
    for tile in sample.tiles:
        numbers = maps[tile.store.path].read(tile.core)
        both = (tile.labels > 0) & (numbers > 0) & (numbers <= classes)
        np.add.at(shared, (tile.labels[both] - 1, numbers[both].astype(int) - 1), 1)
    if not shared.any():
        log.warning("%s: shares no labelled pixel with the scenes; numbers are arbitrary", path)
    clusters, numbers = linear_sum_assignment(shared, maximize=True)
    order = np.empty(classes, int)
    order[numbers] = clusters
    return order.tolist()
