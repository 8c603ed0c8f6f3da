"""What every method is: a network from components to class scores that learns batch by batch.

The training loop, the tiling and the map know methods only through `Method`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

LARGEST_CLASSES = 255  # labels are bytes, and 0 is "unclassified"


@dataclass(frozen=True)
class CropShape:
    """What a training batch looks like.

    Attributes:
        count: Crops in a batch.
        outputs: Side of the square of pixels that a crop yields scores for.
        context: Pixels around them, on each side, that a crop also holds.
    """

    count: int
    outputs: int
    context: int

    @property
    def side(self) -> int:
        """Side of a crop."""
        return self.outputs + 2 * self.context


@dataclass(frozen=True)
class Batch:
    """Crops of components.

    Attributes:
        values: `(N, C, side, side)`, float32.
        fit: `(N, outputs, outputs)`, bool; pixels that may be learned from.
    """

    values: Tensor
    fit: Tensor


@dataclass(frozen=True)
class Progress:
    """Where in its training a method is: step `step` of `steps`, counted from 0."""

    step: int
    steps: int
    warm: bool = False
    """Whether training goes on from a fitted model."""


@dataclass(frozen=True)
class Learned:
    """What one step gave.

    Attributes:
        loss: The objective; lower is better.
        counts: `(K,)`, pixels of the batch that each class got.
    """

    loss: float
    counts: Tensor


class Method(nn.Module, ABC):
    """A method, fitted or to be fitted.

    Attributes:
        name: How the command line and the model file call it.
        classes: Number of classes K.
        components: Number of components C of its input.
    """

    name: ClassVar[str]

    def __init__(self, components: int, classes: int) -> None:
        super().__init__()
        self.components = components
        self.classes = classes

    @classmethod
    @abstractmethod
    def from_config(cls, components: int, classes: int, config: Mapping[str, Any]) -> Self:
        """Build the method that `config()` described.

        Raises:
            ModelError: A setting is unknown or out of range.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""

    @property
    @abstractmethod
    def receptive_field(self) -> int:
        """Side of the square of pixels that one output pixel depends on."""

    @property
    def halo(self) -> int:
        """Pixels that a tile must read around its core."""
        return (self.receptive_field - 1) // 2

    @property
    @abstractmethod
    def crop_shape(self) -> CropShape:
        """Batches that `learn` wants."""

    @property
    @abstractmethod
    def default_steps(self) -> int:
        """Steps of a training, unless the user asks for another number."""

    @property
    @abstractmethod
    def floats_per_pixel(self) -> int:
        """Float32 values a pixel that `forward` holds at once: for the memory plan."""

    @property
    def fixed_bytes(self) -> int:
        """Bytes that `forward` holds whatever the size of the tile."""
        return 0

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Class scores, highest best.

        Args:
            values: `(N, C, H, W)`.

        Returns:
            `(N, K, H - 2 halo, W - 2 halo)`.
        """

    @abstractmethod
    def confidence(self, scores: Tensor) -> Tensor:
        """How sure the best class is, 0 to 1: `(N, K, H, W)` to `(N, H, W)`."""

    @abstractmethod
    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:
        """Take one step on one batch."""

    @abstractmethod
    def reorder(self, order: Tensor) -> None:
        """Renumber the classes: class i becomes what class `order[i]` was."""

    def settled(self) -> nn.Module:
        """The network as it labels: evaluation mode, as few operations as possible."""
        return self.eval()

    def optimiser_state(self) -> dict[str, Tensor]:
        """Tensors beyond the weights that training needs to go on."""
        return {}

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `optimiser_state` gave."""
