"""SSCC: spectral-spatial contrastive clustering (Cai et al. 2021, arXiv 2111.07945).

A twin network whose head has one output a cluster. Two views of each crop pass through it; the
softmax outputs of paired pixels are contrasted twice: along rows, so that a pixel's two views
agree and differ from other pixels (NT-Xent), and along columns, so that each cluster means the
same in both views and no two clusters the same (Barlow Twins).

By default a consensus teacher says what each training pixel is, and both views learn it by
cross-entropy beside the contrast: the network distils what many partitions of the scene agree on,
and labels scenes that the teacher never saw. With targets y, trust w, the two views' softmax
outputs p and q, and M pixels:

    L = - 1/2M sum_i w_i (log p_i[y_i] + log q_i[y_i])
        + instance_weight NTXent(p, q) + cluster_weight BarlowTwins(p, q)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.errors import ModelError
from hsiclust.models.base import Batch, CropShape, Learned, Lesson, Method, Progress
from hsiclust.models.consensus import HALO, Teacher
from hsiclust.models.encoder import (
    DenseEncoder,
    Encoder,
    OriginalEncoder,
    RowStrips,
    fold_norms,
)
from hsiclust.models.losses import BarlowTwins, NTXent
from hsiclust.models.views import ViewPool, draw_view, pair_outputs


@dataclass(frozen=True)
class SsccConfig:
    """Settings of SSCC.

    Attributes:
        encoder: "dense", or "original": the paper's patch-wise network.
        partitions: Base partitions of the consensus teacher; 0 trains without a teacher.
        width: Channels of the dense encoder.
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
        if not 0 <= self.partitions <= 256:
            raise ModelError(f"{self.partitions} base partitions are not within 0..256")
        if self.partitions and (self.displacement or self.smallest_area != 1):
            raise ModelError("a teacher's views show the pixels that it labels: not displaced")

    @classmethod
    def contrast_only(cls) -> SsccConfig:
        """No teacher: the dense network learns from the twin contrast alone."""
        return cls(
            partitions=0,
            hidden=512,
            crops=8,
            instance_weight=20.0,
            instance_pixels=1024,
            cluster_weight=1.0,
            rate=1e-3,
            steps=400,
            displacement=4,
            masked_pixels=0.5,
            masked_bands=0.5,
            noise=0.0,
            gain=0.0,
            drift=0.0,
        )

    @classmethod
    def paper(cls) -> SsccConfig:
        """The paper's objective, encoder and schedule, one patch a pixel.

        Values of the authors' published code: batches of 512 patches, 200 epochs of Adam.
        """
        return cls(
            encoder="original",
            partitions=0,
            hidden=512,
            crops=512,
            outputs=1,
            instance_weight=5e-5,
            cluster_weight=1.0,
            optimiser="adam",
            rate=2e-4,
            decay=5e-3,
            epochs=200.0,
            smallest_area=0.08,
            masked_pixels=0.5,
            masked_bands=0.5,
            noise=0.0,
            gain=0.0,
            drift=0.0,
            turns=False,
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


class Sscc(Method):
    """The twin network and its objective.

    Args:
        components: Number of components C.
        classes: Number of clusters K.
        settings: See `SsccConfig`.
    """

    name = "sscc"

    def __init__(self, components: int, classes: int, settings: SsccConfig | None = None) -> None:
        super().__init__(components, classes)
        self.settings = settings or SsccConfig()
        self.encoder = _encoder(components, self.settings)
        self.head = _head(self.encoder.features, self.settings.hidden, classes)
        self.teacher: Teacher | None = None
        if self.settings.partitions:
            self.teacher = Teacher(components, classes, self.settings.partitions)
        self.instances = NTXent(self.settings.temperature)
        self.clusters = BarlowTwins(self.settings.off_diagonal)

    @classmethod
    def from_config(cls, components: int, classes: int, config: Mapping[str, Any]) -> Self:
        """Build from the fields of `SsccConfig`."""
        try:
            return cls(components, classes, SsccConfig(**config))
        except TypeError as error:
            raise ModelError(f"settings of sscc are not understood: {error}") from error

    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return asdict(self.settings)

    @cached_property
    def optimiser(self) -> torch.optim.Optimizer:
        """Made when training asks for it: a model that only labels has none."""
        kind = torch.optim.Adam if self.settings.optimiser == "adam" else torch.optim.AdamW
        return kind(self.parameters(), self.settings.rate, weight_decay=self.settings.decay)

    @property
    def receptive_field(self) -> int:
        """The encoder's; the head sees one pixel."""
        return self.encoder.receptive_field

    @property
    def crop_shape(self) -> CropShape:
        """Crops with room for the displacement of a view."""
        context = max(self.halo + self.settings.displacement, HALO if self.teacher else 0)
        return CropShape(self.settings.crops, self.settings.outputs, context)

    @property
    def default_steps(self) -> int:
        """As the settings say."""
        return self.settings.steps

    @property
    def online_steps(self) -> int:
        """Fewer: every further step on new ground costs some of what was known of the old."""
        return max(1, round(_ONLINE_STEPS * self.settings.steps))

    @property
    def default_epochs(self) -> float | None:
        """As the settings say."""
        return self.settings.epochs or None

    @property
    def floats_per_pixel(self) -> int:
        """Input, output and skip of a block, then the features and the scores."""
        widest = 4 * self.settings.width if self.settings.encoder == "dense" else 0
        return max(widest, 2 * self.encoder.features) + 3 * self.classes

    @property
    def fixed_bytes(self) -> int:
        """Patches of the original encoder: input, output and skip of its widest block."""
        return 384 * 2**20 if self.settings.encoder == "original" else 0

    def forward(self, values: Tensor) -> Tensor:
        """Logits: `(N, C, H, W)` to `(N, K, H - 2 halo, W - 2 halo)`."""
        logits: Tensor = self.head(self.encoder(values))
        return logits

    def confidence(self, scores: Tensor) -> Tensor:
        """Largest softmax output."""
        return scores.softmax(dim=1).amax(dim=1)

    def study(self, tiles: Sequence[Batch], warm: bool, generator: torch.Generator) -> None:
        """Fit the teacher; a fitted one teaches on."""
        if self.teacher is not None and not (warm and self.teacher.found):
            self.teacher.study([_cut(tile, HALO) for tile in tiles], generator)

    def teach(self, values: Tensor) -> Lesson | None:
        """What the teacher says."""
        if self.teacher is None:
            return None
        return self.teacher.teach(_trim(values, self.crop_shape.context - HALO))

    def check(self) -> None:
        """The teacher's."""
        if self.teacher is not None:
            self.teacher.check()

    def choices(self) -> dict[str, Any]:
        """The teacher's."""
        return {} if self.teacher is None else self.teacher.choices()

    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:
        """One optimiser step on two views of a batch of crops."""
        self.train()
        for group in self.optimiser.param_groups:
            group["lr"] = _rate(self.settings, progress)
        first, second = self._paired_logits(batch, generator)
        loss = self.objective(first, second, batch, generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        counts = torch.bincount(first.detach().argmax(dim=1), minlength=self.classes)
        return Learned(float(loss.detach()), counts)

    def objective(
        self, first: Tensor, second: Tensor, batch: Batch, generator: torch.Generator
    ) -> Tensor:
        """The loss of the module's docstring, of paired logits `(M, K)` each, to a scalar."""
        loss = first.new_zeros(())
        if batch.lesson is not None:
            classes, trust = batch.lesson.classes[batch.fit], batch.lesson.trust[batch.fit]
            for logits in (first, second):
                each = functional.cross_entropy(logits, classes, reduction="none")
                loss = loss + (trust * each).mean() / 2
        if self.settings.contrasts:
            loss = loss + self._contrast(first.softmax(dim=1), second.softmax(dim=1), generator)
        return loss

    def _contrast(self, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        """Dual contrast of paired softmax outputs, `(M, K)` each, to a scalar."""
        chosen = torch.randperm(len(first), generator=generator, device=generator.device)
        chosen = chosen[: self.settings.instance_pixels].to(first.device)
        instance: Tensor = self.instances(first[chosen], second[chosen])
        cluster: Tensor = self.clusters(first, second)
        return self.settings.instance_weight * instance + self.settings.cluster_weight * cluster

    def _paired_logits(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        side = self.settings.outputs + 2 * self.halo
        pool = self.settings.pool
        views = (
            draw_view(batch.values, side, self.receptive_field, pool, generator),
            draw_view(batch.values, side, self.receptive_field, pool, generator),
        )
        # One pass for both views: they share the batch's statistics.
        logits = self(torch.cat([view.values for view in views])).chunk(2)
        return pair_outputs(views, (logits[0], logits[1]), batch.fit)

    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: rows of the last layer, and what the teacher calls them."""
        with torch.no_grad():
            for parameter in self.head[-1].parameters():
                parameter.copy_(parameter[order])
            if self.teacher is not None:
                self.teacher.reorder(order)

    def settled(self) -> nn.Module:
        """A copy with the norms folded into the convolutions, the head run in strips."""
        head = RowStrips(self.head, max(self.settings.hidden, self.classes))
        network = nn.Sequential(self.encoder, head)
        return fold_norms(copy.deepcopy(network).eval())

    def optimiser_state(self) -> dict[str, Tensor]:
        """Moments of AdamW, by parameter number."""
        return {
            f"{index}.{name}": value
            for index, state in self.optimiser.state_dict()["state"].items()
            for name, value in state.items()
        }

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the moments back."""
        full = self.optimiser.state_dict()
        full["state"] = {}
        for key, value in state.items():
            index, name = key.split(".")
            full["state"].setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(full)


def _encoder(components: int, settings: SsccConfig) -> Encoder:
    if settings.encoder == "original":
        return OriginalEncoder(components)
    return DenseEncoder(components, settings.width)


def _head(features: int, hidden: int, classes: int) -> nn.Sequential:
    """From features to one output a cluster."""
    if hidden == 0:
        return nn.Sequential(nn.Conv2d(features, classes, 1))
    return nn.Sequential(nn.Conv2d(features, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, classes, 1))


def _cut(tile: Batch, context: int) -> Batch:
    """A tile with less context."""
    edge = (tile.values.shape[2] - tile.fit.shape[1]) // 2 - context
    return Batch(_trim(tile.values, edge), tile.fit)


def _trim(values: Tensor, edge: int) -> Tensor:
    """The last two axes without `edge` pixels on each side."""
    rows, cols = (length - edge for length in values.shape[-2:])
    return values[..., edge:rows, edge:cols]


# One-cycle schedule (Smith 2018): up over the first part, then a cosine down to nearly nothing.
_WARM_UP = 0.3
_START = 1 / 25
# A fitted model goes on at a constant, gentle rate: a full cycle would forget its clusters.
_ONLINE = 0.1
_ONLINE_STEPS = 0.4
# The paper's schedule: a tenth after every so many epochs.
_DROP_EPOCHS = 20


def _rate(settings: SsccConfig, progress: Progress) -> float:
    largest = settings.rate
    if progress.warm:
        return _ONLINE * largest
    if settings.optimiser == "adam":
        return float(largest * 0.1 ** (progress.epoch // _DROP_EPOCHS))
    done = progress.step / max(progress.steps - 1, 1)
    if done < _WARM_UP:
        part = 0.5 - 0.5 * math.cos(math.pi * done / _WARM_UP)
        return largest * (_START + (1 - _START) * part)
    return largest * (0.5 + 0.5 * math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
