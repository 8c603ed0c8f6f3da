"""A denoising diffusion model of feature vectors, conditioned on class.

Time t runs from 0 to 1: `x_t = a x_0 + s e` with Gaussian noise e, `a = cos(pi t / 2)` and
`s = sin(pi t / 2)` (Nichol and Dhariwal 2021). The network predicts the clean x_0 from x_t, t and
the class; one class number stands for "any" (classifier-free guidance, Ho and Salimans 2022).
Synthetic vectors are drawn and given ones refined along DDIM steps (Song et al. 2021).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_TIME_CHANNELS = 32
_FASTEST = 100.0  # of the sinusoids that say t, in quarter turns


@dataclass(frozen=True)
class DiffusionConfig:
    """Settings of the diffusion model.

    Attributes:
        width: Channels of the network.
        blocks: Residual blocks.
        batch: Vectors in a batch.
        rate: Largest learning rate, one cycle of AdamW.
        decay: Weight decay.
        average: Of the moving average of the weights, which is what is used.
        latest: Largest t.
        least_weight: Bounds of the weight of a vector in the loss, its signal-to-noise ratio.
        most_weight: See `least_weight`.
        labelled: Part of a batch that is labelled, of all classes alike.
        anonymous: Part of those whose class is withheld.
        guidance: How far a prediction is pushed from "any class" towards the class.
        sample_steps: Of drawing a synthetic vector.
        noise: Of drawing, 1 for as much new noise at each step as the model assumes, 0 for none.
        refine_from: t at which the refinement of a vector begins.
        refine_steps: Of a refinement.
    """

    width: int = 256
    blocks: int = 3
    batch: int = 512
    rate: float = 1e-3
    decay: float = 1e-4
    average: float = 0.995
    latest: float = 0.98
    least_weight: float = 0.2
    most_weight: float = 5.0
    labelled: float = 0.5
    anonymous: float = 0.15
    guidance: float = 1.0
    sample_steps: int = 20
    noise: float = 1.0
    refine_from: float = 0.4
    refine_steps: int = 3


class _Block(nn.Module):
    """A residual layer, scaled and shifted by what is known of time and class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.condition = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        for layer in (self.condition, self.out):  # a block starts as the identity
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, known: Tensor) -> Tensor:
        """`(M, width)` each."""
        scale, shift = self.condition(known).chunk(2, dim=1)
        inner = functional.silu(self.into(self.norm(hidden) * (1 + scale) + shift))
        changed: Tensor = hidden + self.out(inner)
        return changed


