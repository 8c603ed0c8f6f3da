"""k-means, batch by batch: the baseline that every user asks for.

Mini-batch k-means (Sculley 2010) on components smoothed by a Gaussian: a pixel goes to the
nearest centre, and each centre is the running mean of its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from hsiclust.errors import InputError, ModelError
from hsiclust.models.base import Batch, CropShape, Learned, Method, Progress
from hsiclust.models.scalespace import radius, smoothed

# Starts of k-means++ on the first batch; the one with the least inertia goes on.
_STARTS = 10
_START_ROUNDS = 20
LARGEST_SMOOTHING = 64.0  # a crop of training holds six times as many pixels a side


class KMeans(Method):
    """K centres in the space of smoothed components.

    Args:
        components: Number of components C.
        classes: Number of centres K.
        smoothing: Deviation of the Gaussian in pixels; 0 leaves every pixel on its own.
    """

    name = "kmeans"
    centres: Tensor
    counts: Tensor

    def __init__(self, components: int, classes: int, smoothing: float = 2.0) -> None:
        super().__init__(components, classes)
        if not 0 <= smoothing <= LARGEST_SMOOTHING:
            raise ModelError(
                f"smoothing of {smoothing} pixels is not within 0..{LARGEST_SMOOTHING:g}"
            )
        self.smoothing = smoothing
        self.register_buffer("centres", torch.zeros(classes, components))
        # Pixels that each centre is the mean of, as the online update needs.
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.float64))

    @classmethod
    def from_config(cls, components: int, classes: int, config: Mapping[str, Any]) -> Self:
        """Build from `{"smoothing": pixels}`."""
        return cls(components, classes, float(config["smoothing"]))

    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return {"smoothing": self.smoothing}

    @property
    def receptive_field(self) -> int:
        """Side of the Gaussian's square."""
        return 2 * radius(self.smoothing) + 1

    @property
    def crop_shape(self) -> CropShape:
        """Many small crops: 16 384 pixels from 256 places."""
        return CropShape(count=256, outputs=8, context=self.halo)

    @property
    def default_steps(self) -> int:
        """Enough for two million pixels."""
        return 120

    @property
    def floats_per_pixel(self) -> int:
        """Two smoothed copies, three of the distances."""
        return 2 * self.components + 3 * self.classes

    def forward(self, values: Tensor) -> Tensor:
        """Negative squared distance to each centre: `(N, C, H, W)` to `(N, K, H', W')`."""
        return -_squared_distances(self.smoothed(values), self.centres)

    def smoothed(self, values: Tensor) -> Tensor:
        """Valid Gaussian smoothing of each component: `(N, C, H, W)` to `(N, C, H', W')`."""
        return smoothed(values, self.smoothing)

    def confidence(self, scores: Tensor) -> Tensor:
        """1 - (distance to the nearest centre / distance to the next): simplified silhouette."""
        if self.classes == 1:
            return torch.ones_like(scores[:, 0])
        nearest, following = (-scores).clamp_min(0).sqrt().topk(2, 1, largest=False)[0].unbind(1)
        return 1 - nearest / following.clamp_min(torch.finfo(scores.dtype).tiny)

    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:
        """Move each centre to the running mean of its pixels.

        Raises:
            InputError: The first batch has fewer pixels to learn from than centres.
        """
        pixels = self.smoothed(batch.values).movedim(1, -1)[batch.fit]  # (M, C)
        if progress.step == 0 and not progress.warm:
            self._start(pixels, generator)
        distances, nearest = _nearest(pixels, self.centres)
        counts = torch.bincount(nearest, minlength=self.classes)
        sums = torch.zeros_like(self.centres).index_add_(0, nearest, pixels)
        self.counts += counts
        rate = (1 / self.counts.clamp_min(1)).to(sums.dtype)[:, None]
        self.centres += rate * (sums - counts[:, None] * self.centres)
        return Learned(float(distances.mean()), counts)

    def reorder(self, order: Tensor) -> None:
        """Renumber the centres."""
        self.centres.copy_(self.centres[order])
        self.counts.copy_(self.counts[order])

    def _start(self, pixels: Tensor, generator: torch.Generator) -> None:
        """Centres from the first batch alone."""
        if len(pixels) < self.classes:
            raise InputError(
                f"{len(pixels)} pixels to learn from are too few for {self.classes} classes"
            )
        self.centres.copy_(lloyd(pixels, self.classes, generator, _STARTS, _START_ROUNDS))


def lloyd(
    pixels: Tensor, classes: int, generator: torch.Generator, starts: int, rounds: int
) -> Tensor:
    """k-means++ and some rounds of Lloyd (1982), several times; the best start stays.

    Args:
        pixels: `(M, C)`.
        classes: Centres K.
        generator: Random numbers.
        starts: Times that it is started.
        rounds: Of each start.

    Returns:
        `(K, C)`, the centres of the start with the least inertia.
    """
    best, kept = math.inf, pixels[:0]
    for _ in range(starts):
        centres = _plus_plus(pixels, classes, generator)
        for _ in range(rounds):
            distances, nearest = _nearest(pixels, centres)
            counts = torch.bincount(nearest, minlength=classes)[:, None]
            sums = torch.zeros_like(centres).index_add_(0, nearest, pixels)
            centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        inertia = float(distances.sum())
        if inertia < best or not len(kept):
            best, kept = inertia, centres
    return kept


def _squared_distances(values: Tensor, centres: Tensor) -> Tensor:
    """`(N, C, H, W)` and `(K, C)` to `(N, K, H, W)`."""
    cross = functional.conv2d(values, centres[:, :, None, None])
    norms = centres.square().sum(1)[:, None, None]
    return values.square().sum(1, keepdim=True) - 2 * cross + norms


def _nearest(pixels: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest centre and its number, for `(M, C)` pixels."""
    squared = pixels.square().sum(1, keepdim=True) - 2 * pixels @ centres.T
    distances, nearest = (squared + centres.square().sum(1)).min(dim=1)
    return distances.clamp_min(0), nearest


def _plus_plus(pixels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """Starting centres far from each other (Arthur and Vassilvitskii 2007)."""
    first = torch.randint(len(pixels), (1,), generator=generator, device=generator.device)
    centres = pixels[first.to(pixels.device)]
    distances, _ = _nearest(pixels, centres)
    for _ in range(1, classes):
        weights = distances.double().cpu()
        if not bool((weights > 0).any()):  # fewer different pixels than classes
            weights = torch.ones_like(weights)
        reach = weights.cumsum(0)
        drawn = torch.rand(1, generator=generator, dtype=torch.float64).to(reach)
        chosen = int(torch.searchsorted(reach, drawn * reach[-1]).clamp_max(len(pixels) - 1))
        centres = torch.cat([centres, pixels[chosen : chosen + 1]])
        distances = torch.minimum(distances, _nearest(pixels, centres[-1:])[0])
    return centres
