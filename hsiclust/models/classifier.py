"""What every supervised method is: classes learned from labelled pixels.

The tiles of a training carry its labels as lessons: trust 1 where a pixel is labelled, 0 elsewhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hsiclust.errors import ModelError
from hsiclust.models.base import Batch, Method
from hsiclust.models.scalespace import ScaleSpace


class Classifier(Method):
    """A method that learns from labels.

    Class numbers are the user's own. Numbers that no label has are absent: they never win.

    Attributes:
        space: The features of a pixel.
        present: `(K,)`, bool; classes that have labels.
        temperature: What scores are divided by before they are probabilities (Guo et al. 2017).
    """

    supervised: ClassVar[bool] = True
    present: Tensor
    temperature: Tensor

    def __init__(self, components: int, classes: int, deviations: Sequence[float]) -> None:
        super().__init__(components, classes)
        self.space = ScaleSpace(components, deviations)
        self.register_buffer("present", torch.ones(classes, dtype=torch.bool))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def receptive_field(self) -> int:
        """That of the features."""
        return 2 * self.space.halo + 1

    def forward(self, values: Tensor) -> Tensor:
        """Log-probabilities up to a constant, the lowest for absent classes."""
        scores = self.score(self.space(values))
        lowest = torch.finfo(scores.dtype).min / 2
        return torch.where(self.present[:, None, None], scores, lowest)

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Logits, or log-probabilities: `(N, F, H, W)` to `(N, K, H, W)`."""

    def confidence(self, scores: Tensor) -> Tensor:
        """Calibrated probability of the best class."""
        return (scores / self.temperature).softmax(dim=1).amax(dim=1)

    def check(self) -> None:
        """Refuse a model without classes, or with a temperature that cannot be."""
        if not bool(self.present.any()) or not bool(self.temperature > 0):
            raise ModelError("damaged: no class is present, or the temperature is not positive")
        if not bool((self.space.scale > 0).all()):
            raise ModelError("damaged: a feature's deviation is not positive")

    def reorder(self, order: Tensor) -> None:
        """Classes are the user's: their order never changes."""
        if not torch.equal(order.cpu(), torch.arange(self.classes)):
            raise ModelError("the classes of a supervised method keep their numbers")


@dataclass(frozen=True)
class Samples:
    """Labelled pixels.

    Attributes:
        features: `(M, F)`, float32, standardised.
        classes: `(M,)`, int64, from 0.
    """

    features: Tensor
    classes: Tensor


def labelled_samples(space: ScaleSpace, tiles: Sequence[Batch]) -> Samples:
    """Features and classes of every labelled pixel of some tiles, with `space.halo` as context."""
    features, classes = [], []
    for tile in tiles:
        if tile.lesson is None:
            continue
        chosen = tile.labelled
        if bool(chosen.any()):
            features.append(space(tile.within(space.halo).values).movedim(1, -1)[chosen])
            classes.append(tile.lesson.classes[chosen].long())
    if not features:
        return Samples(torch.zeros(0, space.features), torch.zeros(0, dtype=torch.int64))
    return Samples(torch.cat(features), torch.cat(classes))


def labelled_counts(tiles: Sequence[Batch], classes: int) -> Tensor:
    """Labelled pixels of each class, `(K,)`."""
    counts = torch.zeros(classes, dtype=torch.int64)
    for tile in tiles:
        if tile.lesson is not None:
            counts += torch.bincount(tile.lesson.classes[tile.labelled].cpu(), minlength=classes)
    return counts


def standardise(space: ScaleSpace, tiles: Sequence[Batch]) -> None:
    """Set mean and deviation of the features to those of all pixels that may be learned from."""
    count = 0
    total, squares = torch.zeros(2, space.features, dtype=torch.float64)
    for tile in tiles:
        raw = space.raw(tile.within(space.halo).values).movedim(1, -1)[tile.fit].double()
        count += len(raw)
        total += raw.sum(dim=0).cpu()
        squares += raw.square().sum(dim=0).cpu()
    mean = total / max(count, 1)
    variance = squares / max(count, 1) - mean.square()
    space.mean.copy_(mean)
    space.scale.copy_(variance.clamp_min(1e-12).sqrt())


def evenly_drawn(classes: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Numbers of so many labels at most, as evenly from the classes as these have them, rising.

    Args:
        classes: `(L,)`, class of each label, from 0.
        most: How many.
        generator: Random numbers.
    """
    if len(classes) <= most:
        return torch.arange(len(classes), device=classes.device)
    known = classes.cpu()
    order = torch.randperm(len(known), generator=generator)
    # The n-th pixel of each class comes before the n + 1-th of any.
    grouped = order[known[order].argsort(stable=True)]
    counts = torch.bincount(known)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(known)) - first[known[grouped]]
    return grouped[place.argsort(stable=True)[:most]].sort().values.to(classes.device)
