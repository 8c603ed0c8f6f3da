"""The parts of ContrastDM, and the order in which they learn."""

from __future__ import annotations

from torch import nn

from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.diffusion import Denoiser, DiffusionConfig
from hsiclust.models.encoder import DenseEncoder
from hsiclust.models.featurenet import ClassNet, Coder, Committee
from hsiclust.models.phases import Phase
from hsiclust.models.scalespace import ScaleSpace

PRETRAINING, DIFFUSION, DISTILLATION = "contrastive pre-training", "diffusion", "distillation"


class Parts(nn.Module):
    """Everything of ContrastDM that has weights.

    Args:
        space: The features of a pixel; coders see those of its surroundings only.
        classes: Number of classes K.
        settings: See `ContrastDmConfig`.
    """

    def __init__(self, space: ScaleSpace, classes: int, settings: ContrastDmConfig) -> None:
        super().__init__()
        widths = settings.widths
        around = sum(deviation > 0 for deviation in space.deviations) * space.components
        self.coders = nn.ModuleList(
            Coder(around, widths, settings.projected) for _ in range(settings.coders)
        )
        self.denoiser: Denoiser | None = None
        self.guest: DenseEncoder | None = None
        if settings.guest_width:
            seen = min(settings.guest_seen or space.components, space.components)
            self.guest = DenseEncoder(seen, settings.guest_width)
        if settings.diffusion_steps and settings.has_codes:
            size = settings.guest_width
            if settings.is_pretrained:
                size += settings.coders * widths[-1]
            self.denoiser = Denoiser(size, classes, DiffusionConfig())
        nets = [ClassNet(space.features, widths, classes) for _ in range(settings.nets)]
        self.committee = Committee(nets)

    def coder(self, number: int) -> Coder:
        """One of the coders."""
        found = self.coders[number]
        if not isinstance(found, Coder):
            raise TypeError(f"{found} is no coder")
        return found


def phases(settings: ContrastDmConfig) -> list[Phase]:
    """What is learned, in order."""
    found = []
    if settings.pretraining_steps and not settings.pretrained:
        found += [
            Phase(PRETRAINING, number, settings.pretraining_steps)
            for number in range(settings.coders)
        ]
    if settings.labelled:
        if settings.diffusion_steps and settings.has_codes:
            found.append(Phase(DIFFUSION, 0, settings.diffusion_steps))
        found += [Phase(DISTILLATION, number, settings.steps) for number in range(settings.nets)]
    return found
