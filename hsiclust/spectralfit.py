"""Fitting a spectral transform to a bounded sample of a scene, in float64: MNF or PCA."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import InputError, UsageError
from hsiclust.spectra import Floats, Kind, SpectralTransform

Sample = Sequence[tuple[NDArray[np.generic], NDArray[np.bool_]]]
"""Blocks of a scene, `(band, row, col)`, each with its valid pixels, `(row, col)`."""

# Differences between neighbours are noise where the ground is even and signal at edges; the
# largest of them are dropped.
_KEPT_DIFFERENCES = 0.7
# Part of the mean noise variance added to every band: a band with no noise of its own (a copy, a
# smoothed band) would otherwise get an unbounded signal-to-noise ratio.
_NOISE_RIDGE = 1e-3
# A band whose deviation is below this part of its magnitude is constant but for rounding.
_CONSTANT_BAND = 1e-9
# Each pixel and its neighbour to the left, each pixel and its neighbour above.
_NEIGHBOURS = ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:, :], np.s_[:-1, :]))


class Moments:
    """Count, mean and scatter of vectors, in float64, from any number of batches.

    Two `Moments` of disjoint batches merge into the moments of both (Chan, Golub, LeVeque 1979).
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(size)
        self.scatter: Floats = np.zeros((size, size))

    def update(self, vectors: NDArray[np.generic]) -> None:
        """Add vectors, shape `(count, size)`."""
        if len(vectors) == 0:
            return
        batch = Moments(len(self.mean))
        batch.count = len(vectors)
        values = vectors.astype(np.float64)
        batch.mean = values.mean(axis=0)
        values -= batch.mean
        batch.scatter = values.T @ values
        self.merge(batch)

    def merge(self, other: Moments) -> None:
        """Add the vectors that `other` has seen."""
        count = self.count + other.count
        if count == 0:
            return
        shift = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(shift, shift) * (self.count * other.count / count)
        self.mean += shift * (other.count / count)
        self.count = count

    @property
    def covariance(self) -> Floats:
        """Population covariance, `(size, size)`."""
        return self.scatter / max(self.count, 1)


def fit_transform(
    sample: Sample,
    bands: Sequence[int],
    kind: Kind = "mnf",
    components: int | None = None,
    *,
    most_components: int = 30,
    whiten: bool = False,
) -> SpectralTransform:
    """Fit a spectral transform to a sample of a scene.

    Args:
        sample: Blocks of the bands `bands`, and their valid pixels.
        bands: The sensor's numbers of those bands, counted from 0.
        kind: "mnf" or "pca".
        components: How many to keep; `min(most_components, B - 1)` when None.
        most_components: See `components`.
        whiten: Leave every component at unit variance. Otherwise MNF components are weighted
            by the root of their share of signal, and PCA components by their deviation.

    Raises:
        InputError: The sample has too few valid pixels, or no band varies.
        UsageError: More components than bands are asked for.
    """
    total = _moments(_spectra(sample), len(bands))
    if total.count < 2:
        raise InputError("the sample holds fewer than two valid pixels: nothing can be fitted")
    deviation = np.sqrt(np.diag(total.covariance))
    varying = deviation > _CONSTANT_BAND * np.maximum(np.abs(total.mean), 1e-30)
    if not varying.any():
        raise InputError("every band is constant over the sample: nothing can be fitted")
    keep = np.flatnonzero(varying)
    mean, scale = total.mean[keep], deviation[keep]
    signal = total.covariance[np.ix_(keep, keep)] / np.outer(scale, scale)
    count = _component_count(components, most_components, len(keep))
    if kind == "mnf":
        noise = noise_covariance(sample, keep, scale)
        eigenvalues, vectors = _leading(signal, noise, count)
        # v' S v = lambda v' N v = lambda: a component's variance is its eigenvalue
    else:
        eigenvalues, vectors = _leading(signal, None, count)
    unit = vectors / np.sqrt(np.maximum(eigenvalues, np.finfo(float).tiny))
    matrix = np.array(_signed(unit).T, order="C")
    weights = np.ones(count) if whiten else _weights(kind, eigenvalues)
    chosen = tuple(bands[int(index)] for index in keep)
    return SpectralTransform(kind, chosen, mean, scale, matrix, eigenvalues, weights)


