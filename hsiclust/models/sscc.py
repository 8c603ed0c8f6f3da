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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.errors import ModelError
from hsiclust.models.base import Batch, CropShape, Learned, Lesson, Method, Progress, trimmed
from hsiclust.models.consensus import HALO, Teacher
from hsiclust.models.encoder import (
    DenseEncoder,
    Encoder,
    OriginalEncoder,
    RowStrips,
    fold_norms,
)
from hsiclust.models.losses import BarlowTwins, NTXent
from hsiclust.models.moments import load_moments, moments
from hsiclust.models.schedule import learning_rate, online_steps
from hsiclust.models.settings import SsccConfig
from hsiclust.models.views import draw_view, pair_outputs

# The components that the encoder sees are a multiple of this, where there are as many: BLAS, which
# makes them, multiplies by as many at once.
_SEEN_AT_ONCE = 16


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
        asked = settings or SsccConfig()
        seen = _seen(components, classes, asked)
        self.settings = replace(asked, seen=seen)
        self.encoder = _encoder(seen, self.settings)
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
            # A model that does not say what it sees is older than the choice and sees all.
            return cls(components, classes, SsccConfig(**{"seen": components, **config}))
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
    def seen(self) -> int:
        """Those of the encoder; the teacher sees all."""
        return self.encoder.components

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
        return online_steps(self.settings)

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
            self.teacher.study(tiles, generator)

    def teach(self, values: Tensor) -> Lesson | None:
        """What the teacher says."""
        if self.teacher is None:
            return None
        return self.teacher.teach(trimmed(values, self.crop_shape.context - HALO))

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
            group["lr"] = learning_rate(self.settings, progress)
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
        """Moments of Adam or AdamW, by parameter number."""
        return moments(self.optimiser)

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the moments back."""
        load_moments(self.optimiser, state)


def _seen(components: int, classes: int, settings: SsccConfig) -> int:
    """Components that the encoder sees, where its settings do not say.

    Behind a teacher, which sees all, the leading ones do as well: about as many as classes, as its
    partitions take. Labelling then computes no others: half of the product that makes them.
    """
    if settings.seen is not None:
        return min(settings.seen, components)
    if not settings.partitions:
        return components
    return min(components, -(-classes // _SEEN_AT_ONCE) * _SEEN_AT_ONCE)


def _encoder(components: int, settings: SsccConfig) -> Encoder:
    if settings.encoder == "original":
        return OriginalEncoder(components)
    return DenseEncoder(components, settings.width)


def _head(features: int, hidden: int, classes: int) -> nn.Sequential:
    """From features to one output a cluster."""
    if hidden == 0:
        return nn.Sequential(nn.Conv2d(features, classes, 1))
    return nn.Sequential(nn.Conv2d(features, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, classes, 1))
