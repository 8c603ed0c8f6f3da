"""Landmarks, and the groups that they fall into: the classes of the consensus.

A landmark is the description of a pixel, of unit length; pixels that are described alike belong
together.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hsiclust.models.kmeans import lloyd

# Similarities are raised to this power before the linkage: near counts more than not far.
_SHARPNESS = 4
# A cluster that holds less than this part of its fair share is none of the K.
_SMALLEST_SHARE = 0.08
_SAME = 1e-6  # a distance that rounding makes
_MOST_CUTS = 60  # times K clusters are tried before fewer than K are accepted
_EVEN_SHARPNESS = 3
_EVEN_STARTS, _EVEN_ROUNDS = 10, 30


def linked_groups(landmarks: NDArray[np.float32], classes: int) -> list[NDArray[np.intp]]:
    """The K clusters of landmarks that the tree of average linkage parts first.

    Average linkage bears clusters of very unequal size. The tree is cut where K of its clusters
    are no mere outliers.

    Args:
        landmarks: `(M, F)`, of unit length.
        classes: Clusters K.

    Returns:
        Indices of each cluster's landmarks, largest first; fewer than K clusters where fewer
        landmarks differ.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    similarity = np.clip(landmarks @ landmarks.T, 0, 1) ** _SHARPNESS
    distance = 1 - (similarity + similarity.T) / 2
    distance[distance < _SAME] = 0  # rounding parts nobody
    tree = linkage(squareform(distance, checks=False), "average")
    different = 1 + int((tree[:, 2] > 0).sum())
    smallest = max(1.0, _SMALLEST_SHARE * len(landmarks) / classes)
    names = fcluster(tree, min(classes, different), "maxclust")
    for cut in range(classes, min(_MOST_CUTS * classes, different) + 1):
        finer = fcluster(tree, cut, "maxclust")
        if (np.bincount(finer) >= smallest).sum() >= classes:
            names = finer
            break
    counts = np.bincount(names)
    largest = np.argsort(-counts, kind="stable")[:classes]
    return [np.flatnonzero(names == name) for name in largest if counts[name] > 0]


def even_groups(landmarks: Tensor, classes: int, random: torch.Generator) -> list[NDArray[np.intp]]:
    """K groups of landmarks by spectral clustering (Ng, Jordan, Weiss 2002).

    For even clouds, which have no tree: k-means on the K leading eigenvectors of the normalised
    similarity.

    Args:
        landmarks: `(M, F)`, of unit length.
        classes: Clusters K.
        random: Random numbers.

    Returns:
        Indices of each group's landmarks, largest first; empty groups are left out.
    """
    from scipy.linalg import eigh

    classes = min(classes, len(landmarks))
    similarity = (landmarks @ landmarks.T).clamp(0, 1).double() ** _EVEN_SHARPNESS
    root = similarity.sum(dim=1).rsqrt()
    last = len(landmarks) - 1
    _, vectors = eigh(
        (root[:, None] * similarity * root).numpy(), subset_by_index=(last - classes + 1, last)
    )
    rows = functional.normalize(torch.from_numpy(vectors).float(), dim=1)
    centres = lloyd(rows, classes, random, _EVEN_STARTS, _EVEN_ROUNDS)
    names = torch.cdist(rows, centres).argmin(dim=1).numpy()
    groups = [np.flatnonzero(names == name) for name in range(classes)]
    return sorted((group for group in groups if len(group)), key=len, reverse=True)
