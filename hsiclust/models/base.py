"""What every method is: a network from components to class scores that learns batch by batch.

The training loop, the tiling and the map know methods only through `Method`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
LARGEST_CLASSES = 255  # labels are bytes, and 0 is "unclassified"


def trimmed(values: Tensor, edge: int) -> Tensor:
    """The last two axes without `edge` pixels on each side."""
    return values if edge == 0 else values[..., edge:-edge, edge:-edge]


@dataclass(frozen=True)
class CropShape:
    """What a training batch looks like.

    Attributes:
        count: Crops in a batch; none for a method that learns from what it gathered.
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

    @property
    def pixels(self) -> int:
        """Pixels that a batch yields scores for."""
        return self.count * self.outputs**2


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of pixels.

    Attributes:
        classes: `(..., row, col)`, int64, from 0.
        trust: Of the same shape, float32; how much each counts, 0 to 1.
    """

    classes: Tensor
    trust: Tensor


@dataclass(frozen=True)
class Batch:
    """Crops of components, or a whole tile.

    Attributes:
        values: `(N, C, row, col)`, float32.
        fit: `(N, row, col)`, bool; pixels that may be learned from: the middle of `values`.
        lesson: What they are to be learned as, `(N, row, col)`; None without a teacher.
        place: Of a tile: number of its scene, row and column of `fit` in it; None where unknown.
    """

    values: Tensor
    fit: Tensor
    lesson: Lesson | None = None
    place: tuple[int, int, int] | None = None

    @property
    def context(self) -> int:
        """Pixels that `values` hold around `fit`, on each side."""
        return (self.values.shape[2] - self.fit.shape[1]) // 2

    @property
    def labelled(self) -> Tensor:
        """Pixels to learn from that have a lesson, `(N, row, col)`, bool."""
        return self.fit & (False if self.lesson is None else self.lesson.trust > 0)

    def within(self, context: int) -> Batch:
        """The same with only so many pixels around `fit`."""
        return replace(self, values=trimmed(self.values, self.context - context))

    def none(self) -> Batch:
        """Of the same kind, with nothing in it."""
        return Batch(self.values[:0], self.fit[:0])


@dataclass(frozen=True)
class Progress:
    """Where in its training a method is: step `step` of `steps`, counted from 0."""

    step: int
    steps: int
    warm: bool = False
    """Whether training goes on from a fitted model."""
    epoch: float = 0.0
    """Passes over the pixels so far."""


@dataclass(frozen=True)
class Learned:
    """What one step gave.

    Attributes:
        loss: The objective; lower is better.
        counts: `(K,)`, pixels of the batch that each class got.
        stage: Which part of the training the step belongs to, where there are several.
    """

    loss: float
    counts: Tensor
    stage: str = ""


class Method(nn.Module, ABC):
    """A method, fitted or to be fitted.

    Attributes:
        name: How the command line and the model file call it.
        supervised: Whether it learns from labels.
        precisions: What its network can compute in, the first by default.
        classes: Number of classes K.
        components: Number of components C of its input.
    """

    name: ClassVar[str]
    supervised: ClassVar[bool] = False
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "bfloat16")

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
    def seen(self) -> int:
        """Leading components that the network sees; the others are for learning alone."""
        return self.components

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
    def graph_floats_per_pixel(self) -> int:
        """The same for an exported graph, which computes a tile in one go."""
        return self.floats_per_pixel

    @property
    def fixed_bytes(self) -> int:
        """Bytes that `forward` holds whatever the size of the tile."""
        return 0

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Class scores, highest best.

        Args:
            values: `(N, C, H, W)`; those beyond `seen` may be missing.

        Returns:
            `(N, K, H - 2 halo, W - 2 halo)`.
        """

    @abstractmethod
    def confidence(self, scores: Tensor) -> Tensor:
        """How sure the best class is, 0 to 1: `(N, K, H, W)` to `(N, H, W)`."""

    @property
    def online_steps(self) -> int:
        """Steps of a training that goes on from a fitted model."""
        return self.default_steps

    @property
    def default_epochs(self) -> float | None:
        """Passes over the pixels instead of `default_steps`."""
        return None

    def study(self, tiles: Sequence[Batch], warm: bool, generator: torch.Generator) -> None:
        """See all tiles once before the first step; for methods that start from more than one.

        Args:
            tiles: One tile each, with the context of `crop_shape`.
            warm: Whether training goes on from a fitted model.
            generator: Random numbers.

        Raises:
            InputError: Too few pixels to learn from.
        """

    def gather(self, tiles: Sequence[Batch], generator: torch.Generator) -> None:
        """Keep of the tiles what the steps need; called at every start, after `study` or resume.

        Args:
            tiles: As for `study`.
            generator: Random numbers, the same at every start.
        """

    @property
    def knows_classes(self) -> bool:
        """Whether a model of it can label; one that is only pre-trained cannot."""
        return True

    def teach(self, values: Tensor) -> Lesson | None:  # noqa: ARG002
        """What the pixels of a tile are to be learned as; None without a teacher.

        Args:
            values: `(C, row, col)`, with the context of `crop_shape`; the lesson is without it.
        """
        return None

    def choices(self) -> dict[str, Any]:
        """What was chosen without a truth and the figures behind it, as JSON values."""
        return {}

    @abstractmethod
    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:
        """Take one step on one batch."""

    def check(self) -> None:
        """Refuse values that have the right shape and still cannot be.

        Raises:
            ModelError: There are such values.
        """

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
