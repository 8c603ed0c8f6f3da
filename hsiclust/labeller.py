"""Components to labels and confidence: the last step, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hsiclust.components import Components
from hsiclust.labels import UNSURE
from hsiclust.models.base import Method


@dataclass(frozen=True)
class Labels:
    """Labels of a tile's core.

    Attributes:
        classes: `(row, col)`, uint8; 0 unclassified, 1 to K.
        confidence: `(row, col)`, uint8; per cent, 255 where unclassified.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


class Labeller:
    """A method, ready to label tiles from any thread.

    Args:
        method: A fitted method.
        device: Where it computes.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self.method = method.to(device)
        self.device = device
        self.network = method.settled().to(device)

    def __call__(self, components: Components, halo: int | None = None) -> Labels:
        """Label a tile.

        Args:
            components: A tile with its halo.
            halo: Its halo; the method's own when None. A larger one is cut.
        """
        trim = (self.method.halo if halo is None else halo) - self.method.halo
        values = _trimmed(components.values, trim)[None].to(self.device)
        valid = _trimmed(components.valid, trim + self.method.halo).to(self.device)
        with torch.inference_mode():
            scores = self.network(values.contiguous(memory_format=torch.channels_last))
            best = scores[0].argmax(dim=0) + 1
            sure = (self.method.confidence(scores)[0] * 100).round().clamp(0, 100)
            classes = best.where(valid, 0).to(torch.uint8)
            confidence = sure.where(valid, UNSURE).to(torch.uint8)
        return Labels(classes.cpu().numpy(), confidence.cpu().numpy())


def _trimmed(values: torch.Tensor, edge: int) -> torch.Tensor:
    """The last two axes without `edge` pixels on each side."""
    return values if edge == 0 else values[..., edge:-edge, edge:-edge]
