"""The spectral transform: from the bands of a sensor to a few components.

Fitted once (`spectralfit.py`), stored in the model and applied as one matrix product. There are
never statistics of a tile: they would make seams that no halo heals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hsiclust.scratch import Scratch

if TYPE_CHECKING:
    import torch

Kind = Literal["mnf", "pca"]
Floats = NDArray[np.float64]

# Values that are converted and projected at once: more leave the cache, in fewer the interpreter's
# own time counts, and threads wait for each other.
_PART_VALUES = 2**20
# BLAS multiplies by rows in blocks of so many; by the rest of a block it is half as fast.
_BLAS_ROWS = 16
# Multiplications of a product that OpenBLAS, with AVX-512, makes of the factors as they lie; for a
# larger one it copies them first, which takes as long as the product where a factor is narrow.
_SMALL_PRODUCT = 10**6
_SCRATCH = Scratch()


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

    def leading(self, count: int) -> SpectralTransform:
        """The same with its first `count` components alone."""
        if count == self.components:
            return self
        return replace(
            self,
            matrix=self.matrix[:count],
            eigenvalues=self.eigenvalues[:count],
            weights=self.weights[:count],
        )

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
            if not valid.any():
                return into.zero_()
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
        import torch

        mean, weights = self._on_processor
        less = torch.from_numpy(mean)
        lines, components = block.swapaxes(0, 1), np.moveaxis(into, 0, -1)
        whole = bool(valid.all())
        count, height, cols = block.shape  # lines are (row, band, col), components (row, col, C)
        rows, floats = part_of(count, self.components, height, cols)
        # What float32 cannot hold is not valid; whatever becomes of it is written over.
        quiet = np.errstate(over="ignore", invalid="ignore")
        with quiet, _SCRATCH.lend(floats * mean.itemsize) as memory:
            room, rest = np.split(memory.view(np.float32), [rows * cols * count])
            room, rest = _shaped_like(room, lines[:rows]), rest.reshape(rows, cols, len(weights))
            for top in range(0, len(lines), rows):
                part = lines[top : top + rows]
                centred, found = room[: len(part)], rest[: len(part)]
                np.copyto(centred, part)
                torch.from_numpy(centred).sub_(less)  # NumPy takes twice as long
                spectra = centred.swapaxes(1, 2)
                if not whole:
                    spectra[~valid[top : top + rows]] = 0.0
                _multiply(spectra, weights, found)
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


def _multiply(
    spectra: NDArray[np.float32], weights: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """`(row, col, B)` by `(C', B)` to `(row, col, C')`, some columns at a time in one call."""
    rows, cols, bands = spectra.shape
    step = max(_BLAS_ROWS, _SMALL_PRODUCT // weights.size // _BLAS_ROWS * _BLAS_ROWS)
    whole = cols - cols % step
    # Both factors the same way round.
    factor = np.asarray(weights.T, order="C" if spectra.strides[2] == spectra.itemsize else "F")
    if whole:
        parts = (rows, whole // step, step)  # to part an axis copies nothing
        found = out[:, :whole].reshape(*parts, -1)
        np.matmul(spectra[:, :whole].reshape(*parts, bands), factor, out=found)
    if whole < cols:
        np.matmul(spectra[:, whole:], factor, out=out[:, whole:])


def _filled_up(components: int) -> int:
    """Rows of whole blocks of BLAS."""
    return -(-components // _BLAS_ROWS) * _BLAS_ROWS


def _shaped_like(room: NDArray[np.float32], lines: NDArray[np.generic]) -> NDArray[np.float32]:
    """Room for `(row, band, col)`, in which bands follow each other as they do in `lines`."""
    rows, bands, cols = lines.shape
    if lines.strides[1] == lines.itemsize:
        return room.reshape(rows, cols, bands).swapaxes(1, 2)
    return room.reshape(lines.shape)
