"""ContrastDM: classes from a few labelled pixels (Li et al. 2025, doi 10.1109/LGRS.2025.3601152).

Each network passes through two phases. Contrastive pre-training, on pixels without labels: the code
of a pixel and that of a neighbour, both changed, are brought together and their entries kept from
saying the same (Barlow Twins). Fine-tuning, on the labels: cross-entropy on changed labelled pixels
and, when the network has learned something, on changed pixels that it is certain of (FixMatch, Sohn
et al. 2020). The networks' log-probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.errors import InputError, ModelError
from hsiclust.models.augment import changed
from hsiclust.models.base import Batch, CropShape, Learned, Progress
from hsiclust.models.classifier import Classifier, Samples, labelled_samples, standardise
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.featurenet import Committee, DenseCommittee, FeatureNet, as_image, as_rows
from hsiclust.models.losses import BarlowTwins
from hsiclust.models.phases import Phase, Place, place_of
from hsiclust.models.pixeltable import PixelTable
from hsiclust.models.schedule import one_cycle

PRETRAINING, FINETUNING = "contrastive pre-training", "fine-tuning"


class ContrastDm(Classifier):
    """The networks, and how they learn.

    Args:
        components: Number of components C.
        classes: Number of classes K.
        settings: See `ContrastDmConfig`.
    """

    name = "contrastdm"

    def __init__(
        self, components: int, classes: int, settings: ContrastDmConfig | None = None
    ) -> None:
        self.settings = settings or ContrastDmConfig()
        super().__init__(components, classes, self.settings.deviations)
        sizes = (self.space.features, self.settings.widths, self.settings.projected, classes)
        self.committee = Committee([FeatureNet(*sizes) for _ in range(self.settings.nets)])
        self.contrast = BarlowTwins(self.settings.off_diagonal)
        self._table: PixelTable | None = None
        self._samples: Samples | None = None
        self._phase: int | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    @classmethod
    def from_config(cls, components: int, classes: int, config: Mapping[str, Any]) -> Self:
        """Build from the fields of `ContrastDmConfig`."""
        try:
            lists = {name: tuple(config[name]) for name in ("deviations", "widths")}
            return cls(components, classes, ContrastDmConfig(**{**config, **lists}))
        except TypeError as error:
            raise ModelError(f"settings of contrastdm are not understood: {error}") from error

    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.settings).items()
        }

    @property
    def nets(self) -> list[FeatureNet]:
        """The networks."""
        return [net for net in self.committee.nets if isinstance(net, FeatureNet)]

    @property
    def phases(self) -> list[Phase]:
        """What each network passes through."""
        found = []
        for net in range(self.settings.nets):
            found.append(Phase(PRETRAINING, net, self.settings.pretraining_steps))
            found.append(Phase(FINETUNING, net, self.settings.finetuning_steps))
        return found

    @property
    def crop_shape(self) -> CropShape:
        """No crops: pixels of a table."""
        return CropShape(count=0, outputs=1, context=self.halo)

    @property
    def default_steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def floats_per_pixel(self) -> int:
        """The features and a copy, then the scores of the networks; hidden layers are in strips."""
        return max(2 * self.space.features, self.space.features + 4 * self.classes)

    def score(self, features: Tensor) -> Tensor:
        """Mean log-probabilities of the networks."""
        scores: Tensor = self.committee(features, self.present)
        return scores

    def study(self, tiles: Sequence[Batch], warm: bool, generator: torch.Generator) -> None:  # noqa: ARG002
        """Standardise the features, and see which classes have labels.

        Raises:
            InputError: Fewer than two classes have labels.
        """
        if not warm:
            standardise(self.space, tiles)
        counts = torch.bincount(labelled_samples(self.space, tiles).classes, minlength=self.classes)
        if int((counts > 0).sum()) < 2:
            raise InputError(
                f"{int(counts.sum())} labelled pixels of {int((counts > 0).sum())} classes: "
                "contrastdm learns from two classes at least; give labels of more, or more pixels"
            )
        self.present.copy_(counts > 0)

    def gather(self, tiles: Sequence[Batch]) -> None:
        """Keep the features of the pixels, and the labelled ones."""
        self._table = PixelTable.of(self.space, tiles)
        self._samples = labelled_samples(self.space, tiles)

    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:  # noqa: ARG002
        """One step of the phase that the step lies in."""
        place = place_of(self.phases, progress.step)
        self._enter(place)
        self.train()
        with torch.random.fork_rng(devices=[]):
            kind = place.phase.kind
            net = self.nets[place.phase.net]
            learn = self._pretrain if kind == PRETRAINING else self._finetune
            loss, counts = learn(net, place, generator)
        return Learned(loss, counts, f"{kind}, network {place.phase.net + 1}")

    def _enter(self, place: Place) -> None:
        """An optimiser for a phase that has just begun."""
        if self._phase == place.number:
            return
        net, settings = self.nets[place.phase.net], self.settings
        groups: list[dict[str, Any]]
        if place.phase.kind == PRETRAINING:
            parameters = [*net.encoder.parameters(), *net.projector.parameters()]
            groups = [{"params": parameters, "lr": settings.pretraining_rate}]
        else:
            fresh = settings.pretraining_steps == 0
            rate = settings.pretraining_rate if fresh else settings.encoder_rate
            groups = [
                {"params": list(net.encoder.parameters()), "lr": rate},
                {"params": list(net.head.parameters()), "lr": settings.head_rate},
            ]
        self._optimiser = torch.optim.AdamW(groups)
        self._phase = place.number

    def _step(self, loss: Tensor) -> float:
        optimiser = self._optimiser
        if optimiser is None:
            raise RuntimeError("a step outside of a phase")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    def _pretrain(
        self, net: FeatureNet, place: Place, generator: torch.Generator
    ) -> tuple[float, Tensor]:
        """Contrast neighbours."""
        table, settings = self._gathered()[0], self.settings
        if self._optimiser is not None:
            for group in self._optimiser.param_groups:
                group["lr"] = settings.pretraining_rate * one_cycle(place.step, place.phase.steps)
        chosen = table.draw(settings.batch, generator)
        partner = table.displaced(chosen, settings.reach, generator)
        views = table.features[torch.cat([chosen, partner])].float()
        first, second = net.project(self._changed(views, generator)).chunk(2)
        loss = self._step(self.contrast(first, second))
        counts = torch.zeros(self.classes, dtype=torch.int64)
        counts[0] = settings.batch
        return loss, counts

    def _finetune(
        self, net: FeatureNet, place: Place, generator: torch.Generator
    ) -> tuple[float, Tensor]:
        """Learn from labels, and from what the network is certain of."""
        table, samples = self._gathered()
        settings = self.settings
        labelled = balanced(samples.classes, settings.labelled_batch, generator)
        classes = samples.classes[labelled]
        seen = self._changed(samples.features[labelled], generator)
        if place.step < settings.alone * place.phase.steps:
            logits = self._logits(net, seen)
            loss = functional.cross_entropy(logits, classes)
        else:
            clean = table.features[table.draw(settings.unlabelled_batch, generator)].float()
            seen = torch.cat([seen, self._changed(clean, generator), clean])
            logits = self._logits(net, seen)
            sizes = [len(labelled), len(clean), len(clean)]
            of_labelled, of_changed, of_clean = logits.split(sizes)
            sure, guess = of_clean.detach().softmax(dim=1).max(dim=1)
            each = functional.cross_entropy(of_changed, guess, reduction="none")
            loss = functional.cross_entropy(of_labelled, classes)
            loss = loss + (each * (sure > settings.certainty)).mean()
        counts = torch.bincount(logits.detach().argmax(dim=1), minlength=self.classes)
        return self._step(loss), counts

    def _logits(self, net: FeatureNet, pixels: Tensor) -> Tensor:
        """`(M, F)` to `(M, K)`."""
        return as_rows(net(as_image(pixels))).masked_fill(~self.present, -1e4)

    def _changed(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        return changed(pixels, self.settings.noise, self.settings.dropout, generator)

    def _gathered(self) -> tuple[PixelTable, Samples]:
        if self._table is None or self._samples is None:
            raise RuntimeError("pixels have to be gathered before the first step")
        return self._table, self._samples

    def settled(self) -> nn.Module:
        """The committee with less to do."""
        return DenseCommittee(self.space, self.committee, self.present)

    def optimiser_state(self) -> dict[str, Tensor]:
        """Moments of AdamW by parameter number, and the phase that they belong to."""
        if self._optimiser is None or self._phase is None:
            return {}
        state = {
            f"{index}.{name}": value
            for index, state in self._optimiser.state_dict()["state"].items()
            for name, value in state.items()
        }
        return {**state, "phase": torch.tensor(self._phase)}

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the moments back."""
        if "phase" not in state:
            return
        number = int(state["phase"])
        self._enter(Place(number, self.phases[number], 0))
        if self._optimiser is None:
            return
        full = self._optimiser.state_dict()
        full["state"] = {}
        for key, value in state.items():
            if key != "phase":
                index, name = key.split(".")
                full["state"].setdefault(int(index), {})[name] = value
        self._optimiser.load_state_dict(full)


def balanced(classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of so many labelled pixels, of every class alike, with repetition; `(count,)`."""
    order = classes.cpu().argsort(stable=True)
    sizes = torch.bincount(classes.cpu())
    starts, present = sizes.cumsum(0) - sizes, sizes.nonzero()[:, 0]
    drawn = present[torch.randint(len(present), (count,), generator=generator)]
    place = (torch.rand(count, generator=generator) * sizes[drawn]).long()
    return order[starts[drawn] + place.clamp(max=sizes[drawn] - 1)].to(classes.device)
