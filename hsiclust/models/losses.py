"""Contrastive losses; modules without device or batch size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class NTXent(nn.Module):
    """Normalised temperature-scaled cross entropy (Chen et al. 2020, equation 1).

    For the pair (i, j) among the 2M vectors of both views,
    `l(i, j) = -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t))`, with the cosine s; the
    loss is the mean over both directions of all pairs.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two views of the same M pixels, `(M, K)` each, to a scalar."""
        count = len(first)
        both = functional.normalize(torch.cat([first, second]), dim=1)
        similarity = both @ both.T / self.temperature
        similarity.fill_diagonal_(float("-inf"))
        partner = torch.arange(2 * count, device=first.device).roll(count)
        return functional.cross_entropy(similarity, partner)


class BarlowTwins(nn.Module):
    """Redundancy reduction (Zbontar et al. 2021, equation 1).

    With C the cross-correlation of the two views' columns over the batch,
    `sum_i (1 - C_ii)^2 + off_diagonal * sum over i != j of C_ij^2`. On softmax outputs the
    columns are clusters: each must say the same of both views, and no two the same.
    """

    def __init__(self, off_diagonal: float = 0.005) -> None:
        super().__init__()
        self.off_diagonal = off_diagonal

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two views of the same M pixels, `(M, K)` each, to a scalar."""
        correlation = _standardise(first).T @ _standardise(second) / len(first)
        diagonal = torch.diagonal(correlation)
        on = (1 - diagonal).square().sum()
        off = correlation.square().sum() - diagonal.square().sum()
        return on + self.off_diagonal * off


def _standardise(columns: Tensor) -> Tensor:
    """Columns to mean 0 and deviation 1; a constant column to 0."""
    centred = columns - columns.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + 1e-12).sqrt()
