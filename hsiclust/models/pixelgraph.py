"""Graphs of pixels, along which what is known of some spreads to others.

A graph is kept as its random walk: a sparse matrix whose rows sum to 1, each pixel's neighbours by
their likeness.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from scipy import sparse

from hsiclust.models.pixeltable import NOWHERE, Neighbours, PixelTable

_NO_LIKENESS = 1e-12
_NEAREST = 10  # neighbours in the space of features
_CONTRAST = 3.0  # of the likeness of neighbours on the ground
# Pixels whose distances to all others exist at once.
_AT_ONCE = 2048
# Up to so many pixels, each finds its neighbours among all; of more, among some.
_ALL = 2**15
_SOME = 2**14
# Right, down, and both diagonals; the other four are the same pairs seen from the other end.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def ground_walk(table: PixelTable, features: Tensor) -> Tensor:
    """Neighbours on the ground, by the likeness `exp(-3 d / median d)` of their features.

    Args:
        table: The pixels.
        features: `(M, F)`.

    Returns:
        `(M, M)`, sparse.
    """
    neighbours, everything = Neighbours(table), torch.arange(len(table))
    everything = everything.to(features.device)
    firsts, seconds, distances = [], [], []
    for step in _STEPS:
        other = neighbours.at(everything, torch.tensor(step))
        there = (other != NOWHERE) & (other != everything)
        first, second = everything[there], other[there]
        # Where a step is cut short at a tile's edge it leads to a pixel that another step found.
        apart = table.places[second, 1:] - table.places[first, 1:]
        full = (apart == torch.tensor(step, device=apart.device)).all(dim=1)
        firsts.append(first[full])
        seconds.append(second[full])
        distances.append((features[first[full]] - features[second[full]]).square().mean(dim=1))
    distance = torch.cat(distances)
    typical = distance.median().clamp_min(1e-12) if len(distance) else torch.ones(())
    likeness = torch.exp(-_CONTRAST * distance / typical)
    pairs = torch.cat(firsts), torch.cat(seconds)
    return _walk(_both_ways(pairs[0], pairs[1], likeness, len(table)), features.device)


def feature_walk(features: Tensor) -> Tensor:
    """Nearest neighbours in the space of features, wherever they lie.

    The likeness is `exp(-d^2 / (s t))` with the distances s and t of both pixels to their last
    neighbour (Zelnik-Manor and Perona 2004).

    Args:
        features: `(M, F)`.

    Returns:
        `(M, M)`, sparse.
    """
    count = len(features)
    among = torch.arange(count)
    if count > _ALL:
        among = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:_SOME]
    among = among.to(features.device)
    found, apart = [], []
    for part in features.split(_AT_ONCE):
        distance, index = torch.cdist(part, features[among]).topk(
            min(_NEAREST + 1, len(among)), largest=False
        )
        found.append(among[index[:, 1:]])  # the first is the pixel itself, or one just like it
        apart.append(distance[:, 1:].square())
    others, squares = torch.cat(found), torch.cat(apart)
    last = squares[:, -1:]
    likeness = torch.exp(-squares / (last * last[others][:, :, 0] + 1e-12).sqrt())
    first = torch.arange(count, device=features.device)[:, None].expand_as(others)
    return _walk(
        _both_ways(first.flatten(), others.flatten(), likeness.flatten(), count), features.device
    )


def both(one: Tensor, other: Tensor) -> Tensor:
    """The walk that follows one of two graphs at each step, by the toss of a coin."""
    mean: Tensor = 0.5 * (one.to_sparse_coo() + other.to_sparse_coo())
    return mean.to_sparse_csr()


def spread(walk: Tensor, known: Tensor, part: float, rounds: int) -> Tensor:
    """What is known of pixels, spread: `P = part W P + (1 - part) known` (Zhou et al. 2004).

    Args:
        walk: `(M, M)`, sparse.
        known: `(M, K)`.
        part: How much comes from the neighbours.
        rounds: How often.

    Returns:
        `(M, K)`.
    """
    found = known
    for _ in range(rounds):
        found = part * (walk @ found) + (1 - part) * known
    return found


def _both_ways(first: Tensor, second: Tensor, likeness: Tensor, count: int) -> sparse.csr_matrix:
    """A symmetric matrix: the greater of both directions."""
    from scipy import sparse

    weights: NDArray[np.float64] = likeness.double().cpu().numpy()
    places = (first.cpu().numpy(), second.cpu().numpy())
    matrix = sparse.csr_matrix((weights, places), (count, count))
    return matrix.maximum(matrix.T)


def _walk(matrix: sparse.csr_matrix, device: torch.device) -> Tensor:
    """Rows that sum to 1; a pixel without neighbours worth the name stays where it is."""
    from scipy import sparse

    alone = np.asarray(matrix.sum(axis=1)).ravel() < _NO_LIKENESS
    matrix = matrix + sparse.diags(alone.astype(np.float64))
    total = np.asarray(matrix.sum(axis=1)).ravel()
    walk = (sparse.diags(1 / total) @ matrix).tocsr()
    walk.sort_indices()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(walk.indptr.astype(np.int64)),
            torch.from_numpy(walk.indices.astype(np.int64)),
            torch.from_numpy(walk.data.astype(np.float32)),
            walk.shape,
            check_invariants=True,
        ).to(device)