def noise_covariance(sample: Sample, bands: NDArray[np.intp], scale: Floats) -> Floats:
    """Noise covariance of scaled bands, from differences of neighbouring pixels.

    Half the covariance of horizontal and vertical lag-1 differences (Green et al. 1988), after
    the 30 % with the largest norm, which are edges, are dropped; a ridge is added.

    Args:
        sample: Blocks and their valid pixels.
        bands: Indices into the blocks' bands.
        scale: Standard deviation of those bands.

    Returns:
        `(len(bands), len(bands))`.

    Raises:
        InputError: No two valid pixels are neighbours.
    """
    norms = [np.linalg.norm(batch, axis=1) for batch in _differences(sample, bands, scale)]
    if not norms:
        raise InputError("no two valid pixels are neighbours: the noise cannot be estimated")
    limit = np.quantile(np.concatenate(norms), _KEPT_DIFFERENCES)
    kept = (
        batch[np.linalg.norm(batch, axis=1) <= limit]
        for batch in _differences(sample, bands, scale)
    )
    covariance = _moments(kept, len(bands)).covariance / 2
    ridge = _NOISE_RIDGE * float(np.trace(covariance)) / len(bands)
    return covariance + max(ridge, np.finfo(float).eps) * np.eye(len(bands))


def _spectra(sample: Sample) -> Iterator[NDArray[np.generic]]:
    """Valid spectra of each block, `(pixel, band)`."""
    return (block[:, valid].T for block, valid in sample)


def _differences(sample: Sample, bands: NDArray[np.intp], scale: Floats) -> Iterator[Floats]:
    """Differences of valid neighbours in units of `scale`, `(pair, band)`."""
    for block, valid in sample:
        spectra = np.moveaxis(block[bands], 0, -1).astype(np.float64) / scale  # (row, col, band)
        for here, before in _NEIGHBOURS:
            both = valid[here] & valid[before]
            if both.any():
                yield spectra[here][both] - spectra[before][both]


def _moments(batches: Iterable[NDArray[np.generic]], size: int) -> Moments:
    moments = Moments(size)
    for batch in batches:
        moments.update(batch)
    return moments


def _component_count(asked: int | None, most: int, bands: int) -> int:
    if asked is None:
        return max(1, min(most, bands - 1))
    if not 1 <= asked <= bands:
        raise UsageError(f"{asked} components from {bands} usable bands: ask for 1 to {bands}")
    return asked


def _leading(signal: Floats, noise: Floats | None, count: int) -> tuple[Floats, Floats]:
    """The `count` largest eigenvalues, descending, and their vectors in columns."""
    from scipy.linalg import eigh

    last = len(signal) - 1
    values, vectors = eigh(signal, noise, subset_by_index=(last - count + 1, last))
    # Copied: with one component a reversed view keeps a negative stride, which torch refuses.
    return np.array(values[::-1], order="C"), np.array(vectors[:, ::-1], order="C")


def _signed(vectors: Floats) -> Floats:
    """Columns with their largest entry positive: an eigenvector's sign is arbitrary."""
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return vectors * np.where(signs == 0, 1.0, signs)


def _weights(kind: Kind, eigenvalues: Floats) -> Floats:
    if kind == "pca":
        return np.asarray(np.sqrt(np.maximum(eigenvalues, 0) / eigenvalues[0]))
    # The share of signal in each component's deviation: sqrt((lambda - 1) / lambda), bounded
    # away from zero for components that are all noise.
    return np.asarray(np.sqrt(np.maximum(eigenvalues - 1, 0.1) / np.maximum(eigenvalues, 1.1)))