class Denoiser(nn.Module):
    """Predicts the clean vector.

    Args:
        size: Of a vector, d; vectors are standardised.
        classes: Number of classes K; class K stands for any.
        settings: See `DiffusionConfig`.
    """

    def __init__(self, size: int, classes: int, settings: DiffusionConfig) -> None:
        super().__init__()
        width = settings.width
        self.size, self.classes, self.settings = size, classes, settings
        self.into = nn.Linear(size, width)
        self.time = nn.Sequential(
            nn.Linear(_TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width)
        )
        # Random: started at zero, the classes are hardly learned in a thousand steps.
        self.label = nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(settings.blocks))
        last = nn.Linear(width, size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.out = nn.Sequential(nn.LayerNorm(width), last)

    def forward(self, noisy: Tensor, time: Tensor, classes: Tensor) -> Tensor:
        """`(M, d)`, t `(M,)` and classes `(M,)` to clean vectors `(M, d)`."""
        known = functional.silu(self.time(_sinusoids(time)) + self.label(classes))
        hidden = self.into(noisy)
        for block in self.blocks:
            hidden = block(hidden, known)
        signal, noise = _mixture(time)
        # Of vectors of unit variance a x_t is the best linear guess: the network adds to it.
        clean: Tensor = signal * noisy + noise * self.out(hidden)
        return clean

    def guided(self, noisy: Tensor, time: Tensor, classes: Tensor) -> Tensor:
        """The prediction pushed towards the class."""
        found: Tensor = self(noisy, time, classes)
        anyone = torch.full_like(classes, self.classes)
        if self.settings.guidance == 0 or torch.equal(classes, anyone):
            return found
        other: Tensor = self(noisy, time, anyone)
        return found + self.settings.guidance * (found - other)


def denoising_loss(
    denoiser: Denoiser, clean: Tensor, classes: Tensor, generator: torch.Generator
) -> Tensor:
    """Weighted squared error of the prediction from noise at a random t.

    Args:
        denoiser: The network.
        clean: `(M, d)`.
        classes: `(M,)`, K for any.
        generator: Random numbers.
    """
    settings = denoiser.settings
    time = settings.latest * torch.rand(len(clean), generator=generator).to(clean)
    signal, noise = _mixture(time)
    added = torch.randn(tuple(clean.shape), generator=generator).to(clean)
    found = denoiser(signal * clean + noise * added, time, classes)
    ratio = (signal / noise.clamp_min(1e-3)).square()
    weight = ratio.clamp(settings.least_weight, settings.most_weight)
    loss: Tensor = (weight * (found - clean).square()).mean()
    return loss


def follow(average: Denoiser, denoiser: Denoiser, step: int) -> None:
    """Move the average of the weights after a step, from 0; it starts fast."""
    kept = min(denoiser.settings.average, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, value in zip(average.parameters(), denoiser.parameters(), strict=True):
            mean.lerp_(value, 1 - kept)


@torch.no_grad()
def drawn(denoiser: Denoiser, classes: Tensor, generator: torch.Generator) -> Tensor:
    """A synthetic vector of each class in `classes`, `(M,)` to `(M, d)`."""
    settings = denoiser.settings
    shape = (len(classes), denoiser.size)
    start = torch.randn(shape, generator=generator).to(classes.device)
    begin = (settings.latest, settings.sample_steps)
    return _denoised(denoiser, start, begin, classes, generator)


@torch.no_grad()
def refined(denoiser: Denoiser, vectors: Tensor) -> Tensor:
    """Vectors `(M, d)` as the model rebuilds them: the same each time, without noise or class."""
    settings = denoiser.settings
    anyone = torch.full((len(vectors),), denoiser.classes, device=vectors.device)
    start = vectors * math.cos(settings.refine_from * math.pi / 2)
    return _denoised(denoiser, start, (settings.refine_from, settings.refine_steps), anyone, None)


def _denoised(
    denoiser: Denoiser,
    noisy: Tensor,
    begin: tuple[float, int],
    classes: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Down from a time, in so many DDIM steps; with new noise where there is a generator."""
    latest, steps = begin
    times = torch.linspace(latest, 0, steps + 1, device=noisy.device)
    for now, then in pairwise(times):
        clean = denoiser.guided(noisy, now.expand(len(noisy)), classes)
        if then == 0:
            return clean
        (signal, noise), (next_signal, next_noise) = _mixture(now[None]), _mixture(then[None])
        direction = (noisy - signal * clean) / noise
        fresh = torch.zeros_like(noise)
        if generator is not None:
            lost = (1 - (signal / next_signal).square()).clamp_min(0).sqrt()
            fresh = denoiser.settings.noise * next_noise / noise * lost
        kept = (next_noise.square() - fresh.square()).clamp_min(0).sqrt()
        noisy = next_signal * clean + kept * direction
        if generator is not None:
            noisy = noisy + fresh * torch.randn(tuple(noisy.shape), generator=generator).to(noisy)
    return noisy


def averaged(denoiser: Denoiser) -> Denoiser:
    """A copy that `follow` moves."""
    return copy.deepcopy(denoiser).requires_grad_(False)


def gaussian_vectors(
    vectors: Tensor, classes: Tensor, wanted: Tensor, generator: torch.Generator
) -> Tensor:
    """Synthetic vectors without diffusion, to compare with: of one Gaussian a class.

    Each has the class's mean and a covariance drawn together with that of all classes, by as much
    as the class has few labels (`n / (n + d)`; Friedman 1989).

    Args:
        vectors: `(L, d)`, labelled.
        classes: `(L,)`, their classes.
        wanted: `(M,)`, classes to draw.
        generator: Random numbers.

    Returns:
        `(M, d)`.
    """
    numbers = classes.unique()
    size = vectors.shape[1]
    centred = vectors.clone()
    for number in numbers:
        centred[classes == number] -= vectors[classes == number].mean(dim=0)
    pooled = centred.T @ centred / max(len(vectors) - len(numbers), 1)
    found = torch.zeros(len(wanted), size, dtype=vectors.dtype, device=vectors.device)
    for number in wanted.unique():
        mine = centred[classes == number]
        own = mine.T @ mine / max(len(mine) - 1, 1)
        share = len(mine) / (len(mine) + size)
        covariance = share * own + (1 - share) * pooled
        values, axes = torch.linalg.eigh(covariance.double())
        spread = (axes * values.clamp_min(0).sqrt()).to(vectors)
        chosen = wanted == number
        noise = torch.randn(int(chosen.sum()), size, generator=generator).to(vectors)
        found[chosen] = vectors[classes == number].mean(dim=0) + noise @ spread.T
    return found


def _mixture(time: Tensor) -> tuple[Tensor, Tensor]:
    """How much of a vector is signal and how much noise at a time, `(M, 1)` each."""
    angle = time[:, None] * (math.pi / 2)
    return torch.cos(angle), torch.sin(angle)


def _sinusoids(time: Tensor) -> Tensor:
    """A time as the network reads it: `(M,)` to `(M, channels)`."""
    steps = torch.linspace(0, math.log(_FASTEST), _TIME_CHANNELS // 2, device=time.device)
    angles = time[:, None] * torch.exp(steps) * (math.pi / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
