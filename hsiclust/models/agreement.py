"""How much labels say of other labels: those of another labelling, or of pixels further on.

Families of base partitions are compared by the latter: what suits a scene labels one ground alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsiclust.information import normalised_information
from hsiclust.models.base import Batch
from hsiclust.models.partitions import (
    Draw,
    Family,
    component_range,
    fit_partition,
    most_clusters,
)
from hsiclust.models.pixels import FIT_PIXELS, draw_pools, pairs, some

FAR = 5  # pixels: further than noise and the optics' blur reach
_TRIALS = 4
# Spheres that say as much as full Gaussians, within what chance makes of it, are not drawn; where
# they say a fifth more, nothing else is.
_SPHERES_FROM, _SPHERES_TO = 1.05, 1.2


def agreement(first: Tensor, second: Tensor) -> float:
    """Normalised mutual information of two labellings, `(M,)` each; 0 where both are one class."""
    size = int(torch.maximum(first.max(), second.max())) + 1
    return normalised_information(_table(first, second, size), alone=0.0)


def far_agreement(
    tiles: Sequence[Batch], classes: int, family: Family, random: torch.Generator
) -> float:
    """What labels of unsmoothed partitions say of labels `FAR` pixels away, 0 to 1.

    Args:
        tiles: One tile each.
        classes: Clusters K of the consensus.
        family: Of the partitions.
        random: Random numbers.
    """
    pool = draw_pools(tiles, [1], random)[1]
    weights = torch.ones(pool.shape[1], device=pool.device)
    scores = []
    for trial in range(_TRIALS):
        draw = _trial(family, pool.shape[1], classes, (trial + 0.5) / _TRIALS)
        gaussians = fit_partition(some(pool, FIT_PIXELS, random), weights, draw, random)
        counts = np.zeros((draw.clusters, draw.clusters), np.int64)
        for tile in tiles:
            labels = gaussians.labels(tile.within(0).values[0])
            for here, there in pairs(labels, tile.fit[0], FAR):
                counts += _table(here, there, draw.clusters)
        scores.append(normalised_information(counts, alone=0.0))
    return sum(scores) / len(scores)


def spheres_share(mixtures: float, spheres: float) -> float:
    """Part of the partitions that is k-means, by how much more its labels say of far ones."""
    ratio = spheres / max(mixtures, 1e-9)
    return min(max((ratio - _SPHERES_FROM) / (_SPHERES_TO - _SPHERES_FROM), 0.0), 1.0)


def _trial(family: Family, components: int, classes: int, part: float) -> Draw:
    """One of the partitions that are compared: few components and clusters, to many."""
    least, most = component_range(components, classes)
    return Draw(
        family=family,
        components=least + round((most - least) * part),
        whitened=False,
        window=1,
        clusters=min(round(classes * (1 + 2 * part)), most_clusters(classes)),
        shrinkage=0.1,
    )


def _table(first: Tensor, second: Tensor, size: int) -> NDArray[np.int64]:
    """How many pixels have each pair of labels: `(M,)` twice to `(size, size)`."""
    counts = torch.bincount(first * size + second, minlength=size * size)
    table: NDArray[np.int64] = counts.view(size, size).cpu().numpy()
    return table
