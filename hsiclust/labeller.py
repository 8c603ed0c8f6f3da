"""Components to labels and confidence: the last step, on the device."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hsiclust.components import Components
from hsiclust.errors import UsageError
from hsiclust.models.base import Method
from hsiclust.models.encoder import fold_skips
from hsiclust.palette import UNSURE


@dataclass(frozen=True)
class Labels:
    """Labels of a tile's core.

    Attributes:
        classes: `(row, col)`, uint8; 0 unclassified, 1 to K.
        confidence: `(row, col)`, uint8; per cent, 255 where unclassified; None where nobody asked.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None

    @classmethod
    def none(cls, shape: tuple[int, int], confidence: bool) -> Labels:
        """Of a block without a valid pixel.

        Args:
            shape: Rows and columns.
            confidence: Whether to say how sure each label is.
        """
        return cls(
            np.zeros(shape, np.uint8), np.full(shape, UNSURE, np.uint8) if confidence else None
        )

    @property
    def percent(self) -> NDArray[np.int16]:
        """The confidence as signed numbers, to reckon with.

        Raises:
            UsageError: It was not asked for.
        """
        if self.confidence is None:
            raise UsageError("these labels came without confidence")
        return self.confidence.astype(np.int16)


class Labeller(Protocol):
    """A fitted model on one machine, whatever computes it; called from any thread."""

    @property
    def halo(self) -> int:
        """Pixels around a block that its labels depend on."""
        ...

    def __call__(self, components: Components) -> Labels:
        """Labels of a block that comes with a halo of this size."""
        ...


class TorchLabeller:
    """A method, ready to label blocks.

    Args:
        method: A fitted method.
        device: Where it computes.
        dtype: What the network computes in; scores are compared in float32.
        confidence: Whether to say how sure each label is.
    """

    def __init__(
        self,
        method: Method,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        confidence: bool = False,
    ) -> None:
        self.method = method.to(device)
        self.device = device
        self.dtype = dtype
        self.confidence = confidence
        if device.type == "cuda":
            # float32 means float32: convolutions would keep 10 bits of it by themselves.
            torch.backends.cudnn.allow_tf32 = False
        network = copy.deepcopy(method.settled())
        if dtype == torch.float32:
            fold_skips(network)
        self.network = network.to(device, dtype)
        if device.type == "cpu":
            _hand_to_onednn(self.network)

    @property
    def halo(self) -> int:
        """That of the method."""
        return self.method.halo

    def __call__(self, components: Components) -> Labels:
        """Label a block.

        Args:
            components: The block with its halo.
        """
        valid = components.trimmed(self.halo).valid.to(self.device)
        if not valid.any():  # a margin of many scenes: the network is nearly all of the time
            rows, cols = valid.shape
            return Labels.none((rows, cols), self.confidence)
        with torch.inference_mode():
            scores = self.scores(components)
            best = scores.max(dim=1).indices[0] + 1  # much faster than argmax
            classes = best.where(valid, 0).to(torch.uint8)
            if not self.confidence:
                return Labels(classes.cpu().numpy(), None)
            sure = (self.method.confidence(scores)[0] * 100).round().clamp(0, 100)
            confidence = sure.where(valid, UNSURE).to(torch.uint8)
        return Labels(classes.cpu().numpy(), confidence.cpu().numpy())

    def scores(self, components: Components) -> torch.Tensor:
        """Class scores of a block, `(1, K, row, col)`, float32; its halo is gone."""
        # Every library's kernels are fastest with the channels of a pixel side by side.
        values = components.values.movedim(0, -1)[None].to(self.device, self.dtype).contiguous()
        with torch.inference_mode():
            found: torch.Tensor = self.network(values.movedim(-1, 1))
            return found.float()


def _hand_to_onednn(network: nn.Module) -> None:
    """Have 1 x 1 convolutions computed by the library that computes all others.

    On one thread torch takes a general matrix product for them, unless they are dilated, which
    means nothing for a single weight. oneDNN's kernels are up to twice as fast.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.dilation = (2, 2)
