"""Tiles of a scene as components: read, checked, transformed, padded.

This one function of a tile feeds training and labelling, so the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from hsiclust.bands import Bands, match_bands
from hsiclust.grid import PixelGrid, Tile, pad_reflect
from hsiclust.scene import Scene
from hsiclust.spectra import SpectralTransform


@dataclass(frozen=True)
class Components:
    """One tile with its halo, after the spectral transform.

    Attributes:
        values: `(C, core rows + 2 halo, core cols + 2 halo)`, float32; 0 where not valid.
        valid: `(core rows + 2 halo, core cols + 2 halo)`, bool.
    """

    values: torch.Tensor
    valid: torch.Tensor


class ComponentSource(Protocol):
    """Whatever gives tiles as components: a scene with a transform, or a tile store."""

    @property
    def grid(self) -> PixelGrid:
        """The pixel grid of the scene."""
        ...

    @property
    def identity(self) -> str:
        """What decides the pixels; the same for the same file."""
        ...

    def read(self, tile: Tile) -> Components:
        """One tile, from any thread."""
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
    transform: SpectralTransform
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
        block = self.scene.read(tile.read, self.bands)  # (band, row, col), native type
        valid = self.scene.valid(block)
        values = self.transform.apply(
            torch.from_numpy(block).to(self.device), torch.from_numpy(valid).to(self.device)
        )
        return Components(
            pad_reflect(values, tile, self.grid.window),
            pad_reflect(torch.from_numpy(valid).to(self.device), tile, self.grid.window),
        )
