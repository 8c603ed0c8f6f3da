"""The consensus teacher: what many base partitions agree on, as classes to learn.

Each pixel is described by how the base partitions label its surroundings. Pixels that are labelled
alike belong together: average linkage of some landmarks gives K classes, the mean description of
each is its prototype, and every pixel goes to the most similar one. Nothing here sees a truth.

How far to look is read off the scene: smoothing over more pixels than its features are wide would
mix what it should tell apart, and smoothing over fewer would leave noise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import eigh
from scipy.spatial.distance import squareform
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.errors import InputError, ModelError
from hsiclust.models.base import Batch, Lesson
from hsiclust.models.kmeans import lloyd
from hsiclust.models.partitions import (
    WINDOWS,
    Draw,
    Family,
    Partitions,
    component_range,
    draw_partitions,
    fit_partition,
    most_clusters,
    window_medians,
)

log = logging.getLogger(__name__)

_POOL_PIXELS = 2**15  # that the base partitions draw from
_FIT_PIXELS = 5000  # that each of them is fitted to
_LANDMARKS = 3000
_LANDMARK_DRAWS = 5  # of which the one that agrees best with the others is kept
# Similarities are raised to this power before the linkage: near counts more than not far.
_SHARPNESS = 4
# A cluster that holds less than this part of its fair share is none of the K.
_SMALLEST_SHARE = 0.08
# Above this part of spheres the landmarks are parted by spectral clustering, which needs no tree.
_EVEN_FROM = 0.5
_EVEN_SHARPNESS = 3
_EVEN_STARTS, _EVEN_ROUNDS = 10, 30
_SAME = 1e-6  # a distance that rounding makes
_MOST_CUTS = 60  # times K clusters are tried before fewer than K are accepted
# Shortest correlation length, pixels, that each median and each histogram window needs.
_LENGTHS = {1: 0.0, 3: 2.0, 5: 3.0, 9: 4.5}
_HISTOGRAM_LENGTHS = {1: 0.0, 3: 3.0, 5: 5.0}
_MEDIANS_DRAWN = 3  # the largest that are allowed
_LENGTH_COMPONENTS = 12
_LONGEST = 50.0
_LEAST_CORRELATION = 0.05  # less than this between neighbours is chance
# Families of partitions are compared by what a label says of the one this far away: further than
# noise and the optics' blur reach.
_FAR = 5
_TRIALS = 4
# Spheres that say as much as full Gaussians, within what chance makes of it, are not drawn; where
# they say a fifth more, nothing else is.
_SPHERES_FROM, _SPHERES_TO = 1.05, 1.2
# Pixels that the choices are made from.
_STUDY_PIXELS = 2**17

HALO = max(WINDOWS) // 2 + max(_HISTOGRAM_LENGTHS) // 2


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
            "centres_share": round(spheres_share(mixtures, spheres), 3),
            "clusters_found": self.found,
        }

    def study(self, tiles: Sequence[Batch], random: torch.Generator) -> None:
        """Choose, fit and unite the base partitions.

        Args:
            tiles: One tile each, `HALO` pixels of context.
            random: Random numbers.

        Raises:
            InputError: Too few pixels to learn from.
        """
        sample = _spread([tile for tile in tiles if bool(tile.fit.any())])
        if sum(int(tile.fit.sum()) for tile in sample) < 2 * self.classes:
            raise InputError(
                f"fewer than {2 * self.classes} pixels to learn from for {self.classes} classes"
            )
        self._choose(sample, random)
        draws = draw_partitions(
            len(self.partitions),
            self.components,
            self.classes,
            median_windows(float(self.evidence[0])),
            spheres_share(*self.evidence[1:].tolist()),
            int(torch.randint(2**31, (1,), generator=random)),
        )
        pools = _pools(sample, sorted({draw.window for draw in draws}), random)
        weights = 1 / _deviations(pools[min(pools)])
        for number, draw in enumerate(draws):
            pixels = _some(pools[draw.window], _FIT_PIXELS, random)
            self.partitions.put(number, fit_partition(pixels, weights, draw, random), draw.window)
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
            labels = _labels(self.partitions, number, seen)
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
        histogram = int(self.histogram) in _HISTOGRAM_LENGTHS
        depths = self.partitions.depths
        deepest = self.partitions.means.shape[2]
        fits = bool(((depths >= 1) & (depths <= deepest)).all()) and float(self.margin) > 0
        if not (windows and histogram and fits):
            raise ModelError("damaged: the teacher holds values that cannot be")

    def reorder(self, order: Tensor) -> None:
        """Renumber the classes."""
        self.prototypes.copy_(self.prototypes[order])

    def _sentence(self) -> str:
        """The choices, for people."""
        length, mixtures, spheres = self.evidence.tolist()
        return (
            f"components stay alike over {length:.1f} pixels, medians over "
            f"{self.partitions.used_windows()} pixels; labels say {mixtures:.3f} (mixtures) and "
            f"{spheres:.3f} (k-means) of labels {_FAR} pixels further, "
            f"{100 * spheres_share(mixtures, spheres):.0f} % k-means; "
            f"{self.found} of {self.classes} clusters found"
        )

    def _choose(self, sample: Sequence[Batch], random: torch.Generator) -> None:
        """Weigh the scene's grain and the two families of partitions."""
        length = correlation_length(sample)
        scores = [_far_agreement(self, sample, family, random) for family in _FAMILIES]
        self.evidence.copy_(torch.tensor([length, *scores]))
        self.histogram.fill_(max(w for w, need in _HISTOGRAM_LENGTHS.items() if length >= need))

    def _unite(self, sample: Sequence[Batch], random: torch.Generator) -> None:
        """Several draws of landmarks, the linkage of each; the draw that the others agree with."""
        described = self._describe(sample, _LANDMARK_DRAWS * _LANDMARKS, random)
        candidates = [
            self._prototypes(_some(described, _LANDMARKS, random), random)
            for _ in range(_LANDMARK_DRAWS)
        ]
        labels = [(described @ found.T).argmax(dim=1) for found in candidates]
        agreement = [sum(_agreement(one, other) for other in labels) for one in labels]
        chosen = candidates[max(range(len(candidates)), key=agreement.__getitem__)]
        self.prototypes.copy_(chosen.view(self.prototypes.shape))
        if self.found < self.classes:
            log.warning("only %d of %d clusters differ", self.found, self.classes)
        _, lead = _lead(chosen @ described.T)
        self.margin.copy_(lead.median().clamp_min(1e-3))

    def _describe(self, sample: Sequence[Batch], count: int, random: torch.Generator) -> Tensor:
        """Descriptions of drawn pixels, `(M, F)`, of unit length."""
        found = []
        for tile, (rows, cols) in zip(sample, _places(sample, count, random), strict=True):
            if len(rows):
                parts = [part[:, rows, cols] for part in self.histograms(_inner(tile))]
                found.append(torch.stack(parts).movedim(-1, 0).flatten(1))
        return functional.normalize(torch.cat(found), dim=1)

    def _prototypes(self, landmarks: Tensor, random: torch.Generator) -> Tensor:
        """Mean description of each group, `(K, F)`; zero where there is no group."""
        if spheres_share(*self.evidence[1:].tolist()) > _EVEN_FROM:
            groups = even_groups(landmarks.cpu(), self.classes, random)
        else:
            groups = linked_groups(landmarks.cpu().numpy(), self.classes)
        means = torch.stack([landmarks[torch.from_numpy(group)].mean(0) for group in groups])
        found = landmarks.new_zeros(self.classes, landmarks.shape[1])
        found[: len(groups)] = functional.normalize(means, dim=1)
        return found


