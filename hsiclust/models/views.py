"""The spectral-spatial augmentation pool of SSCC, as batched operations on crops.

Each view of a crop is a random resized crop with a random flip and quarter turn, then one of:
Gaussian blur, masked pixels, masked bands. Spatial changes are remembered, so that the outputs
of two views can be paired pixel by pixel: the two members of a pair see the same ground, at
another scale, turned, and displaced. With crops of a single output pixel this is the paper's
augmentation of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class ViewPool:
    """How strongly views differ.

    Attributes:
        smallest_area: A view shows this part of the crop's area, to 1; the paper has 0.08.
        displacement: Largest further displacement of a view, pixels.
        probability: Of applying the one spectral change that was drawn for a view.
        masked_pixels: Part of the pixels that a pixel mask hides.
        masked_bands: Part of the components that a band mask hides.
        noise: Deviation of the noise that every view gets, in deviations of each component.
        gain: Deviation of the factor that every view gets.
        drift: Deviation of the offset that each component of a view gets, in its deviations: what
            another day's light and air do to a scene.
        turns: Whether views are turned and mirrored every way, or mirrored left to right only.
    """

    smallest_area: float = 0.5
    displacement: int = 5
    probability: float = 0.5
    masked_pixels: float = 0.5
    masked_bands: float = 0.5
    noise: float = 0.0
    gain: float = 0.0
    drift: float = 0.0
    turns: bool = True


@dataclass(frozen=True)
class View:
    """One view of a batch of crops.

    Attributes:
        values: `(N, C, side, side)`.
        scale: `(N,)`; side of the shown square, in parts of the crop's.
        turn: `(N, 2, 2)`; orthogonal matrix from view to crop coordinates `(x, y)`.
    """

    values: Tensor
    scale: Tensor
    turn: Tensor


class Draw:
    """Random numbers from one generator, delivered on the device of the data."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self._generator = generator
        self._device = device

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1)."""
        drawn = torch.rand(*shape, generator=self._generator, device=self._generator.device)
        return drawn.to(self._device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        drawn = torch.randn(*shape, generator=self._generator, device=self._generator.device)
        return drawn.to(self._device)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to `high - 1`."""
        drawn = torch.randint(high, shape, generator=self._generator, device=self._generator.device)
        return drawn.to(self._device)


