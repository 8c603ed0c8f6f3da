"""SSCC: spectral-spatial contrastive clustering (Cai et al. 2021, arXiv 2111.07945).

A twin network whose head has one output a cluster. Two views of each crop pass through it; the
softmax outputs of paired pixels are contrasted twice: along rows, so that a pixel's two views
agree and differ from other pixels (NT-Xent), and along columns, so that each cluster means the
same in both views and no two clusters the same (Barlow Twins).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from hsiclust.errors import ModelError
from hsiclust.models.base import Batch, CropShape, Learned, Method, Progress
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
        width: Channels of the dense encoder.
        hidden: Channels of the head's hidden layer.
        crops: Crops in a batch.
        outputs: Side of the square of pixels that a crop yields.
        instance_weight: Weight of the NT-Xent term.
        instance_pixels: Pixels of a batch that enter the NT-Xent term, which is quadratic.
        temperature: Of the NT-Xent term.
        off_diagonal: Of the Barlow Twins term.
        rate: Largest learning rate.
        decay: Weight decay.
        steps: Steps of a training.
        smallest_area: See `ViewPool`; so are the four that follow.
        displacement: Pixels.
        probability: Of a spectral change.
        masked_pixels: Part of the pixels.
        masked_bands: Part of the components.
    """

    encoder: Literal["dense", "original"] = "dense"
    width: int = 48
    hidden: int = 512
    crops: int = 8
    outputs: int = 32
    instance_weight: float = 20.0
    instance_pixels: int = 1024
    temperature: float = 0.5
    off_diagonal: float = 0.005
    rate: float = 1e-3
    decay: float = 1e-3
    steps: int = 400
    smallest_area: float = 1.0
    displacement: int = 4
    probability: float = 0.5
    masked_pixels: float = 0.5
    masked_bands: float = 0.5

    def __post_init__(self) -> None:
        if self.encoder not in ("dense", "original"):
            raise ModelError(f"encoder {self.encoder!r} is unknown: dense or original")
        for field in ("width", "hidden", "crops", "outputs", "instance_pixels", "steps"):
            if not 1 <= getattr(self, field) <= 1_000_000:
                raise ModelError(f"{field} is {getattr(self, field)}, not a count")
        if self.width > 4096 or self.hidden > 4096:
            raise ModelError(f"a network {self.width} or {self.hidden} channels wide is refused")

    @classmethod
    def original(cls) -> SsccConfig:
        """The paper's network and batches: one patch a pixel.

        Weight of NT-Xent, views, batch and rate are those of the authors' published code.
        """
        return cls(
            encoder="original",
            crops=512,
            outputs=1,
            instance_weight=5e-5,
            rate=2e-4,
            decay=5e-3,
            smallest_area=0.08,
            displacement=0,
        )

    @property
    def pool(self) -> ViewPool:
        """The augmentation pool."""
        return ViewPool(
            self.smallest_area,
            self.displacement,
            self.probability,
            self.masked_pixels,
            self.masked_bands,
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
        self.head = nn.Sequential(
            nn.Conv2d(self.encoder.features, self.settings.hidden, 1),
            nn.ReLU(),
            nn.Conv2d(self.settings.hidden, classes, 1),
        )
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
        return torch.optim.AdamW(
            self.parameters(), self.settings.rate, weight_decay=self.settings.decay
        )

    @property
    def receptive_field(self) -> int:
        """The encoder's; the head sees one pixel."""
        return self.encoder.receptive_field

    @property
    def crop_shape(self) -> CropShape:
        """Crops with room for the displacement of a view."""
        context = self.halo + self.settings.displacement
        return CropShape(self.settings.crops, self.settings.outputs, context)

    @property
    def default_steps(self) -> int:
        """As the settings say."""
        return self.settings.steps

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

    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:
        """One optimiser step on two views of a batch of crops."""
        self.train()
        for group in self.optimiser.param_groups:
            group["lr"] = _rate(self.settings.rate, progress)
        first, second = self._paired_outputs(batch, generator)
        loss = self.objective(first, second, generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        counts = torch.bincount(first.detach().argmax(dim=1), minlength=self.classes)
        return Learned(float(loss.detach()), counts)

    def objective(self, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        """Dual contrast of paired softmax outputs, `(M, K)` each, to a scalar."""
        chosen = torch.randperm(len(first), generator=generator, device=generator.device)
        chosen = chosen[: self.settings.instance_pixels].to(first.device)
        instance: Tensor = self.instances(first[chosen], second[chosen])
        cluster: Tensor = self.clusters(first, second)
        return self.settings.instance_weight * instance + cluster

    def _paired_outputs(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        side = self.settings.outputs + 2 * self.halo
        pool = self.settings.pool
        views = (
            draw_view(batch.values, side, self.receptive_field, pool, generator),
            draw_view(batch.values, side, self.receptive_field, pool, generator),
        )
        # One pass for both views: they share the batch's statistics.
        logits = self(torch.cat([view.values for view in views]))
        outputs = logits.softmax(dim=1).chunk(2)
        return pair_outputs(views, (outputs[0], outputs[1]), batch.fit)

    def reorder(self, order: Tensor) -> None:
        """Renumber the clusters: rows of the last layer."""
        with torch.no_grad():
            for parameter in self.head[-1].parameters():
                parameter.copy_(parameter[order])

    def settled(self) -> nn.Module:
        """A copy with the norms folded into the convolutions, the head run in strips."""
        network = nn.Sequential(self.encoder, RowStrips(self.head, self.settings.hidden))
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


# One-cycle schedule (Smith 2018): up over the first part, then a cosine down to nearly nothing.
_WARM_UP = 0.3
_START = 1 / 25
# A fitted model goes on at a constant, gentle rate: a full cycle would forget its clusters.
_ONLINE = 0.1


def _rate(largest: float, progress: Progress) -> float:
    if progress.warm:
        return _ONLINE * largest
    done = progress.step / max(progress.steps - 1, 1)
    if done < _WARM_UP:
        part = 0.5 - 0.5 * math.cos(math.pi * done / _WARM_UP)
        return largest * (_START + (1 - _START) * part)
    return largest * (0.5 + 0.5 * math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
