"""Kernel ridge classification: a classifier in closed form, which scores itself on each label.

With the Gaussian kernel K of the labelled pixels and one column of Y a class (1 or 0), the scores
of pixels x are `k(x) (K + r I)^-1 Y`. What the scores of a labelled pixel would be without its own
label follows from the same inverse, without fitting again (Rifkin and Lippert 2007, equation 5).
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


def solved(similar: Tensor, classes: Tensor, count: int) -> tuple[Tensor, float]:
    """Weights of labelled pixels, and how well they do on labels left out one by one.

    Args:
        similar: `(L, L)`, kernel of the labelled pixels.
        classes: `(L,)`, from 0.
        count: Number of classes K.

    Returns:
        `(L, K)`, and the share of the labels that the others give.
    """
    wanted = functional.one_hot(classes, count).to(similar)
    eye = torch.eye(len(similar), dtype=similar.dtype, device=similar.device)
    inverse = torch.linalg.inv(similar + _RIDGE * eye)
    weights = inverse @ wanted
    without = wanted - weights / torch.diagonal(inverse)[:, None]
    return weights, float((without.argmax(dim=1) == classes).to(torch.float32).mean())


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
