"""Pixels as components: read, checked, transformed, padded.

This one function of a window feeds training and labelling, so the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hsiclust.bands import Bands, match_bands
from hsiclust.clock import Clock
from hsiclust.grid import PixelGrid, Window
from hsiclust.models.base import trimmed
from hsiclust.scene import Scene
from hsiclust.spectra import SpectralTransform
from hsiclust.tilegrid import Tile, pad_reflect

# Pixels that a thread takes at once of what several read, where pieces are not larger.
_PART_PIXELS = 2**16


@dataclass(frozen=True)
class Components:
    """Pixels of a window, or of one tile with its halo, after the spectral transform.

    Attributes:
        values: `(C, row, col)`, float32; 0 where not valid.
        valid: `(row, col)`, bool.
    """

    values: torch.Tensor
    valid: torch.Tensor

    def trimmed(self, edge: int) -> Components:
        """The same without `edge` pixels on each side."""
        return Components(trimmed(self.values, edge), trimmed(self.valid, edge))

    def below(self, row: int) -> Components:
        """The same from this row on, in the same memory."""
        return Components(self.values[:, row:], self.valid[row:])

    def at(self, rows: slice, cols: slice) -> Components:
        """A part, in the same memory."""
        return Components(self.values[:, rows, cols], self.valid[rows, cols])


class Preparation(Protocol):
    """What becomes of the bands of a block before it is cut into tiles."""

    @property
    def components(self) -> int:
        """Values of a pixel that are kept."""
        ...

    def apply(
        self, block: torch.Tensor, valid: torch.Tensor, into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(B, row, col)` and `(row, col)` to `(C, row, col)`, float32."""
        ...


@dataclass(frozen=True)
class SceneComponents:
    """A scene seen through a spectral transform.

    Attributes:
        scene: What is read.
        transform: What is applied.
        bands: The scene's bands that the transform uses, counted from 0.
        device: Where the components are computed and left.
    """

    scene: Scene
    transform: Preparation
    bands: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(
        cls, scene: Scene, transform: SpectralTransform, sensor: Bands, device: torch.device
    ) -> SceneComponents:
        """Match a scene's bands to those that the transform was fitted on.

        Raises:
            ModelError: They cannot be matched.
        """
        bands = match_bands(transform.bands, sensor, scene.bands, scene.path)
        return cls(scene, transform, bands, device)

    @property
    def grid(self) -> PixelGrid:
        """The pixel grid of the scene."""
        return self.scene.grid

    @property
    def identity(self) -> str:
        """That of the scene."""
        return self.scene.identity

    def read(self, tile: Tile) -> Components:
        """Read a tile's core and halo and transform them.

        Raises:
            InputError: The scene cannot be read there.
        """
        found = self.window(tile.read)
        scene = self.grid.window
        return Components(
            pad_reflect(found.values, tile, scene), pad_reflect(found.valid, tile, scene)
        )

    def window(self, window: Window) -> Components:
        """Read a window and transform it.

        Raises:
            InputError: The scene cannot be read there.
        """
        found = self.room(window.rows, window.cols)
        self.fill(found, window, Clock())
        return found

    def room(self, rows: int, cols: int) -> Components:
        """Memory for components on the device; what it holds is anything."""
        return Components(
            # Pixel by pixel, as it is computed and as the network takes it.
            torch.empty(rows, cols, self.transform.components, device=self.device).movedim(-1, 0),
            torch.empty(rows, cols, dtype=torch.bool, device=self.device),
        )

    def parts(self, window: Window) -> list[Window]:
        """Parts of a window that several threads may fill.

        One on a CUDA device: each part would wait for the device.
        """
        if self.device.type == "cuda":
            return [window]
        rows, cols = self.scene.piece_shape(len(self.bands))
        return list(window.cut(rows * max(1, _PART_PIXELS // (rows * cols)), cols))

    def fill(self, room: Components, window: Window, clock: Clock) -> None:
        """Read a window and transform it, piece by piece: it never lies in memory as bands.

        Args:
            room: Where the components go, of the window's shape.
            window: What is read.
            clock: Counts the time.

        Raises:
            InputError: The scene cannot be read there.
        """
        for piece in clock.reading_each(self.scene.pieces(window, self.bands)):
            with clock.during("computing"):
                rows, cols = piece.window.relative_to(window).slices
                valid = self._moved(self.scene.valid(piece.values, piece.window))
                room.valid[rows, cols] = valid
                self.transform.apply(self._moved(piece.values), valid, room.values[:, rows, cols])

    def _moved(self, array: NDArray[np.generic]) -> torch.Tensor:
        """An array on the device; from pinned memory, which is copied without the processor."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