_FAMILIES: tuple[Family, ...] = ("mixture", "centres")


def median_windows(length: float) -> list[int]:
    """Median windows for a scene whose components stay alike over `length` pixels."""
    return [window for window, need in _LENGTHS.items() if length >= need][-_MEDIANS_DRAWN:]


def spheres_share(mixtures: float, spheres: float) -> float:
    """Part of the partitions that is k-means, by how much more its labels say of far ones."""
    ratio = spheres / max(mixtures, 1e-9)
    return min(max((ratio - _SPHERES_FROM) / (_SPHERES_TO - _SPHERES_FROM), 0.0), 1.0)


def correlation_length(tiles: Sequence[Batch]) -> float:
    """Pixels over which the leading components lose all but 1/e of their correlation.

    From the correlations at lags 1 and 3, of which noise takes the same part:
    `-2 / log(rho(3) / rho(1))`.
    """
    near, far = (_autocorrelation(tiles, lag) for lag in (1, 3))
    if near < _LEAST_CORRELATION:
        return 0.0
    if far >= near:
        return _LONGEST
    return min(_LONGEST, -2 / math.log(max(far / near, 1e-6)))


def _autocorrelation(tiles: Sequence[Batch], lag: int) -> float:
    """Correlation of pixels `lag` apart with both to be learned from, over rows and columns."""
    product = power = 0.0
    mean = _mean(tiles)
    for tile in tiles:
        core = (_core(tile)[:_LENGTH_COMPONENTS] - mean) * tile.fit[0]
        for here, there in _pairs(lag):
            both = tile.fit[0][here] & tile.fit[0][there]
            first, second = core[:, *here][:, both], core[:, *there][:, both]
            product += float((first * second).sum())
            power += float(first.square().sum() + second.square().sum()) / 2
    return product / power if power > 0 else 0.0


