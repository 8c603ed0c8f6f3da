"""Settings of ContrastDM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hsiclust.errors import ModelError
from hsiclust.models.scalespace import check_deviations

# What the diffusion model is trained with where it takes part.
_DIFFUSION_STEPS, _SYNTHETIC = 1000, 50
_MOST, _WIDEST, _MOST_STEPS = 16, 4096, 10**7


@dataclass(frozen=True)
class ContrastDmConfig:
    """Settings of ContrastDM.

    Attributes:
        deviations: Of the Gaussians of the scale space, in pixels; 0 is the pixel itself.
        widths: Channels of an encoder's layers; the last is the size of a code.
        coders: Encoders that are pre-trained by contrast.
        nets: Networks that learn what the jury says, and are averaged.
        projected: Channels of a projector's hidden layer, which pre-training alone uses.
        pretraining_steps: Of each coder.
        pretraining_batch: Pairs of pixels in a batch.
        reach: Pixels that the two of a pair lie apart at most, down and across.
        off_diagonal: Of the Barlow Twins term.
        rate: Largest learning rate of encoders.
        diffusion_steps: Of the diffusion model of codes; 0 for none.
        synthetic: Codes that it draws of each class, for the classifier on codes.
        refined: Whether codes that it refines are a juror of their own.
        synthesis: What draws synthetic codes: "diffusion", or "gaussians" to compare with.
        steps: Of each network.
        batch: Pixels in a batch.
        labelled_batch: Labelled pixels beside them, of all classes alike.
        labelled_weight: What these count.
        head_rate: Largest learning rate of heads.
        decay: Weight decay of the networks.
        sharpness: Power that the jury's chances are raised to.
        noise: Largest deviation of the noise in a changed pixel.
        dropout: Largest part of its features that are hidden.
        guest_width: Channels of an encoder of SSCC that is one more coder; 0 for none.
        guest_seen: Leading components that it sees; 0 for all.
        pretrained: Whether the coders come from an earlier training.
        labelled: Whether there are classes to learn; without, coders are pre-trained and no more.
    """

    deviations: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    widths: tuple[int, ...] = (256, 256, 64)
    coders: int = 3
    nets: int = 1
    projected: int = 128
    pretraining_steps: int = 1000
    pretraining_batch: int = 1024
    reach: int = 4
    off_diagonal: float = 0.01
    rate: float = 2e-3
    diffusion_steps: int = 0
    synthetic: int = 0
    refined: bool = False
    synthesis: Literal["diffusion", "gaussians"] = "diffusion"
    steps: int = 600
    batch: int = 1024
    labelled_batch: int = 128
    labelled_weight: float = 0.3
    head_rate: float = 5e-3
    decay: float = 0.01
    sharpness: float = 2.0
    noise: float = 0.2
    dropout: float = 0.2
    guest_width: int = 0
    guest_seen: int = 0
    pretrained: bool = False
    labelled: bool = True

    def __post_init__(self) -> None:
        check_deviations(self.deviations)
        if not 1 <= self.nets <= _MOST or not 0 <= self.coders <= _MOST:
            raise ModelError(f"{self.nets} networks, {self.coders} coders: at most {_MOST} of each")
        if not 2 <= len(self.widths) <= 8 or not all(1 <= w <= _WIDEST for w in self.widths):
            raise ModelError(f"widths {self.widths} are not 2 to 8 numbers within 1..{_WIDEST}")
        if not 1 <= self.projected <= _WIDEST:
            raise ModelError(f"{self.projected} projected channels are not within 1..{_WIDEST}")
        for of_guest in (self.guest_width, self.guest_seen):
            if not 0 <= of_guest <= _WIDEST:
                raise ModelError(f"a guest {of_guest} channels wide is not within 0..{_WIDEST}")
        if self.synthesis not in ("diffusion", "gaussians"):
            raise ModelError(f"synthesis {self.synthesis!r} is unknown: diffusion or gaussians")
        steps = (self.pretraining_steps, self.diffusion_steps, self.steps)
        if not all(0 <= count <= _MOST_STEPS for count in steps):
            raise ModelError(f"steps {steps} are not within 0..{_MOST_STEPS}")
        if not any(deviation > 0 for deviation in self.deviations) and self.coders:
            raise ModelError(f"deviations {self.deviations}: coders need a scale above 0")

    @property
    def is_pretrained(self) -> bool:
        """Whether the coders have learned something when a training is over."""
        return self.coders > 0 and (self.pretraining_steps > 0 or self.pretrained)

    @property
    def has_codes(self) -> bool:
        """Whether the jury hears codes."""
        return self.is_pretrained or self.guest_width > 0

    def with_diffusion(self) -> ContrastDmConfig:
        """With the diffusion model, as in the paper: it refines codes and makes synthetic ones."""
        return replace(self, diffusion_steps=_DIFFUSION_STEPS, refined=True, synthetic=_SYNTHETIC)

    def without_diffusion(self) -> ContrastDmConfig:
        """Without it."""
        return replace(self, diffusion_steps=0, refined=False, synthetic=0)