def draw_view(
    crops: Tensor, side: int, field: int, pool: ViewPool, generator: torch.Generator
) -> View:
    """Draw one view of each crop.

    A resized crop shows each pixel's receptive field from a random place within it: what the
    scale leaves free of the field is the room for that place.

    Args:
        crops: `(N, C, S, S)`, with `S >= side + 2 * displacement`.
        side: Side of the view.
        field: Side of the receptive field.
        pool: How strongly it may differ.
        generator: Random numbers.
    """
    draw = Draw(generator, crops.device)
    count, source_side = len(crops), crops.shape[-1]
    area = pool.smallest_area + (1 - pool.smallest_area) * draw.uniform(count)
    scale = area.sqrt()
    turn = _quarter_turns(draw, count) if pool.turns else _mirrors(draw, count)
    shift = draw.integers(2 * pool.displacement + 1, count, 2) - pool.displacement
    room = (1 - scale[:, None]) * field / 2
    shift = shift + room * (2 * draw.uniform(count, 2) - 1)
    # Both grids are normalised to [-1, 1] across their own side (align_corners=False).
    linear = (scale * (side / source_side))[:, None, None] * turn
    offset = shift[:, :, None] * (2 / source_side)
    theta = torch.cat([linear, offset], dim=2)
    grid = functional.affine_grid(theta, [count, 1, side, side], align_corners=False)
    values = functional.grid_sample(
        crops, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return View(_change_spectra(_disturb(values, pool, draw), pool, draw), scale, turn)


def pair_outputs(
    views: tuple[View, View], outputs: tuple[Tensor, Tensor], fit: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs of two views at the same ground, one row a pixel.

    Args:
        views: The two views.
        outputs: Of each view, `(N, K, o, o)`.
        fit: `(N, o, o)`, pixels of the crop that may be learned from.

    Returns:
        Two `(M, K)`, row i of both about one pixel.
    """
    count, depth = outputs[0].shape[:2]
    # Both views show the square of the smaller scale around the crop's centre.
    common = torch.minimum(views[0].scale, views[1].scale)
    wanted = _sample(fit[:, None].to(outputs[0].dtype), common[:, None, None] * _eye(fit, count))
    keep = wanted[:, 0].flatten() > 0.5
    first, second = (
        _sample(output, (common / view.scale)[:, None, None] * view.turn.transpose(1, 2))
        .movedim(1, -1)
        .reshape(-1, depth)[keep]
        for view, output in zip(views, outputs, strict=True)
    )
    return first, second


def _eye(like: Tensor, count: int) -> Tensor:
    return torch.eye(2, device=like.device).expand(count, 2, 2)


def _sample(maps: Tensor, linear: Tensor) -> Tensor:
    """Maps at linearly transformed positions about their centre, nearest pixel."""
    theta = torch.cat([linear, torch.zeros_like(linear[:, :, :1])], dim=2)
    grid = functional.affine_grid(
        theta.to(maps.dtype), [len(maps), 1, *maps.shape[-2:]], align_corners=False
    )
    return functional.grid_sample(
        maps, grid, mode="nearest", padding_mode="border", align_corners=False
    )


def _quarter_turns(draw: Draw, count: int) -> Tensor:
    """Random members of the square's symmetry group, `(N, 2, 2)`."""
    quarter = draw.integers(4, count)
    cosine = torch.tensor([1.0, 0.0, -1.0, 0.0], device=quarter.device)[quarter]
    sine = torch.tensor([0.0, 1.0, 0.0, -1.0], device=quarter.device)[quarter]
    flip = draw.integers(2, count) * 2.0 - 1.0
    return torch.stack(
        [torch.stack([cosine * flip, -sine], 1), torch.stack([sine * flip, cosine], 1)], 1
    )


def _mirrors(draw: Draw, count: int) -> Tensor:
    """Nothing, or left for right, `(N, 2, 2)`."""
    flip = draw.integers(2, count) * 2.0 - 1.0
    turn = torch.eye(2, device=flip.device).repeat(count, 1, 1)
    turn[:, 0, 0] = flip
    return turn


def _disturb(values: Tensor, pool: ViewPool, draw: Draw) -> Tensor:
    """Gain, drift of each component, noise."""
    count, depth = values.shape[:2]
    spread = values.std(dim=(0, 2, 3), keepdim=True, unbiased=False)
    if pool.gain > 0:
        values = values * (1 + pool.gain * draw.normal(count, 1, 1, 1))
    if pool.drift > 0:
        values = values + pool.drift * spread * draw.normal(count, depth, 1, 1)
    if pool.noise > 0:
        values = values + pool.noise * spread * draw.normal(*values.shape)
    return values


def _change_spectra(values: Tensor, pool: ViewPool, draw: Draw) -> Tensor:
    """One of blur, pixel mask and band mask for each view, or none."""
    count, depth, rows, cols = values.shape
    choice = draw.integers(3, count)
    choice = choice.where(draw.uniform(count) < pool.probability, -1)
    blurred = _blur(values, 0.1 + 1.9 * draw.uniform(count))
    keep_pixels = draw.uniform(count, 1, rows, cols) >= pool.masked_pixels
    keep_bands = draw.uniform(count, depth, 1, 1) >= pool.masked_bands
    chosen = choice[:, None, None, None]
    values = torch.where(chosen == 0, blurred, values)
    values = torch.where((chosen == 1) & ~keep_pixels, 0.0, values)
    return torch.where((chosen == 2) & ~keep_bands, 0.0, values)


def _blur(values: Tensor, sigma: Tensor) -> Tensor:
    """A 3 x 3 Gaussian of its own deviation, in pixels, for each view."""
    count, depth, rows, cols = values.shape
    side = torch.exp(-0.5 / sigma.square())  # weight of a neighbour, 1 at the centre
    line = torch.stack([side, torch.ones_like(side), side], dim=1)
    line = line / line.sum(dim=1, keepdim=True)
    kernels = (line[:, :, None] * line[:, None, :])[:, None].expand(-1, depth, -1, -1)
    padded = functional.pad(values, (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(
        padded.reshape(1, count * depth, rows + 2, cols + 2),
        kernels.reshape(count * depth, 1, 3, 3),
        groups=count * depth,
    )
    return blurred.reshape(count, depth, rows, cols)
