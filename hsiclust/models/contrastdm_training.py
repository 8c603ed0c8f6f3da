"""How the parts of ContrastDM learn: phase by phase, from pixels in a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.errors import ModelError
from hsiclust.models.augment import changed
from hsiclust.models.contrastdm_parts import DIFFUSION, PRETRAINING, Parts, phases
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.diffusion import (
    Denoiser,
    averaged,
    denoising_loss,
    drawn,
    follow,
    gaussian_vectors,
    refined,
)
from hsiclust.models.featurenet import Coder, as_image, as_rows, chances
from hsiclust.models.jury import Jury, Synthetic, Verdict
from hsiclust.models.losses import BarlowTwins
from hsiclust.models.moments import below, load_moments, moments
from hsiclust.models.phases import Place
from hsiclust.models.pixeltable import Neighbours, PixelTable
from hsiclust.models.scalespace import ScaleSpace
from hsiclust.models.schedule import one_cycle

log = logging.getLogger(__name__)

# Pixels that pass through a network at once.
_AT_ONCE = 2**14
_NO_CHANCE = 1e-6


class Training:
    """One training of the parts.

    Args:
        parts: What learns.
        space: The features of a pixel.
        settings: See `ContrastDmConfig`.
        table: The pixels.
        generator: Random numbers of what is not a step.
    """

    def __init__(
        self,
        parts: Parts,
        space: ScaleSpace,
        settings: ContrastDmConfig,
        table: PixelTable,
        generator: torch.Generator,
    ) -> None:
        self.parts, self.space, self.settings, self.table = parts, space, settings, table
        self.features = table.features(space, space.halo).to(torch.float16)
        self.neighbours = Neighbours(table)
        self.contrast = BarlowTwins(settings.off_diagonal)
        self.present = torch.bincount(table.classes[table.labelled], minlength=self.classes) > 0
        self._random = generator
        self._phase: int | None = None
        self._optimiser: torch.optim.Optimizer | None = None
        self._raw: Denoiser | None = None  # what learns; the parts hold its moving average

    @property
    def classes(self) -> int:
        """Number of classes K."""
        last = [m for m in self.parts.committee.modules() if isinstance(m, nn.Conv2d)][-1]
        return last.out_channels

    def step(self, place: Place, generator: torch.Generator) -> tuple[float, Tensor]:
        """One step; the loss, and how many pixels of the batch each class got, `(K,)`."""
        optimiser = self._entered(place)
        for group in optimiser.param_groups:
            group["lr"] = group["most"] * one_cycle(place.step, place.phase.steps)
        match place.phase.kind:
            case kind if kind == PRETRAINING:
                loss, counts = self._contrast(self.parts.coder(place.phase.net), generator)
            case kind if kind == DIFFUSION:
                loss, counts = self._denoise(generator)
            case _:
                net = self.parts.committee.nets[place.phase.net]
                loss, counts = self._distil(net, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if self._raw is not None and self.parts.denoiser is not None:
            follow(self.parts.denoiser, self._raw, place.step)
        return float(loss.detach()), counts

    def _entered(self, place: Place) -> torch.optim.Optimizer:
        """The optimiser of a phase; a new one where the phase has just begun."""
        if self._optimiser is not None and self._phase == place.number:
            return self._optimiser
        settings, number = self.settings, place.phase.net
        self._raw = None
        match place.phase.kind:
            case kind if kind == PRETRAINING:
                groups = [_group(self.parts.coder(number), settings.rate, settings.decay)]
            case kind if kind == DIFFUSION:
                if self.parts.denoiser is None:
                    raise ModelError("there is no diffusion model to train")
                self._raw = averaged(self.parts.denoiser).requires_grad_(True)
                groups = [_group(self._raw, self._raw.settings.rate, self._raw.settings.decay)]
            case _:
                groups = self._of_net(self.parts.committee.nets[number])
        self._optimiser = torch.optim.AdamW(groups)
        self._phase = place.number
        return self._optimiser

    def _of_net(self, net: nn.Module) -> list[dict[str, Any]]:
        """What an optimiser has to know of a network with a head."""
        *layers, head = net.children()
        inner = nn.Sequential(*layers)
        groups = [_group(inner, self.settings.rate, self.settings.decay)]
        return [*groups, _group(head, self.settings.head_rate, self.settings.decay)]

    def _contrast(self, coder: Coder, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Bring the codes of neighbours together."""
        chosen = self.table.draw(self.settings.pretraining_batch, generator)
        partner = self.neighbours.drawn(chosen, self.settings.reach, generator)
        pixels = self._around(self.features[torch.cat([chosen, partner])]).float()
        first, second = coder.project(self._changed(pixels, generator)).chunk(2)
        return self.contrast(first, second), self._uncounted(len(chosen))

    def _said(self, net: nn.Module, pixels: Tensor) -> Tensor:
        """Log-probabilities: `(M, F)` to `(M, K)`."""
        return as_rows(chances(net(as_image(pixels)), self.present))

    def _denoise(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rebuild codes from noise, part of them with their class."""
        if self._raw is None:
            raise ModelError("there is no diffusion model to train")
        of = self._raw.settings
        count = round(of.labelled * of.batch)
        labelled = self._balanced(count, generator)
        other = self.table.draw(of.batch - count, generator)
        anyone = self._raw.classes
        kept = torch.rand(count, generator=generator) >= of.anonymous
        known = torch.where(kept.to(labelled.device), self.table.classes[labelled], anyone)
        classes = torch.cat([known, torch.full_like(other, anyone)])
        codes = self.codes[torch.cat([labelled, other])]
        loss = denoising_loss(self._raw, codes, classes, generator)
        return loss, self._uncounted(of.batch)

    def _distil(self, net: nn.Module, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Learn what the jury says of any pixels, and of labelled ones beside them."""
        settings = self.settings
        labelled = self._balanced(settings.labelled_batch, generator)
        rows = torch.cat([self.table.draw(settings.batch, generator), labelled])
        pixels = self._changed(self.features[rows].float(), generator)
        said = self._said(net, pixels)
        wanted, trust = self._wanted[0][rows], self._wanted[1][rows]
        each = -(wanted * said).sum(dim=1) * trust
        loss = each[: settings.batch].mean()
        loss = loss + settings.labelled_weight * each[settings.batch :].mean()
        return loss, self._counted(said)

    @cached_property
    def codes(self) -> Tensor:
        """Codes of all pixels, side by side, standardised: `(M, E)`."""
        guest, parts = self.parts.guest, self.features.split(_AT_ONCE)
        codes = []
        with torch.no_grad():
            if self.settings.is_pretrained:
                for coder in self.parts.coders:
                    coder.eval()
                    codes.append(torch.cat([coder(self._around(part).float()) for part in parts]))
            if guest is not None:
                codes.append(self.table.features(guest.eval(), guest.receptive_field // 2))
        found = torch.cat(codes, dim=1)
        return (found - found.mean(dim=0)) / found.std(dim=0).clamp_min(1e-6)

    @cached_property
    def verdict(self) -> Verdict:
        """What the jury says of every pixel."""
        jury = Jury(self.table, self.classes, self._random)
        log.info("a jury hears %d labelled pixels", len(jury.rows))
        with torch.no_grad():
            return jury.hear(*self._benches(jury))

    @cached_property
    def _wanted(self) -> tuple[Tensor, Tensor]:
        """What a network is to say of each pixel, `(M, K)`, and how much it counts, `(M,)`."""
        sharp = self.verdict.chances**self.settings.sharpness
        sharp = sharp / sharp.sum(dim=1, keepdim=True).clamp_min(1e-9)
        sharp = functional.threshold(sharp, _NO_CHANCE, 0.0)  # tiny numbers are slow to reckon with
        return sharp, sharp.amax(dim=1)

    def _benches(self, jury: Jury) -> tuple[list[Tensor], Synthetic | None]:
        """Codes for the jury, plain and refined, and synthetic ones."""
        settings, denoiser = self.settings, self.parts.denoiser
        if not settings.has_codes:
            return [], None
        codes = [self.codes]
        if settings.refined and denoiser is not None:
            parts = self.codes.split(_AT_ONCE)
            codes.append(torch.cat([refined(denoiser.eval(), part) for part in parts]))
        if not settings.synthetic:
            return codes, None
        classes = jury.known.unique().repeat_interleave(settings.synthetic)
        if settings.synthesis == "gaussians":
            known = self.codes[jury.rows]
            made = gaussian_vectors(known, jury.known, classes, self._random)
        elif denoiser is not None:
            made = drawn(denoiser.eval(), classes, self._random)
        else:
            return codes, None
        return codes, Synthetic(made, classes)

    def _around(self, features: Tensor) -> Tensor:
        """The features of a pixel's surroundings: those of every scale above 0."""
        scales = features.unflatten(1, (len(self.space.deviations), self.space.components))
        kept = torch.tensor([deviation > 0 for deviation in self.space.deviations])
        around: Tensor = scales[:, kept.to(features.device)].flatten(1)
        return around

    def _changed(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        return changed(pixels, self.settings.noise, self.settings.dropout, generator)

    def _balanced(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows of labelled pixels, of all classes alike, `(count,)`."""
        rows = self.table.labelled
        return rows[balanced(self.table.classes[rows], count, generator)]

    def _counted(self, said: Tensor) -> Tensor:
        """Pixels that each class got, `(K,)`."""
        return torch.bincount(said.detach().argmax(dim=1), minlength=self.classes)

    def _uncounted(self, pixels: int) -> Tensor:
        """Pixels that no class got."""
        counts = torch.zeros(self.classes, dtype=torch.int64)
        counts[0] = pixels
        return counts

    def state(self) -> dict[str, Tensor]:
        """What a training needs to go on, beyond the parts."""
        if self._optimiser is None or self._phase is None:
            return {}
        state = {f"moments.{name}": value for name, value in moments(self._optimiser).items()}
        if self._raw is not None:
            state |= {f"raw.{name}": value for name, value in self._raw.state_dict().items()}
        return {**state, "phase": torch.tensor(self._phase)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        if "phase" not in state:
            return
        number = int(state["phase"])
        optimiser = self._entered(Place(number, phases(self.settings)[number], 0))
        load_moments(optimiser, below("moments.", state))
        raw = below("raw.", state)
        if self._raw is not None and raw:
            self._raw.load_state_dict(raw)


def _group(module: nn.Module, rate: float, decay: float) -> dict[str, Any]:
    """A module that is to learn, with its largest rate and its weight decay."""
    parameters = list(module.train().parameters())
    return {"params": parameters, "most": rate, "weight_decay": decay}


def balanced(classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of so many labels, of every class alike, with repetition.

    Args:
        classes: `(L,)`, class of each label, from 0.
        count: How many.
        generator: Random numbers.

    Returns:
        `(count,)`.
    """
    known = classes.cpu()
    order = known.argsort(stable=True)
    sizes = torch.bincount(known)
    starts, present = sizes.cumsum(0) - sizes, sizes.nonzero()[:, 0]
    chosen = present[torch.randint(len(present), (count,), generator=generator)]
    place = (torch.rand(count, generator=generator) * sizes[chosen]).long()
    return order[starts[chosen] + place.clamp(max=sizes[chosen] - 1)].to(classes.device)
