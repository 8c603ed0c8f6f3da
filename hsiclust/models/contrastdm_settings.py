"""Settings of ContrastDM."""

from __future__ import annotations

from dataclasses import dataclass

from hsiclust.errors import ModelError

_MOST_NETS, _WIDEST, _MOST_STEPS = 16, 4096, 10**7


@dataclass(frozen=True)
class ContrastDmConfig:
    """Settings of ContrastDM.

    Attributes:
        deviations: Of the Gaussians of the scale space, in pixels.
        widths: Channels of the encoder's layers; the last is the size of the code.
        projected: Channels of the projector's hidden layer.
        nets: Networks that are averaged.
        pretraining_steps: Of contrastive pre-training, each network; 0 for none.
        batch: Pairs of pixels in a batch of it.
        reach: Pixels that the two of a pair lie apart at most, down and across.
        off_diagonal: Of the Barlow Twins term.
        pretraining_rate: Largest learning rate.
        finetuning_steps: On labels, each network.
        labelled_batch: Labelled pixels in a batch, of all classes alike.
        unlabelled_batch: Other pixels in a batch.
        certainty: Probability from which the label that a network gives to a pixel is learned.
        alone: Part of the fine-tuning that sees labelled pixels only.
        encoder_rate: Learning rate of the pre-trained encoder.
        head_rate: Learning rate of the head.
        noise: Largest deviation of the noise in a changed view.
        dropout: Largest part of the features that a changed view hides.
    """

    deviations: tuple[float, ...] = (1.0, 2.0, 4.0)
    widths: tuple[int, ...] = (256, 256, 64)
    projected: int = 128
    nets: int = 3
    pretraining_steps: int = 1000
    batch: int = 1024
    reach: int = 4
    off_diagonal: float = 0.01
    pretraining_rate: float = 2e-3
    finetuning_steps: int = 300
    labelled_batch: int = 256
    unlabelled_batch: int = 512
    certainty: float = 0.95
    alone: float = 0.3
    encoder_rate: float = 3e-4
    head_rate: float = 5e-3
    noise: float = 0.2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= self.nets <= _MOST_NETS:
            raise ModelError(f"{self.nets} networks: 1 to {_MOST_NETS} can be averaged")
        if not 2 <= len(self.widths) <= 8 or not all(1 <= w <= _WIDEST for w in self.widths):
            raise ModelError(f"widths {self.widths} are not 2 to 8 numbers within 1..{_WIDEST}")
        if not 1 <= self.projected <= _WIDEST:
            raise ModelError(f"{self.projected} projected channels are not within 1..{_WIDEST}")
        steps = (self.pretraining_steps, self.finetuning_steps)
        if not all(0 <= count <= _MOST_STEPS for count in steps):
            raise ModelError(f"steps {steps} are not within 0..{_MOST_STEPS}")