def _mean(tiles: Sequence[Batch]) -> Tensor:
    """Of the pixels to be learned from, `(c, 1, 1)`."""
    cores = [_core(tile)[:_LENGTH_COMPONENTS][:, tile.fit[0]] for tile in tiles]
    return torch.cat(cores, dim=1).mean(dim=1)[:, None, None]


def _far_agreement(
    teacher: Teacher, tiles: Sequence[Batch], family: Family, random: torch.Generator
) -> float:
    """What labels of unsmoothed partitions say of labels `_FAR` pixels away, 0 to 1."""
    least, most = component_range(teacher.components, teacher.classes)
    pool = _pools(tiles, [1], random)[1]
    weights = torch.ones(teacher.components, device=pool.device)
    scores = []
    for trial in range(_TRIALS):
        part = (trial + 0.5) / _TRIALS
        draw = Draw(
            family=family,
            components=least + round((most - least) * part),
            whitened=False,
            window=1,
            clusters=min(round(teacher.classes * (1 + 2 * part)), most_clusters(teacher.classes)),
            shrinkage=0.1,
        )
        gaussians = fit_partition(_some(pool, _FIT_PIXELS, random), weights, draw, random)
        counts = torch.zeros(draw.clusters, draw.clusters, dtype=torch.float64)
        for tile in tiles:
            core = _core(tile)[: draw.components]
            labels = gaussians(core.flatten(1).T).view(core.shape[1:])
            counts += _joint(labels, tile.fit[0], _FAR, draw.clusters).cpu()
        scores.append(normalised_information(counts))
    return sum(scores) / len(scores)


def _joint(labels: Tensor, fit: Tensor, lag: int, clusters: int) -> Tensor:
    """How often labels stand `lag` pixels apart: `(clusters, clusters)`."""
    counts = torch.zeros(clusters * clusters, dtype=torch.float64, device=labels.device)
    for here, there in _pairs(lag):
        both = fit[here] & fit[there]
        codes = labels[here][both] * clusters + labels[there][both]
        counts += torch.bincount(codes, minlength=clusters * clusters)
    return counts.view(clusters, clusters)


def normalised_information(counts: Tensor) -> float:
    """Mutual information of a contingency table over the mean of both entropies."""
    joint = counts / counts.sum().clamp_min(1)
    rows, columns = joint.sum(dim=1), joint.sum(dim=0)
    both = _entropy(rows) + _entropy(columns)
    return 2 * (both - _entropy(joint.flatten())) / both if both > 0 else 0.0


def _agreement(first: Tensor, second: Tensor) -> float:
    """Normalised mutual information of two labellings, `(M,)` each."""
    size = int(torch.maximum(first.max(), second.max())) + 1
    counts = torch.bincount(first * size + second, minlength=size * size)
    return normalised_information(counts.view(size, size).double())


def _entropy(shares: Tensor) -> float:
    return float(-torch.special.xlogy(shares, shares).sum())


def linked_groups(landmarks: NDArray[np.float32], classes: int) -> list[NDArray[np.intp]]:
    """The K clusters of landmarks that the tree of average linkage parts first.

    Average linkage bears clusters of very unequal size. The tree is cut where K of its clusters
    are no mere outliers.

    Args:
        landmarks: `(M, F)`, of unit length.
        classes: Clusters K.

    Returns:
        Indices of each cluster's landmarks, largest first; fewer than K clusters where fewer
        landmarks differ.
    """
    similarity = np.clip(landmarks @ landmarks.T, 0, 1) ** _SHARPNESS
    distance = 1 - (similarity + similarity.T) / 2
    distance[distance < _SAME] = 0  # rounding parts nobody
    tree = linkage(squareform(distance, checks=False), "average")
    different = 1 + int((tree[:, 2] > 0).sum())
    smallest = max(1.0, _SMALLEST_SHARE * len(landmarks) / classes)
    names = fcluster(tree, min(classes, different), "maxclust")
    for cut in range(classes, min(_MOST_CUTS * classes, different) + 1):
        finer = fcluster(tree, cut, "maxclust")
        if (np.bincount(finer) >= smallest).sum() >= classes:
            names = finer
            break
    counts = np.bincount(names)
    largest = np.argsort(-counts, kind="stable")[:classes]
    return [np.flatnonzero(names == name) for name in largest if counts[name] > 0]


