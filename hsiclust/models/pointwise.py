"""Networks that see one pixel at a time, run over strips of pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

# Values beyond this many deviations are all alike: their squares stay finite.
FARTHEST = 1e4
# Values that exist at once while pixels are scored: 4 MB nearly stay in a cache.
_STRIP_VALUES = 2**20


class PixelNetwork(nn.Module, ABC):
    """Maps the features of each pixel to scores of the classes.

    Args:
        classes: Number of classes K.

    Attributes:
        exports: Whether it can become a part of an ONNX graph.
    """

    exports: ClassVar[bool] = True

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    @property
    @abstractmethod
    def floats_per_pixel(self) -> int:
        """Float32 values that `forward` holds at once for a pixel, beside its features."""

    @abstractmethod
    def decide(self, features: Tensor) -> Tensor:
        """Scores of M pixels: `(F, M)`, none of them far off, to `(K, M)`."""

    def forward(self, features: Tensor) -> Tensor:
        """`(N, F, H, W)` to `(N, K, H, W)`."""
        near = features.flatten(2).clamp(-FARTHEST, FARTHEST)
        scores = torch.stack([self.decide(pixels) for pixels in near])
        return scores.reshape(*scores.shape[:2], *features.shape[2:])


class PixelStrips(nn.Module):
    """Such a network in strips: the same values, but what it holds never exists for a whole tile.

    Strips end within rows: what one holds is bounded however wide the tile is.
    """

    fixed_bytes = 4 * _STRIP_VALUES

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Tensor) -> Tensor:
        """`(N, F, H, W)` to `(N, K, H, W)`."""
        count, _, rows, cols = values.shape
        pixels = max(1, _STRIP_VALUES // (self.network.floats_per_pixel * count))
        scores = values.new_empty(count, self.network.classes, 1, rows * cols)
        flat = values.flatten(2).unsqueeze(2)
        for start in range(0, rows * cols, pixels):
            strip = np.s_[..., start : start + pixels]
            scores[strip] = self.network(flat[strip])
        return scores.view(count, -1, rows, cols)
