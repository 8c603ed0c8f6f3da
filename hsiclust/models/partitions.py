"""Base partitions: many different clusterings of the same pixels, which a consensus then unites.

Each is a set of Gaussians over the first components, each component a median over a window of
pixels; a pixel belongs to the Gaussian that explains it best. Full covariances are fitted by
expectation maximisation; equal spheres are k-means. Both are evaluated as

    argmax_k  offset_k - |W_k (x - m_k)|^2 / 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from hsiclust.models.base import trimmed
from hsiclust.models.kmeans import lloyd

Family = Literal["mixture", "centres"]

WINDOWS = (1, 3, 5, 9)
# A partition has K clusters, to this many times K. Mixtures part a class into its kinds and the
# consensus joins them again; k-means parts an even cloud anywhere, and more so the finer it is.
_CLUSTERS: dict[Family, float] = {"mixture": 3.0, "centres": 1.5}
_ROUNDS = 40  # of expectation maximisation
_KMEANS_ROUNDS = 15
_STARTS = 3  # of k-means where its centres are the partition
_LEAST_VARIANCE = 1e-6  # of pixels that do not vary at all
_SMALLEST_WEIGHT = 1e-3  # pixels that an empty Gaussian counts as holding
_ABSENT = -1e30  # offset of a Gaussian that is not there: finite, and never the best
# Values of whitened pixels that exist at once.
_AT_ONCE = 2**24


@dataclass(frozen=True)
class Draw:
    """What one base partition is fitted with.

    Attributes:
        family: Gaussians of full covariance, or the equal spheres of k-means.
        components: Leading components that it sees.
        whitened: Whether they count alike; otherwise each counts its share of signal.
        window: Side of the median window, pixels.
        clusters: Gaussians.
        shrinkage: Part of the mean variance that is added to each covariance.
    """

    family: Family
    components: int
    whitened: bool
    window: int
    clusters: int
    shrinkage: float


@dataclass(frozen=True)
class Gaussians:
    """Gaussians over d components, ready to be evaluated.

    Attributes:
        means: `(k, d)`.
        whiten: `(k, d, d)`.
        offsets: `(k,)`.
    """

    means: Tensor
    whiten: Tensor
    offsets: Tensor

    def __call__(self, pixels: Tensor) -> Tensor:
        """The best Gaussian of each pixel: `(M, d)` to `(M,)`."""
        rows = max(1, _AT_ONCE // self.whiten[..., 0].numel())
        return torch.cat([self.scores(part).argmax(dim=1) for part in pixels.split(rows)])

    def labels(self, values: Tensor) -> Tensor:
        """The best Gaussian of each pixel of a tile: `(C, H, W)`, d of them seen, to `(H, W)`."""
        depth = self.means.shape[1]
        return self(values[:depth].flatten(1).T).view(values.shape[1:])

    def scores(self, pixels: Tensor) -> Tensor:
        """Log density but for a constant: `(M, d)` to `(M, k)`."""
        clusters, depth = self.means.shape
        rows = self.whiten.reshape(clusters * depth, depth)
        centres = torch.einsum("kij,kj->ki", self.whiten, self.means).flatten()
        distances = (pixels @ rows.T - centres).square_().view(-1, clusters, depth).sum(dim=2)
        return self.offsets - 0.5 * distances

    def unweighted(self, weights: Tensor) -> Gaussians:
        """The same partition of pixels x, for Gaussians that were fitted to `weights * x`."""
        return Gaussians(self.means / weights, self.whiten * weights, self.offsets)


class Partitions(nn.Module):
    """Fitted base partitions; their sizes follow from K, so that a model file can be checked.

    Args:
        count: Base partitions n.
        components: Components C of the input.
        classes: Clusters K of the consensus.
    """

    means: Tensor
    whiten: Tensor
    offsets: Tensor
    depths: Tensor
    windows: Tensor

    def __init__(self, count: int, components: int, classes: int) -> None:
        super().__init__()
        _, depth = component_range(components, classes)
        self.most = most_clusters(classes)
        self.register_buffer("means", torch.zeros(count, self.most, depth))
        self.register_buffer("whiten", torch.zeros(count, self.most, depth, depth))
        self.register_buffer("offsets", torch.full((count, self.most), _ABSENT))
        self.register_buffer("depths", torch.full((count,), depth))
        self.register_buffer("windows", torch.ones(count, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.means)

    def put(self, number: int, gaussians: Gaussians, window: int) -> None:
        """Store one fitted partition."""
        clusters, depth = gaussians.means.shape
        for row in (self.means, self.whiten):
            row[number].zero_()
        self.offsets[number].fill_(_ABSENT)
        self.means[number, :clusters, :depth] = gaussians.means
        self.whiten[number, :clusters, :depth, :depth] = gaussians.whiten
        self.offsets[number, :clusters] = gaussians.offsets
        self.depths[number], self.windows[number] = depth, window

    def get(self, number: int) -> Gaussians:
        """One fitted partition."""
        depth = int(self.depths[number])
        there = self.offsets[number] > _ABSENT / 2
        return Gaussians(
            self.means[number, there, :depth],
            self.whiten[number, there, :depth, :depth],
            self.offsets[number, there],
        )

    def used_windows(self) -> list[int]:
        """Median windows that any of them sees through."""
        return sorted(set(self.windows.tolist()))


def most_clusters(classes: int) -> int:
    """Most Gaussians of a base partition: three times the classes, within reason."""
    return max(classes, min(3 * classes, 128))


def component_range(components: int, classes: int) -> tuple[int, int]:
    """Fewest and most components of a base partition: about as many as classes."""
    least = min(max(3, classes - 1), components)
    return least, max(least, min(components, 3 * classes // 2 + 2))


def fit_partition(
    pixels: Tensor, weights: Tensor, draw: Draw, random: torch.Generator
) -> Gaussians:
    """Fit one base partition.

    Args:
        pixels: `(M, C)`, as seen through the draw's window.
        weights: `(C,)`; a component times its weight has unit variance.
        draw: How.
        random: Random numbers.
    """
    clusters = min(draw.clusters, len(pixels))
    chosen = weights[: draw.components]
    if not draw.whitened:
        chosen = torch.ones_like(chosen)
    seen = pixels[:, : draw.components] * chosen
    if draw.family == "centres":
        centres = lloyd(seen, clusters, random, _STARTS, _KMEANS_ROUNDS)
        return _spheres(centres).unweighted(chosen)
    return fit_mixture(seen, clusters, draw.shrinkage, random).unweighted(chosen)


def _spheres(centres: Tensor) -> Gaussians:
    clusters, depth = centres.shape
    eye = torch.eye(depth, device=centres.device).expand(clusters, depth, depth)
    return Gaussians(centres, eye, torch.zeros(clusters, device=centres.device))


def fit_mixture(
    pixels: Tensor, clusters: int, shrinkage: float, random: torch.Generator
) -> Gaussians:
    """Expectation maximisation (Dempster et al. 1977) of a mixture of full Gaussians.

    Each covariance gets `shrinkage` times the mean variance on its diagonal: without it a
    Gaussian of few pixels collapses onto them.

    Args:
        pixels: `(M, d)`.
        clusters: Gaussians; they start from k-means.
        shrinkage: See above.
        random: Random numbers.
    """
    middle = pixels.mean(dim=0)  # far from it, second moments drown in rounding
    pixels = pixels - middle
    centres = lloyd(pixels, clusters, random, 1, _KMEANS_ROUNDS)
    shares = nn.functional.one_hot(_spheres(centres)(pixels), clusters).to(pixels)
    variance = pixels.var(dim=0, unbiased=False).mean().clamp_min(_LEAST_VARIANCE)
    ridge = (shrinkage + 1e-5) * variance * torch.eye(pixels.shape[1], device=pixels.device)
    fitted = _maximise(pixels, shares, ridge)
    for _ in range(_ROUNDS - 1):
        fitted = _maximise(pixels, fitted.scores(pixels).softmax(dim=1), ridge)
    return replace(fitted, means=fitted.means + middle)


def _maximise(pixels: Tensor, shares: Tensor, ridge: Tensor) -> Gaussians:
    """Gaussians of pixels that belong to them by shares `(M, k)`."""
    counts = shares.sum(dim=0) + _SMALLEST_WEIGHT
    means = shares.T @ pixels / counts[:, None]
    weighted = shares[:, :, None] * pixels[:, None]  # (M, k, d)
    # This way round and as one product: the other way MKL takes four times as long on four threads.
    scatter = (pixels.T @ weighted.flatten(1)).view(-1, *means.shape).transpose(0, 1)
    scatter = scatter / counts[:, None, None]
    covariance = scatter - means[:, :, None] * means[:, None, :] + ridge
    factor = torch.linalg.cholesky(covariance)
    eye = torch.eye(pixels.shape[1], device=pixels.device).expand_as(factor)
    whiten = torch.linalg.solve_triangular(factor, eye, upper=False)
    determinants = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    return Gaussians(means, whiten, (counts / counts.sum()).log() - determinants)


def window_medians(values: Tensor, window: int, trim: int) -> Tensor:
    """The median of each component over a square of pixels.

    Args:
        values: `(C, H, W)`.
        window: Odd side of the square.
        trim: Pixels that the result lacks on each side, `window // 2` at least.

    Returns:
        `(C, H - 2 trim, W - 2 trim)`.
    """
    inner = trimmed(values, trim - window // 2)
    if window == 1:
        return inner
    squares = inner.unfold(1, window, 1).unfold(2, window, 1)
    # One component at a time: the squares of a pixel are `window ** 2` copies of it.
    return torch.stack([part.flatten(2).median(dim=2).values for part in squares])


def draw_partitions(
    count: int, components: int, classes: int, windows: Sequence[int], spheres: float, seed: int
) -> list[Draw]:
    """Draw what the base partitions are fitted with.

    Args:
        count: How many.
        components: Components C that there are.
        classes: Clusters K of the consensus.
        windows: Median windows to draw from.
        spheres: Part of them that is k-means.
        seed: Of the draws.
    """
    random = torch.Generator().manual_seed(seed)
    least, most = component_range(components, classes)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=random))

    draws = []
    for number in range(count):
        family: Family = "centres" if number < round(count * spheres) else "mixture"
        draws.append(
            Draw(
                family=family,
                components=int(uniform(least, most + 1)),
                whitened=uniform(0, 1) < 0.5,
                window=windows[int(uniform(0, len(windows)))],
                clusters=min(
                    round(classes * uniform(1, _CLUSTERS[family])), most_clusters(classes)
                ),
                shrinkage=uniform(0.05, 0.2),
            )
        )
    return draws
