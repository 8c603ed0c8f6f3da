"""The consensus teacher: what many base partitions agree on, as classes to learn.

Each pixel is described by how the base partitions label its surroundings. Pixels that are labelled
alike belong together: the groups of some landmarks are the K classes, the mean description of
each is its prototype, and every pixel goes to the most similar one. How far the partitions look,
and of which family they are, is read off the scene. Nothing here sees a truth.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.errors import InputError, ModelError
from hsiclust.models.agreement import FAR, agreement, far_agreement, spheres_share
from hsiclust.models.base import Batch, Lesson
from hsiclust.models.grain import (
    HISTOGRAM_WINDOWS,
    correlation_length,
    histogram_window,
    median_windows,
)
from hsiclust.models.landmarks import even_groups, linked_groups
from hsiclust.models.partitions import (
    WINDOWS,
    Family,
    Partitions,
    draw_partitions,
    fit_partition,
    most_clusters,
    window_medians,
)
from hsiclust.models.pixels import FIT_PIXELS, draw_places, draw_pools, some, thinned

log = logging.getLogger(__name__)

_FAMILIES: tuple[Family, ...] = ("mixture", "centres")
_LANDMARKS = 3000
_LANDMARK_DRAWS = 5  # of which the one that agrees best with the others is kept
# Above this part of spheres the landmarks are parted by spectral clustering, which needs no tree.
_EVEN_FROM = 0.5

HALO = max(WINDOWS) // 2 + max(HISTOGRAM_WINDOWS) // 2


class Teacher(nn.Module):
    """Base partitions, and the prototypes that unite them.

    Args:
        components: Components C.
        classes: Clusters K.
        count: Base partitions.
    """

    prototypes: Tensor
    histogram: Tensor
    margin: Tensor
    evidence: Tensor

    def __init__(self, components: int, classes: int, count: int) -> None:
        super().__init__()
        self.components = components
        self.classes = classes
        self.partitions = Partitions(count, components, classes)
        most = most_clusters(classes)
        self.register_buffer("prototypes", torch.zeros(classes, count, most))
        self.register_buffer("histogram", torch.ones((), dtype=torch.int64))
        self.register_buffer("margin", torch.ones(()))
        # Correlation length, score of full Gaussians, score of spheres.
        self.register_buffer("evidence", torch.zeros(3))

    @property
    def found(self) -> int:
        """Classes that the consensus found; fewer than K where the pixels do not differ."""
        return int((self.prototypes.flatten(1).abs().sum(dim=1) > 0).sum())

    def choices(self) -> dict[str, Any]:
        """What was chosen without a truth, and the figures that chose it."""
        length, mixtures, spheres = self.evidence.tolist()
        return {
            "correlation_length_pixels": round(length, 2),
            "median_windows": self.partitions.used_windows(),
            "histogram_window": int(self.histogram),
            "mutual_information_mixtures": round(mixtures, 4),
            "mutual_information_centres": round(spheres, 4),
            "partitions": len(self.partitions),
            "centres_share": round(self._spheres, 3),
            "clusters_found": self.found,
        }

    def study(self, tiles: Sequence[Batch], random: torch.Generator) -> None:
        """Choose, fit and unite the base partitions.

        Args:
            tiles: One tile each, with `HALO` pixels of context or more.
            random: Random numbers.

        Raises:
            InputError: Too few pixels to learn from.
        """
        sample = thinned([tile for tile in tiles if bool(tile.fit.any())])
        if sum(int(tile.fit.sum()) for tile in sample) < 2 * self.classes:
            raise InputError(
                f"fewer than {2 * self.classes} pixels to learn from for {self.classes} classes"
            )
        self._choose(sample, random)
        self._fit(sample, random)
        self._unite(sample, random)
        log.info("teacher: %s", self._sentence())

    def similarities(self, values: Tensor) -> Tensor:
        """Cosine between each pixel's description and the prototypes.

        Args:
            values: `(C, H, W)`.

        Returns:
            `(K, H - 2 HALO, W - 2 HALO)`, 0 to 1.
        """
        total: Tensor | float = 0.0
        square: Tensor | float = 0.0
        for number, shares in enumerate(self.histograms(values)):
            total = total + torch.einsum("kp,phw->khw", self.prototypes[:, number], shares)
            square = square + shares.square().sum(dim=0)
        return torch.as_tensor(total) / torch.as_tensor(square).sqrt()

    def histograms(self, values: Tensor) -> Iterator[Tensor]:
        """Of each base partition, how its labels share a pixel's surroundings.

        Yields:
            `(most, H - 2 HALO, W - 2 HALO)`.
        """
        window = int(self.histogram)
        edge = window // 2
        seen = {
            side: window_medians(values, side, HALO - edge)
            for side in self.partitions.used_windows()
        }
        for number in range(len(self.partitions)):
            labels = self.partitions.get(number).labels(seen[int(self.partitions.windows[number])])
            hot = functional.one_hot(labels, self.partitions.most).movedim(-1, 0).to(values.dtype)
            yield functional.avg_pool2d(hot[None], window, 1)[0] if window > 1 else hot

    def teach(self, values: Tensor) -> Lesson:
        """Class and trust of each pixel of a tile: `(C, H, W)` to `(H - 2 HALO, W - 2 HALO)`.

        Trust is the lead of the best prototype over the next, in medians of that lead.
        """
        best, lead = _lead(self.similarities(values))
        return Lesson(best, (lead / self.margin).clamp(0.1, 1.0))

    def check(self) -> None:
        """Refuse what no study can have left.

        Raises:
            ModelError: A window, a depth or the margin is out of range.
        """
        windows = {*self.partitions.windows.tolist()} <= {*WINDOWS}
        histogram = int(self.histogram) in HISTOGRAM_WINDOWS
        depths = self.partitions.depths
        deepest = self.partitions.means.shape[2]
        fits = bool(((depths >= 1) & (depths <= deepest)).all()) and float(self.margin) > 0
        if not (windows and histogram and fits):
            raise ModelError("damaged: the teacher holds values that cannot be")

    def reorder(self, order: Tensor) -> None:
        """Renumber the classes."""
        self.prototypes.copy_(self.prototypes[order])

    @property
    def _spheres(self) -> float:
        """Part of the base partitions that is k-means."""
        _, mixtures, spheres = self.evidence.tolist()
        return spheres_share(mixtures, spheres)

    def _sentence(self) -> str:
        """The choices, for people."""
        length, mixtures, spheres = self.evidence.tolist()
        return (
            f"components stay alike over {length:.1f} pixels, medians over "
            f"{self.partitions.used_windows()} pixels; labels say {mixtures:.3f} (mixtures) and "
            f"{spheres:.3f} (k-means) of labels {FAR} pixels further, "
            f"{100 * self._spheres:.0f} % k-means; "
            f"{self.found} of {self.classes} clusters found"
        )

    def _choose(self, sample: Sequence[Batch], random: torch.Generator) -> None:
        """Weigh the scene's grain and the two families of partitions."""
        length = correlation_length(sample)
        scores = [far_agreement(sample, self.classes, family, random) for family in _FAMILIES]
        self.evidence.copy_(torch.tensor([length, *scores]))
        self.histogram.fill_(histogram_window(length))

    def _fit(self, sample: Sequence[Batch], random: torch.Generator) -> None:
        """Draw the base partitions and fit each to pixels of its own."""
        draws = draw_partitions(
            len(self.partitions),
            self.components,
            self.classes,
            median_windows(float(self.evidence[0])),
            self._spheres,
            int(torch.randint(2**31, (1,), generator=random)),
        )
        pools = draw_pools(sample, sorted({draw.window for draw in draws}), random)
        weights = 1 / _deviations(pools[min(pools)])
        for number, draw in enumerate(draws):
            pixels = some(pools[draw.window], FIT_PIXELS, random)
            self.partitions.put(number, fit_partition(pixels, weights, draw, random), draw.window)

    def _unite(self, sample: Sequence[Batch], random: torch.Generator) -> None:
        """Several draws of landmarks, the linkage of each; the draw that the others agree with."""
        described = self._describe(sample, _LANDMARK_DRAWS * _LANDMARKS, random)
        candidates = [
            self._prototypes(some(described, _LANDMARKS, random), random)
            for _ in range(_LANDMARK_DRAWS)
        ]
        labels = [(described @ found.T).argmax(dim=1) for found in candidates]
        agreeing = [sum(agreement(one, other) for other in labels) for one in labels]
        chosen = candidates[max(range(len(candidates)), key=agreeing.__getitem__)]
        self.prototypes.copy_(chosen.view(self.prototypes.shape))
        if self.found < self.classes:
            log.warning("only %d of %d clusters differ", self.found, self.classes)
        _, lead = _lead(chosen @ described.T)
        self.margin.copy_(lead.median().clamp_min(1e-3))

    def _describe(self, sample: Sequence[Batch], count: int, random: torch.Generator) -> Tensor:
        """Descriptions of drawn pixels, `(M, F)`, of unit length."""
        found = []
        for tile, (rows, cols) in zip(sample, draw_places(sample, count, random), strict=True):
            if len(rows):
                inner = tile.within(HALO).values[0]
                parts = [part[:, rows, cols] for part in self.histograms(inner)]
                found.append(torch.stack(parts).movedim(-1, 0).flatten(1))
        return functional.normalize(torch.cat(found), dim=1)

    def _prototypes(self, landmarks: Tensor, random: torch.Generator) -> Tensor:
        """Mean description of each group, `(K, F)`; zero where there is no group."""
        if self._spheres > _EVEN_FROM:
            groups = even_groups(landmarks.cpu(), self.classes, random)
        else:
            groups = linked_groups(landmarks.cpu().numpy(), self.classes)
        means = torch.stack([landmarks[torch.from_numpy(group)].mean(0) for group in groups])
        found = landmarks.new_zeros(self.classes, landmarks.shape[1])
        found[: len(groups)] = functional.normalize(means, dim=1)
        return found


def _deviations(pixels: Tensor) -> Tensor:
    """Of each component, `(C,)`; 1 for one that does not vary: no weight can make it."""
    found = pixels.std(dim=0, unbiased=False)
    return found.where(found > 1e-6 * pixels.abs().amax(dim=0).clamp_min(1e-6), 1.0)


def _lead(similar: Tensor) -> tuple[Tensor, Tensor]:
    """Best class, and its lead over the next: `(K, ...)` to `(...)`."""
    (first, second), (best, _) = similar.topk(2, dim=0)
    return best, first - second
