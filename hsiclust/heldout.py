"""The score of a training on labels that it did not learn from, and the temperature from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from hsiclust.accuracy import Accuracy, classification
from hsiclust.contingency import tabulated
from hsiclust.crops import StoredTiles
from hsiclust.labeller import TorchLabeller
from hsiclust.models.calibration import fit_temperature
from hsiclust.models.classifier import Classifier
from hsiclust.numbering import Numbering
from hsiclust.reliability import calibration_error

# Held-out pixels whose scores are kept: enough for one number, and a bound on memory.
_KEPT = 2**15


@dataclass(frozen=True)
class HeldOutScore:
    """A model on labels that are held out.

    Attributes:
        accuracy: Overall, average and by class.
        temperature: What the scores are divided by before they are probabilities.
        error_before: Expected calibration error with a temperature of 1, and
        error_after: with one fitted to half of these pixels; both on the other half.
    """

    accuracy: Accuracy
    temperature: float
    error_before: float
    error_after: float

    def summary(self) -> dict[str, Any]:
        """The figures that a model keeps, as plain values."""
        found = self.accuracy
        return {
            "pixels": found.pixels,
            "accuracy": found.accuracy,
            "average_accuracy": found.average_accuracy,
            "kappa": found.kappa,
            "macro_f1": found.macro_f1,
            "calibration_error_before": self.error_before,
            "calibration_error": self.error_after,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Scored:
    """Held-out pixels of a tile: class and label, `(N,)` from 1, and scores `(N, K)` of some."""

    classes: NDArray[np.int64]
    labels: NDArray[np.int64]
    kept: NDArray[np.int64]
    scores: NDArray[np.float32]


def score_held_out(
    method: Classifier, tiles: Sequence[StoredTiles], numbering: Numbering, seed: int
) -> HeldOutScore | None:
    """Score a fitted method, and set its temperature.

    Args:
        method: A fitted method.
        tiles: Tiles with the labels that are held out.
        numbering: Names of the classes.
        seed: Of the choice of pixels whose scores are kept.

    Returns:
        None where no label is held out.
    """
    parts = list(_scored(method, tiles, np.random.default_rng(seed)))
    if not parts:
        return None
    table = tabulated((part.classes, part.labels) for part in parts)
    pairs = {number: number for number in table.classes}
    found = classification(table, pairs, numbering.names, numbering.names)
    present = method.present.cpu().numpy()
    scores = np.concatenate([part.scores for part in parts])[:, present]
    classes = np.concatenate([part.classes[part.kept] for part in parts]) - 1
    column_of = np.cumsum(present) - 1
    known = present[classes]  # a class without labels to learn from is always wrong
    scores, columns = scores[known], column_of[classes[known]]
    order = np.random.default_rng(seed).permutation(len(scores))
    one, other = order[::2], order[1::2]
    trial = fit_temperature(scores[one], columns[one])
    temperature = fit_temperature(scores, columns)
    method.temperature.fill_(temperature)
    return HeldOutScore(
        accuracy=found,
        temperature=temperature,
        error_before=_error(scores[other], columns[other], 1.0),
        error_after=_error(scores[other], columns[other], trial),
    )


def _scored(
    method: Classifier, tiles: Sequence[StoredTiles], random: np.random.Generator
) -> Iterator[_Scored]:
    """Label the held-out pixels, tile by tile."""
    labeller = TorchLabeller(method, method.temperature.device)
    share = _KEPT // max(1, sum(len(source.indices) for source in tiles))
    for source in tiles:
        for index in source.indices:
            tile = source.store.tiles[index]
            components = source.store.read(tile)
            held_out = source.labels.read(tile.core) if source.labels is not None else None
            valid = components.trimmed(source.store.tiles.halo).valid.cpu().numpy()
            chosen = np.zeros_like(valid) if held_out is None else (held_out > 0) & valid
            if held_out is None or not chosen.any():
                continue
            edge = source.store.tiles.halo - labeller.halo
            scores = labeller.scores(components.trimmed(edge))[0].movedim(0, -1)
            found = scores[torch.from_numpy(chosen).to(scores.device)].cpu().numpy()
            kept = np.sort(random.permutation(len(found))[: max(1, share)])
            classes = held_out[chosen].astype(np.int64)
            yield _Scored(classes, found.argmax(axis=1) + 1, kept, found[kept])


def _error(scores: NDArray[np.float32], classes: NDArray[np.int64], temperature: float) -> float:
    """Expected calibration error of some pixels; 0 of none."""
    if not len(scores):
        return 0.0
    chances = softmax(scores.astype(np.float64) / temperature, axis=1)
    return calibration_error(chances.max(axis=1), chances.argmax(axis=1) == classes)
