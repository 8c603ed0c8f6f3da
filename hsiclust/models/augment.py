"""Changes to the features of a pixel that leave its class alone."""

from __future__ import annotations

import torch
from torch import Tensor


def changed(features: Tensor, noise: float, dropout: float, generator: torch.Generator) -> Tensor:
    """Features with noise, some of them hidden; each pixel gets its own share of both.

    Args:
        features: `(M, F)`, standardised.
        noise: Largest deviation of the noise.
        dropout: Largest part of the features that are set to their mean, zero.
        generator: Random numbers, on the CPU.

    Returns:
        `(M, F)`.
    """
    count = len(features)
    size = tuple(features.shape)
    loud = noise * torch.rand(count, 1, generator=generator)
    hidden = dropout * torch.rand(count, 1, generator=generator)
    added = loud * torch.randn(size, generator=generator)
    kept = torch.rand(size, generator=generator) >= hidden
    return (features + added.to(features)) * kept.to(features)
