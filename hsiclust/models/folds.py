"""Folds of labels for cross-validation that is as hard as the map.

A label that is left out tells how good a map will be only if the labels that are left lie as far
from it as labels lie from the pixels of the map (Linnenbrink et al. 2024, kNNDM). Labels spread
over the scene may be left out at random; labels that lie on a part of it, by places.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial import cKDTree
from torch import Tensor

COUNT = 5
_QUANTILES = np.linspace(0.02, 0.98, 49)
# Numbers of places that are tried, as parts of the labels; one place a label is a random fold.
_PARTS = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.09, 0.06, 0.04, 0.03, 0.02, 0.01)
_PIXELS = 4000  # of the map that stand for all


def folds(
    classes: Tensor, labels: Tensor, pixels: Tensor, generator: torch.Generator
) -> tuple[Tensor, int]:
    """The fold of each label.

    Args:
        classes: `(L,)`, class of each label, from 0.
        labels: `(L, 2)`, rows and columns on the ground.
        pixels: `(M, 2)`, those of pixels that are to be mapped.
        generator: Random numbers.

    Returns:
        `(L,)`, 0 to 4, and how many places they were divided by.
    """
    ground = labels.double().cpu().numpy()
    there = _some_of(pixels, generator)
    wanted = np.quantile(cKDTree(ground).query(there)[0], _QUANTILES)
    best, places = _scattered(classes, generator), len(ground)
    least = _distance(ground, best, wanted)
    tree = linkage(ground, "average") if len(ground) > COUNT else None
    for count in sorted({max(COUNT, round(part * len(ground))) for part in _PARTS}, reverse=True):
        if tree is None or count >= len(ground):
            continue
        tried = _gathered(fcluster(tree, count, "maxclust") - 1, generator)
        distance = _distance(ground, tried, wanted)
        if distance < least:
            best, least, places = tried, distance, count
    return torch.from_numpy(best).to(classes.device), places


def coverage(labels: Tensor, pixels: Tensor, generator: torch.Generator) -> float:
    """How well labels cover the ground that is to be mapped.

    Args:
        labels: `(L, 2)`, rows and columns on the ground.
        pixels: `(M, 2)`, those of pixels that are to be mapped.
        generator: Random numbers.

    Returns:
        Mean distance of a label to the nearest other one, over that of a pixel to the nearest
        label: about 1 where labels are drawn anywhere, 0 where they lie together.
    """
    if len(labels) < 2:
        return 0.0
    ground = labels.double().cpu().numpy()
    there = _some_of(pixels, generator)
    tree = cKDTree(ground)
    apart = tree.query(ground, k=2)[0][:, 1].mean()
    return float(apart / max(tree.query(there)[0].mean(), 1e-9))


def _some_of(pixels: Tensor, generator: torch.Generator) -> NDArray[np.float64]:
    """At most `_PIXELS` of them at random, `(P, 2)`: they stand for all."""
    chosen = torch.randperm(len(pixels), generator=generator)[:_PIXELS]
    return pixels[chosen.to(pixels.device)].double().cpu().numpy()


def _scattered(classes: Tensor, generator: torch.Generator) -> NDArray[np.int64]:
    """Labels of a class in as many folds as there can be, at random."""
    known = classes.cpu()
    fold = torch.zeros(len(known), dtype=torch.int64)
    for number in known.unique().tolist():
        mine = torch.nonzero(known == number)[:, 0]
        mine = mine[torch.randperm(len(mine), generator=generator)]
        first = int(torch.randint(COUNT, (1,), generator=generator))
        fold[mine] = (torch.arange(len(mine)) + first) % COUNT
    return fold.numpy()


def _gathered(place: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
    """Whole places in folds of about the same number of labels: the largest first."""
    sizes = np.bincount(place)
    order = torch.randperm(len(sizes), generator=generator).numpy()
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, filled = np.zeros(len(sizes), np.int64), np.zeros(COUNT, np.int64)
    for number in order:
        fold_of[number] = filled.argmin()
        filled[fold_of[number]] += sizes[number]
    return fold_of[place]


def _distance(
    ground: NDArray[np.float64], fold: NDArray[np.int64], wanted: NDArray[np.float64]
) -> float:
    """How far labels lie from those of other folds, against how far they should: mean difference.

    Wasserstein's distance of the two distributions of nearest distances.
    """
    nearest = np.full(len(ground), np.inf)
    for number in np.unique(fold):
        mine = fold == number
        if not mine.all():
            nearest[mine] = cKDTree(ground[~mine]).query(ground[mine])[0]
    if not np.isfinite(nearest).all():
        return np.inf
    return float(np.abs(np.quantile(nearest, _QUANTILES) - wanted).mean())
