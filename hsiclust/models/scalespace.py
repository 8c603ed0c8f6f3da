"""Gaussian scale space: each component as it is seen through windows of several sizes.

Fixed filters, no padding: a pixel's features depend on its window alone, so they are the same in
every tile (Lindeberg 1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.errors import ModelError
from hsiclust.models.base import trimmed

LARGEST_DEVIATION = 64.0
_MOST_SCALES = 16
_CUT = 3.0  # a Gaussian ends at three deviations


def radius(deviation: float) -> int:
    """Pixels that a Gaussian reaches."""
    return math.ceil(_CUT * deviation)


def smoothed(values: Tensor, deviation: float) -> Tensor:
    """Valid Gaussian smoothing of each channel.

    Args:
        values: `(N, C, H, W)`.
        deviation: Of the Gaussian, in pixels; 0 leaves the values as they are.

    Returns:
        `(N, C, H - 2 r, W - 2 r)`, r being `radius(deviation)`.
    """
    reach = radius(deviation)
    if reach == 0:
        return values
    offsets = torch.arange(-reach, reach + 1, device=values.device)
    line = torch.exp(-0.5 * (offsets / deviation).square())
    line = (line / line.sum()).to(values.dtype).expand(values.shape[1], 1, -1)
    columns = functional.conv2d(values, line[..., :, None], groups=values.shape[1])
    return functional.conv2d(columns, line[..., None, :], groups=values.shape[1])


def scales_of(values: Tensor, deviations: Sequence[float]) -> Tensor:
    """Each channel smoothed by each of some Gaussians.

    Args:
        values: `(N, C, H, W)`.
        deviations: Of the S Gaussians, in pixels.

    Returns:
        `(N, S C, H - 2 r, W - 2 r)`, r being the `radius` of the largest deviation.
    """
    reach = radius(max(deviations))
    scales = (smoothed(trimmed(values, reach - radius(each)), each) for each in deviations)
    return torch.cat(list(scales), dim=1)


def check_deviations(deviations: Sequence[float]) -> None:
    """Check the deviations of a scale space, before memory is taken for it.

    Raises:
        ModelError: They are no such deviations.
    """
    if not 1 <= len(deviations) <= _MOST_SCALES or not all(
        0 <= value <= LARGEST_DEVIATION for value in deviations
    ):
        raise ModelError(
            f"deviations {tuple(deviations)} are not 1 to {_MOST_SCALES} numbers of pixels within "
            f"0..{LARGEST_DEVIATION:g}"
        )


class ScaleSpace(nn.Module):
    """Standardised components at several scales.

    Args:
        components: Number of components C.
        deviations: Of the Gaussians, in pixels, S of them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, components: int, deviations: Sequence[float]) -> None:
        super().__init__()
        self.components = components
        self.deviations = tuple(deviations)
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("scale", torch.ones(self.features))

    @property
    def features(self) -> int:
        """Features of a pixel, C S."""
        return self.components * len(self.deviations)

    @property
    def is_standardised(self) -> bool:
        """Whether mean and deviation were set."""
        return bool((self.scale != 1).any())

    @property
    def halo(self) -> int:
        """Pixels around a pixel that its features depend on."""
        return max(map(radius, self.deviations))

    @property
    def multiply_adds(self) -> int:
        """Of a pixel."""
        lines = (2 * radius(deviation) + 1 for deviation in self.deviations)
        return 2 * self.components * sum(line for line in lines if line > 1)

    def raw(self, values: Tensor) -> Tensor:
        """The scales before they are standardised, `(N, C, H, W)` to `(N, C S, H', W')`."""
        return scales_of(values, self.deviations)

    def forward(self, values: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, C S, H - 2 halo, W - 2 halo)`."""
        return (self.raw(values) - self.mean[:, None, None]) / self.scale[:, None, None]
