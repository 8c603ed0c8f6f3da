"""The spectral transform: from the bands of a sensor to a few components.

Fitted once from a bounded, spread sample of a scene, stored in the model and applied as one
matrix product. There are never statistics of a tile: they would make seams that no halo heals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import InputError, UsageError
from hsiclust.scratch import Scratch

if TYPE_CHECKING:
    import torch

Kind = Literal["mnf", "pca"]
Floats = NDArray[np.float64]
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
# Values that are converted and projected at once: more leave the cache, in fewer the interpreter's
# own time counts, and threads wait for each other.
_PART_VALUES = 2**20
_SCRATCH = Scratch()
# BLAS multiplies by rows in blocks of so many; by the rest of a block it is half as fast.
_BLAS_ROWS = 16
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


@dataclass(frozen=True, eq=False)
class SpectralTransform:
    """Bands to components: `weights * (matrix @ ((x - mean) / scale))`.

    Attributes:
        kind: "mnf" (noise-whitened, ordered by signal-to-noise) or "pca" (ordered by variance).
        bands: Bands of the sensor that are used, counted from 0, B of them.
        mean: Mean spectrum of the valid pixels, `(B,)`.
        scale: Standard deviation of each band, `(B,)`.
        matrix: `(C, B)`; gives components of unit variance.
        eigenvalues: `(C,)`; signal-to-noise ratios plus one for MNF, variances for PCA.
        weights: `(C,)`; what each unit-variance component counts.
    """

    kind: Kind
    bands: tuple[int, ...]
    mean: Floats
    scale: Floats
    matrix: Floats
    eigenvalues: Floats
    weights: Floats

    @property
    def components(self) -> int:
        """Number of components C."""
        return len(self.matrix)

    @property
    def projection(self) -> Floats:
        """`(C, B)`; components of centred spectra: `projection @ (x - mean)`."""
        return self.weights[:, None] * self.matrix / self.scale

    def equals(self, other: SpectralTransform) -> bool:
        """Whether both give the same components of the same bands, bit by bit."""
        return self.bands == other.bands and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("mean", "scale", "matrix", "weights")
        )

    def apply(
        self, block: torch.Tensor, valid: torch.Tensor, into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Components of a block; invalid pixels get the mean spectrum, which is zero.

        Args:
            block: `(B, row, col)`, the transform's own bands, any real type.
            valid: `(row, col)`, bool.
            into: `(C, row, col)`, float32; where the components go. When None they go to new
                memory, pixel by pixel.

        Returns:
            `(C, row, col)`, float32, on the device of `block`.
        """
        import torch

        if into is None:
            shape = (*block.shape[1:], self.components)
            into = torch.empty(shape, device=block.device).movedim(-1, 0)
        if block.device.type == "cpu":
            self._apply_on_processor(block.numpy(), valid.numpy(), into.numpy())
            return into
        mean = torch.as_tensor(self.mean, dtype=torch.float32, device=block.device)[:, None]
        projection = torch.as_tensor(self.projection, dtype=torch.float32, device=block.device)
        centred = block.reshape(len(block), -1).to(torch.float32, copy=True).sub_(mean)
        centred.masked_fill_(~valid.reshape(-1), 0.0)
        return into.copy_(torch.mm(projection, centred).view_as(into))

    def _apply_on_processor(
        self, block: NDArray[np.generic], valid: NDArray[np.bool_], into: NDArray[np.float32]
    ) -> None:
        """As `apply`, by NumPy, in few calls: threads that call wait for each other."""
        mean, weights = self._on_processor
        lines, components = block.swapaxes(0, 1), np.moveaxis(into, 0, -1)
        whole = bool(valid.all())
        count, height, cols = block.shape  # lines are (row, band, col), components (row, col, C)
        rows, floats = part_of(count, self.components, height, cols)
        with _SCRATCH.lend(floats * mean.itemsize) as memory:
            room, rest = np.split(memory.view(np.float32), [rows * cols * count])
            room, rest = _shaped_like(room, lines[:rows]), rest.reshape(rows, cols, len(weights))
            for top in range(0, len(lines), rows):
                part = lines[top : top + rows]
                centred, found = room[: len(part)], rest[: len(part)]
                np.copyto(centred, part)
                np.subtract(centred, mean, out=centred)
                spectra = centred.swapaxes(1, 2)
                if not whole:
                    spectra[~valid[top : top + rows]] = 0.0
                np.matmul(spectra, weights.T, out=found)
                components[top : top + rows] = found[:, :, : self.components]

    @cached_property
    def _on_processor(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mean, `(B, 1)`, and the projection with rows of zeros, `(C', B)`."""
        weights = np.zeros((_filled_up(self.components), len(self.mean)))
        weights[: self.components] = self.projection
        return self.mean.astype(np.float32)[:, None], weights.astype(np.float32)


def part_of(bands: int, components: int, rows: int, cols: int) -> tuple[int, int]:
    """What of a block the processor transforms at once.

    Args:
        bands: Bands of the block.
        components: Components that they become.
        rows: Rows of the block.
        cols: Columns.

    Returns:
        Rows, and the float32 values that they take meanwhile.
    """
    found = _filled_up(components)
    rows = min(rows, max(1, _PART_VALUES // (max(bands, found) * cols)))
    return rows, rows * cols * (bands + found)


def _filled_up(components: int) -> int:
    """Rows of whole blocks of BLAS."""
    return -(-components // _BLAS_ROWS) * _BLAS_ROWS


def _shaped_like(room: NDArray[np.float32], lines: NDArray[np.generic]) -> NDArray[np.float32]:
    """Room for `(row, band, col)`, in which bands follow each other as they do in `lines`."""
    rows, bands, cols = lines.shape
    if lines.strides[1] == lines.itemsize:
        return room.reshape(rows, cols, bands).swapaxes(1, 2)
    return room.reshape(lines.shape)


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