def even_groups(landmarks: Tensor, classes: int, random: torch.Generator) -> list[NDArray[np.intp]]:
    """K groups of landmarks by spectral clustering (Ng, Jordan, Weiss 2002).

    For even clouds, which have no tree: k-means on the K leading eigenvectors of the normalised
    similarity.

    Args:
        landmarks: `(M, F)`, of unit length.
        classes: Clusters K.
        random: Random numbers.

    Returns:
        Indices of each group's landmarks, largest first; empty groups are left out.
    """
    classes = min(classes, len(landmarks))
    similarity = (landmarks @ landmarks.T).clamp(0, 1).double() ** _EVEN_SHARPNESS
    root = similarity.sum(dim=1).rsqrt()
    last = len(landmarks) - 1
    _, vectors = eigh(
        (root[:, None] * similarity * root).numpy(), subset_by_index=(last - classes + 1, last)
    )
    rows = functional.normalize(torch.from_numpy(vectors).float(), dim=1)
    centres = lloyd(rows, classes, random, _EVEN_STARTS, _EVEN_ROUNDS)
    names = torch.cdist(rows, centres).argmin(dim=1).numpy()
    groups = [np.flatnonzero(names == name) for name in range(classes)]
    return sorted((group for group in groups if len(group)), key=len, reverse=True)


def _deviations(pixels: Tensor) -> Tensor:
    """Of each component, `(C,)`; 1 for one that does not vary: no weight can make it."""
    found = pixels.std(dim=0, unbiased=False)
    return found.where(found > 1e-6 * pixels.abs().amax(dim=0).clamp_min(1e-6), 1.0)


def _labels(partitions: Partitions, number: int, seen: dict[int, Tensor]) -> Tensor:
    """Labels of one base partition, `(row, col)`."""
    gaussians = partitions.get(number)
    values = seen[int(partitions.windows[number])][: gaussians.means.shape[1]]
    return gaussians(values.flatten(1).T).view(values.shape[1:])


def _lead(similar: Tensor) -> tuple[Tensor, Tensor]:
    """Best class, and its lead over the next: `(K, ...)` to `(...)`."""
    (first, second), (best, _) = similar.topk(2, dim=0)
    return best, first - second


def _core(tile: Batch) -> Tensor:
    """Components of the pixels that a tile may be learned from, `(C, row, col)`."""
    rows, cols = tile.fit.shape[1:]
    top, left = (tile.values.shape[2] - rows) // 2, (tile.values.shape[3] - cols) // 2
    return tile.values[0, :, top : top + rows, left : left + cols]


def _inner(tile: Batch) -> Tensor:
    """The core with `HALO` pixels around it, `(C, row, col)`."""
    edge = (tile.values.shape[2] - tile.fit.shape[1]) // 2 - HALO
    return tile.values[0, :, edge : tile.values.shape[2] - edge, edge : tile.values.shape[3] - edge]


def _pairs(lag: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Index pairs of pixels `lag` apart, down and across."""
    return (
        (np.s_[lag:, :], np.s_[:-lag, :]),
        (np.s_[:, lag:], np.s_[:, :-lag]),
    )


def _spread(tiles: Sequence[Batch]) -> list[Batch]:
    """Evenly chosen tiles with about `_STUDY_PIXELS` pixels to be learned from together."""
    pixels = sum(int(tile.fit.sum()) for tile in tiles)
    step = max(1.0, pixels / _STUDY_PIXELS)
    return [tiles[int(number * step)] for number in range(math.ceil(len(tiles) / step))]


def _places(
    tiles: Sequence[Batch], count: int, random: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Rows and columns in each tile of pixels drawn from all that may be learned from."""
    places = [torch.nonzero(tile.fit[0]) for tile in tiles]
    ends = torch.tensor([0, *(len(place) for place in places)]).cumsum(0)
    order = torch.randperm(int(ends[-1]), generator=random)[:count].sort().values
    found = []
    for place, start, end in zip(places, ends[:-1], ends[1:], strict=True):
        mine = place[(order[(order >= start) & (order < end)] - start).to(place.device)]
        found.append((mine[:, 0], mine[:, 1]))
    return found


def _pools(
    tiles: Sequence[Batch], windows: Sequence[int], random: torch.Generator
) -> dict[int, Tensor]:
    """Some pixels as seen through each median window, `(M, C)`; the same pixels for all."""
    places = _places(tiles, _POOL_PIXELS, random)
    pools: dict[int, list[Tensor]] = {window: [] for window in windows}
    for tile, (rows, cols) in zip(tiles, places, strict=True):
        for window in windows:
            if len(rows):
                medians = window_medians(_inner(tile), window, HALO)
                pools[window].append(medians[:, rows, cols].T)
    return {window: torch.cat(parts) for window, parts in pools.items()}


def _some(pixels: Tensor, count: int, random: torch.Generator) -> Tensor:
    return pixels[torch.randperm(len(pixels), generator=random)[:count].to(pixels.device)]
