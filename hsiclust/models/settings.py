"""Settings of SSCC, and the recipes that it comes in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hsiclust.errors import ModelError
from hsiclust.models.views import ViewPool


@dataclass(frozen=True)
class SsccConfig:
    """Settings of SSCC.

    Attributes:
        encoder: "dense", or "original": the paper's patch-wise network.
        partitions: Base partitions of the consensus teacher; 0 trains without a teacher.
        width: Channels of the dense encoder.
        seen: Leading components that the encoder sees; None for what suits the classes behind a
            teacher, and for all without one.
        hidden: Channels of the head's hidden layer; 0 for none.
        crops: Crops in a batch.
        outputs: Side of the square of pixels that a crop yields.
        instance_weight: Weight of the NT-Xent term.
        instance_pixels: Pixels of a batch that enter the NT-Xent term, which is quadratic.
        cluster_weight: Weight of the Barlow Twins term.
        temperature: Of the NT-Xent term.
        off_diagonal: Of the Barlow Twins term.
        optimiser: "adamw" on a one-cycle schedule, or the paper's "adam" in steps of 20 epochs.
        rate: Largest learning rate.
        decay: Weight decay.
        steps: Steps of a training.
        epochs: Passes over the pixels instead; 0 for none.
        smallest_area: See `ViewPool`; so are those that follow.
        displacement: Pixels.
        probability: Of a spectral change.
        masked_pixels: Part of the pixels.
        masked_bands: Part of the components.
        noise: In deviations.
        gain: In parts.
        drift: In deviations.
        turns: Every way, or left for right only.
    """

    encoder: Literal["dense", "original"] = "dense"
    partitions: int = 32
    width: int = 48
    seen: int | None = None
    hidden: int = 0
    crops: int = 4
    outputs: int = 32
    instance_weight: float = 0.05
    instance_pixels: int = 512
    cluster_weight: float = 0.0025
    temperature: float = 0.5
    off_diagonal: float = 0.005
    optimiser: Literal["adamw", "adam"] = "adamw"
    rate: float = 2e-3
    decay: float = 1e-3
    steps: int = 250
    epochs: float = 0.0
    smallest_area: float = 1.0
    displacement: int = 0
    probability: float = 0.5
    masked_pixels: float = 0.1
    masked_bands: float = 0.1
    noise: float = 0.2
    gain: float = 0.1
    drift: float = 0.4
    turns: bool = True

    def __post_init__(self) -> None:
        if self.encoder not in ("dense", "original"):
            raise ModelError(f"encoder {self.encoder!r} is unknown: dense or original")
        if self.optimiser not in ("adamw", "adam"):
            raise ModelError(f"optimiser {self.optimiser!r} is unknown: adamw or adam")
        for field in ("width", "crops", "outputs", "instance_pixels", "steps"):
            if not 1 <= getattr(self, field) <= 1_000_000:
                raise ModelError(f"{field} is {getattr(self, field)}, not a count")
        if self.width > 4096 or not 0 <= self.hidden <= 4096:
            raise ModelError(f"a network {self.width} or {self.hidden} channels wide is refused")
        if self.seen is not None and not 1 <= self.seen <= 4096:
            raise ModelError(f"{self.seen} components that are seen are not within 1..4096")
        if not 0 <= self.partitions <= 256:
            raise ModelError(f"{self.partitions} base partitions are not within 0..256")
        if self.partitions and (self.displacement or self.smallest_area != 1):
            raise ModelError("a teacher's views show the pixels that it labels: not displaced")

    @classmethod
    def contrast_only(cls) -> SsccConfig:
        """No teacher: the dense network learns from the twin contrast alone."""
        return replace(
            cls._untaught(),
            crops=8,
            instance_weight=20.0,
            instance_pixels=1024,
            rate=1e-3,
            steps=400,
            displacement=4,
        )

    @classmethod
    def paper(cls) -> SsccConfig:
        """The paper's objective, encoder and schedule, one patch a pixel.

        Values of the authors' published code: batches of 512 patches, 200 epochs of Adam.
        """
        return replace(
            cls._untaught(),
            encoder="original",
            crops=512,
            outputs=1,
            instance_weight=5e-5,
            optimiser="adam",
            rate=2e-4,
            decay=5e-3,
            epochs=200.0,
            smallest_area=0.08,
            turns=False,
        )

    @classmethod
    def _untaught(cls) -> SsccConfig:
        """What the trainings without a teacher share: the paper's head, masks and full contrast."""
        return cls(
            partitions=0,
            hidden=512,
            cluster_weight=1.0,
            masked_pixels=0.5,
            masked_bands=0.5,
            noise=0.0,
            gain=0.0,
            drift=0.0,
        )

    @property
    def contrasts(self) -> bool:
        """Whether the twin contrast takes part."""
        return self.instance_weight > 0 or self.cluster_weight > 0

    @property
    def pool(self) -> ViewPool:
        """The augmentation pool."""
        return ViewPool(
            self.smallest_area,
            self.displacement,
            self.probability,
            self.masked_pixels,
            self.masked_bands,
            self.noise,
            self.gain,
            self.drift,
            self.turns,
        )
