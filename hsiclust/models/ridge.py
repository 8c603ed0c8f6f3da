"""Kernel ridge classification: a classifier in closed form.

With the Gaussian kernel K of the labelled pixels and one column of Y a class (1 or 0), the scores
of pixels x are `k(x) (K + r I)^-1 Y`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_RIDGE = 0.02
_GAMMA = 1.0  # of features of mean square 1
# Pixels whose kernel exists at once.
_AT_ONCE = 2**13


def scaled(features: Tensor) -> Tensor:
    """Features whose squared length is 1 on average, `(M, F)`."""
    return features / features.square().sum(dim=1).mean().clamp_min(1e-12).sqrt()


def kernel(pixels: Tensor, others: Tensor) -> Tensor:
    """`exp(-gamma |x - y|^2)`: `(M, F)` and `(L, F)` to `(M, L)`."""
    return torch.exp(-_GAMMA * torch.cdist(pixels, others).square())


def solved(similar: Tensor, classes: Tensor, count: int) -> Tensor:
    """Weights of labelled pixels.

    Args:
        similar: `(L, L)`, kernel of the labelled pixels.
        classes: `(L,)`, from 0.
        count: Number of classes K.

    Returns:
        `(L, K)`.
    """
    wanted = functional.one_hot(classes, count).to(similar)
    eye = torch.eye(len(similar), dtype=similar.dtype, device=similar.device)
    weights: Tensor = torch.linalg.solve(similar + _RIDGE * eye, wanted)
    return weights


def scores(pixels: Tensor, labelled: Tensor, weights: Tensor) -> Tensor:
    """Scores of pixels.

    Args:
        pixels: `(M, F)`.
        labelled: `(L, F)`.
        weights: `(L, K)`, of as many fits as there are side by side.

    Returns:
        `(M, K)`.
    """
    return torch.cat([kernel(part, labelled) @ weights for part in pixels.split(_AT_ONCE)])
