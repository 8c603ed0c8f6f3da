"""Baselines: supervised methods that scikit-learn fits at once, and torch evaluates densely.

They see what every classifier here sees, the scale space of the components: what they reach is
what the features reach without a network.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from hsiclust.errors import InputError, ModelError
from hsiclust.models.base import Batch, CropShape, Learned, Precision, Progress
from hsiclust.models.classifier import (
    Classifier,
    Samples,
    evenly_drawn,
    labelled_samples,
    standardise,
)
from hsiclust.models.pointwise import PixelNetwork, PixelStrips
from hsiclust.models.scalespace import check_deviations

log = logging.getLogger(__name__)

DEVIATIONS = (1.0, 2.0, 4.0)


def deviations_of(config: Mapping[str, Any]) -> tuple[float, ...]:
    """The deviations of the scale space that a model's settings name.

    Raises:
        ModelError: They are no such deviations.
    """
    found = tuple(float(value) for value in config["deviations"])
    check_deviations(found)
    return found


def check_count(found: object, name: str, most: int) -> None:
    """Check a count that a model's settings name, before memory is taken for it.

    Raises:
        ModelError: It is none, or larger than `most`.
    """
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise ModelError(f"{name} is {found!r}, not a count within 0..{most}")


class Baseline(Classifier):
    """A classifier without steps: it is fitted when it studies the tiles.

    Args:
        components: Number of components C.
        classes: Number of classes K.
        deviations: Of the scale space, in pixels.

    Attributes:
        strips: What scores pixels.
    """

    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)
    strips: PixelStrips
    most_labels: ClassVar[int]

    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return {"deviations": list(self.space.deviations)}

    @property
    def crop_shape(self) -> CropShape:
        """No crops: tiles alone."""
        return CropShape(count=0, outputs=1, context=self.halo)

    @property
    def default_steps(self) -> int:
        """None."""
        return 0

    @property
    def floats_per_pixel(self) -> int:
        """The features twice while they are standardised, or with the scores and two copies."""
        features = self.space.features
        return max(2 * features, features + 3 * self.classes)

    @property
    def graph_floats_per_pixel(self) -> int:
        """A graph has no strips."""
        return self.floats_per_pixel + self.network.floats_per_pixel

    @property
    def fixed_bytes(self) -> int:
        """One strip."""
        return PixelStrips.fixed_bytes

    @property
    def network(self) -> PixelNetwork:
        """What scores a pixel."""
        return self.strips.network

    def score(self, features: Tensor) -> Tensor:
        """In strips of pixels."""
        scores: Tensor = self.strips(features)
        return scores

    def study(self, tiles: Sequence[Batch], warm: bool, generator: torch.Generator) -> None:  # noqa: ARG002
        """Fit to the labelled pixels of the tiles; a fitted model starts afresh.

        Raises:
            InputError: Fewer than two classes have labels.
        """
        standardise(self.space, tiles)
        samples = labelled_samples(self.space, tiles)
        counts = torch.bincount(samples.classes, minlength=self.classes)
        if int((counts > 0).sum()) < 2:
            raise InputError(
                f"{len(samples.classes)} labelled pixels of {int((counts > 0).sum())} classes: "
                f"{self.name} learns from two classes at least; give labels of more, or more pixels"
            )
        self.present.copy_(counts > 0)
        chosen = evenly_chosen(samples, self.most_labels, generator)
        if len(chosen.classes) < len(samples.classes):
            log.info(
                "%s is fitted to %d of %d labelled pixels, drawn evenly from the classes",
                self.name,
                len(chosen.classes),
                len(samples.classes),
            )
        self.fit(Samples(chosen.features.cpu(), chosen.classes.cpu()), generator)
        self.to(self.space.mean.device)

    @abstractmethod
    def fit(self, samples: Samples, generator: torch.Generator) -> None:
        """Fit to labelled pixels of two classes at least, on the CPU."""

    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:
        """There are no steps.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{self.name} is fitted at once: it takes no steps")


def evenly_chosen(samples: Samples, most: int, generator: torch.Generator) -> Samples:
    """So many of the samples at most, as evenly from the classes as these have them."""
    if len(samples.classes) <= most:
        return samples
    chosen = evenly_drawn(samples.classes, most, generator)
    return Samples(samples.features[chosen], samples.classes[chosen])
