"""ContrastDM: classes from a few labelled pixels (Li et al. 2025, doi 10.1109/LGRS.2025.3601152).

Four parts, of which the first two need no labels:

1. Contrastive pre-training of several coders: the code of a pixel and that of a neighbour, both
   changed, are brought together, and the entries of a code kept from saying the same.
2. A diffusion model of the codes, which refines codes and draws synthetic ones.
3. A jury of closed-form classifiers, on codes and on plain scales, says what every pixel of the
   training probably is (`hsiclust.models.jury`).
4. Networks learn what the jury says, from features of the pixel's own window. They alone label a
   scene: one dense pass, the same in every tile.

How they learn stands in `hsiclust.models.contrastdm_training`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from hsiclust.errors import InputError, ModelError
from hsiclust.models.base import Batch, CropShape, Learned, Progress
from hsiclust.models.classifier import Classifier, labelled_counts, standardise
from hsiclust.models.contrastdm_parts import Parts, phases
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.featurenet import DenseCommittee
from hsiclust.models.phases import place_of
from hsiclust.models.pixeltable import PixelTable
from hsiclust.models.sights import CONTEXT

if TYPE_CHECKING:
    from hsiclust.models.contrastdm_training import Training


class ContrastDm(Classifier):
    """The parts, as a method.

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
        self.parts = Parts(self.space, classes, self.settings)
        self._training: Training | None = None
        self._kept: Mapping[str, Tensor] = {}

    @classmethod
    def from_config(cls, components: int, classes: int, config: Mapping[str, Any]) -> Self:
        """Build from the fields of `ContrastDmConfig`."""
        try:
            lists = {name: tuple(config[name]) for name in ("deviations", "widths")}
            return cls(components, classes, ContrastDmConfig(**{**config, **lists}))
        except (KeyError, TypeError) as error:
            raise ModelError(f"settings of contrastdm are not understood: {error}") from error

    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.settings).items()
        }

    @property
    def knows_classes(self) -> bool:
        """Whether it had labels."""
        return self.settings.labelled

    @property
    def crop_shape(self) -> CropShape:
        """No crops: pixels of a table, which the jury sees from far."""
        return CropShape(count=0, outputs=1, context=max(self.halo, CONTEXT))

    @property
    def default_steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in phases(self.settings))

    @property
    def floats_per_pixel(self) -> int:
        """The features and a copy, then the scores of the networks; hidden layers are in strips."""
        scores = (self.settings.nets + 2) * self.classes
        return self.space.features + max(self.space.features, scores)

    @property
    def fixed_bytes(self) -> int:
        """Hidden layers of a strip, input and output of each."""
        return 2 * 4 * 2**20

    def score(self, features: Tensor) -> Tensor:
        """Mean log-probabilities of the networks."""
        scores: Tensor = self.parts.committee(features, self.present)
        return scores

    def study(self, tiles: Sequence[Batch], warm: bool, generator: torch.Generator) -> None:  # noqa: ARG002
        """Standardise the features, and see which classes have labels.

        Raises:
            InputError: Fewer than two classes have labels.
        """
        if not (warm and self.space.is_standardised):  # coders go on with what they know
            standardise(self.space, tiles)
        if not self.settings.labelled:
            return
        counts = labelled_counts(tiles, self.classes)
        if int((counts > 0).sum()) < 2:
            raise InputError(
                f"{int(counts.sum())} labelled pixels of {int((counts > 0).sum())} classes: "
                "contrastdm learns from two classes at least; give labels of more, or more pixels"
            )
        self.present.copy_(counts > 0)

    def gather(self, tiles: Sequence[Batch], generator: torch.Generator) -> None:
        """Put the pixels into a table."""
        from hsiclust.models.contrastdm_training import Training  # SciPy, which labels need not

        table = PixelTable.of(tiles)
        self._training = Training(self.parts, self.space, self.settings, table, generator)
        self._training.load_state(self._kept)

    def learn(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Learned:  # noqa: ARG002
        """One step of the phase that the step lies in."""
        if self._training is None:
            raise RuntimeError("pixels have to be gathered before the first step")
        place = place_of(phases(self.settings), progress.step)
        loss, counts = self._training.step(place, generator)
        return Learned(loss, counts, f"{place.phase.kind} {place.phase.net + 1}")

    def choices(self) -> dict[str, Any]:
        """What cross-validation over the labels chose."""
        if self._training is None or not self.settings.labelled:
            return {}
        return self._training.verdict.choices()

    def settled(self) -> nn.Module:
        """The networks with less to do.

        Raises:
            ModelError: There are none yet: the model is only pre-trained.
        """
        if not self.settings.labelled:
            raise ModelError(
                "this model is only pre-trained and knows no classes; train with --init and "
                "--labels first"
            )
        return DenseCommittee(self.space, self.parts.committee, self.present)

    def optimiser_state(self) -> dict[str, Tensor]:
        """Of the phase that is at work."""
        return {} if self._training is None else self._training.state()

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Keep it until the pixels are gathered."""
        self._kept = dict(state)
