"""What a pixel probably is: many closed-form classifiers, heard by how well each does, spread.

Each juror is a kernel ridge classifier that sees the pixels in its own way: at some scales, along a
graph, or as codes of the pre-trained networks. A juror's vote weighs by its accuracy in
cross-validation over the labels (`hsiclust.models.folds`); no other truth is used. Votes then
spread along graphs of pixels; which graph, and how far, is chosen in the same way, and close rivals
share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hsiclust.models import ridge
from hsiclust.models.classifier import evenly_drawn
from hsiclust.models.folds import COUNT, coverage, folds
from hsiclust.models.pixeltable import PixelTable
from hsiclust.models.sights import Sights, Spread, standardised

_ROUNDS = {0.5: 8, 0.9: 30, 0.98: 60, 0.995: 90}
_GRAPHS = ("bare ground", "ground", "features", "few features", "fine", "coarse")
_FAR = ("bare ground", "ground", "fine")
_SPREADS = (
    *(Spread(graph, part, _ROUNDS[part]) for graph in _GRAPHS for part in (0.5, 0.9, 0.98)),
    *(Spread(graph, 0.995, _ROUNDS[0.995]) for graph in _FAR),
)
# How fast a juror, or a way to spread, loses weight against the best: in parts of accuracy.
_TOLERANCE = 0.03
_LEAST_WEIGHT = 0.01
# How much less accurate than scales codes may be before they count less, and how fast they then do.
_SLACK, _DECLINE, _CLOSED = 0.03, 0.02, 0.05
# Coverage of the ground by labels below which codes are not heard, and from which they are.
_NOT_COVERED, _COVERED = 0.3, 0.4
# Labels that the jurors hear at most: kernels are quadratic in them.
MOST_LABELS = 4096
# Columns that spread at once: what several folds know of a class each.
_COLUMNS = 128


@dataclass(frozen=True)
class Verdict:
    """What the jury says.

    Attributes:
        chances: `(M, K)`, float32; how probable each class is, rows sum to 1.
        accuracy: On the labels that were left out, of what was chosen.
        places: How many places the labels were divided by to leave them out; as many as labels when
            it was done at random.
        coverage: How well labels cover the ground; see `hsiclust.models.folds.coverage`.
        codes: What the codes count against all other jurors, 0 to 1.
        spreads: How much each way to spread counts, by its name.
    """

    chances: Tensor
    accuracy: float
    places: int
    coverage: float
    codes: float
    spreads: Mapping[str, float]

    def choices(self) -> dict[str, Any]:
        """As JSON values."""
        shown = {name: round(weight, 3) for name, weight in self.spreads.items()}
        return {
            "cross_validated_accuracy": round(self.accuracy, 4),
            "places_left_out": self.places,
            "coverage": round(self.coverage, 3),
            "weight_of_codes": round(self.codes, 3),
            "spreads": shown,
        }


@dataclass(frozen=True)
class Synthetic:
    """Codes that no pixel has.

    Attributes:
        codes: `(S, E)`, standardised.
        classes: `(S,)`, from 0.
    """

    codes: Tensor
    classes: Tensor


class Jury:
    """The jurors of one training.

    Args:
        table: The pixels.
        classes: Number of classes K.
        generator: Random numbers; choose the folds, and the labels where there are many.
    """

    def __init__(self, table: PixelTable, classes: int, generator: torch.Generator) -> None:
        self.table = table
        self.sights = Sights(table)
        self.classes = classes
        rows = table.labelled
        kept = evenly_drawn(table.classes[rows], MOST_LABELS, generator)
        self.rows = rows[kept]
        self.known = table.classes[self.rows]
        ground = table.ground
        self.fold, self.places = folds(self.known, ground[self.rows], ground, generator)
        self.coverage = coverage(ground[self.rows], ground, generator)

    def hear(
        self,
        codes: Sequence[Tensor] = (),
        synthetic: Synthetic | None = None,
    ) -> Verdict:
        """Hear all jurors, and let what they say spread.

        Args:
            codes: Codes of all pixels, `(M, E)` each, plain and refined: a bench of their own,
                that counts as much as all others together where it does as well, and not at all
                where pre-training does not suit the scene.
            synthetic: Codes that join the labelled ones of the first bench, once the folds are
                heard: a generator has seen every label.
        """
        votes, accuracy = self._bench(self.sights.each())
        weight = 0.0
        if codes:
            of_codes, theirs = self._bench(ridge.scaled(standardised(each)) for each in codes)
            weight = _gate(theirs - accuracy) * _trust(self.coverage)
            if synthetic is not None and weight:
                more = self._with_synthetic(codes[0], synthetic)
                of_codes[-1] = (of_codes[-1] + more) / 2
            for vote, other in zip(votes, of_codes, strict=True):
                vote.add_(other, alpha=weight).div_(1 + weight)
        for vote, subset in zip(votes, self._subsets, strict=True):
            own = functional.one_hot(self.known[subset], self.classes)
            vote[self.rows[subset]] = own.to(vote)
        return self._spread(votes, weight)

    def _with_synthetic(self, codes: Tensor, synthetic: Synthetic) -> Tensor:
        """Votes of a juror on codes who has heard synthetic ones too, `(M, K)`."""
        mean, deviation = codes.mean(dim=0), codes.std(dim=0).clamp_min(1e-6)
        features = ridge.scaled(standardised(codes))
        size = (features[0] / ((codes[0] - mean) / deviation)).nanmedian()
        made = (synthetic.codes - mean) / deviation * size
        heard = torch.cat([features[self.rows], made])
        known = torch.cat([self.known, synthetic.classes])
        weights = ridge.solved(ridge.kernel(heard, heard), known, self.classes)
        return ridge.scores(features, heard, weights).clamp_(0, 1)

    @property
    def _subsets(self) -> list[Tensor]:
        """Which labels are heard: all but one fold, for each fold, then all; numbers of labels."""
        folds = [torch.nonzero(self.fold != number)[:, 0] for number in range(COUNT)]
        return [*folds, torch.arange(len(self.rows), device=self.rows.device)]

    def _bench(self, seen: Iterable[Tensor]) -> tuple[list[Tensor], float]:
        """Votes of some jurors, each by its accuracy on the folds that it did not hear.

        Args:
            seen: The pixels as each juror sees them, `(M, F)`.

        Returns:
            Votes for each subset of the labels, `(M, K)` each, and the accuracy of the best juror.
        """
        subsets = self._subsets
        votes = [torch.zeros(len(self.table), self.classes) for _ in subsets]
        votes = [vote.to(self.rows.device) for vote in votes]
        best, total = -math.inf, 0.0
        for features in seen:
            labelled = features[self.rows]
            similar = ridge.kernel(labelled, labelled)
            fits = [ridge.solved(similar[s][:, s], self.known[s], self.classes) for s in subsets]
            heldout = [similar[:, s] @ fit for s, fit in zip(subsets, fits, strict=True)]
            accuracy = self._accuracy(torch.cat(heldout[:COUNT], dim=1))
            # Weights relative to the best so far, which the ones before shrink to.
            before, best = best, max(best, accuracy)
            shrunk = math.exp((before - best) / _TOLERANCE)
            weight = math.exp((accuracy - best) / _TOLERANCE)
            for vote, subset, fit in zip(votes, subsets, fits, strict=True):
                said = ridge.scores(features, labelled[subset], fit)
                vote.mul_(shrunk).add_(said, alpha=weight)
            total = total * shrunk + weight
        return [(vote / total).clamp_(0, 1) for vote in votes], best

    def _spread(self, votes: Sequence[Tensor], of_codes: float) -> Verdict:
        """Spread votes as cross-validation over the labels says."""
        *held, full = votes
        columns = torch.cat(held, dim=1)
        ways: list[Spread | None] = [None, *_SPREADS]
        accuracies = [self._accuracy(self._at_labels(columns, way)) for way in ways]
        best = max(accuracies)
        weights = [math.exp((each - best) / _TOLERANCE) for each in accuracies]
        shares = [weight / sum(weights) for weight in weights]
        chances = torch.zeros_like(full)
        for way, share in zip(ways, shares, strict=True):
            if share > _LEAST_WEIGHT:
                found = full if way is None else self.sights.along(full, way)
                chances += share * found
        chances = chances / chances.sum(dim=1, keepdim=True).clamp_min(1e-9)
        names = ["none" if way is None else f"{way.graph} {way.part:g}" for way in ways]
        kept = {n: share for n, share in zip(names, shares, strict=True) if share > _LEAST_WEIGHT}
        return Verdict(chances, best, self.places, self.coverage, of_codes, kept)

    def _at_labels(self, columns: Tensor, way: Spread | None) -> Tensor:
        """What spreads to the labelled pixels, `(L, folds K)`, some columns at a time."""
        if way is None:
            return columns[self.rows]
        parts = [self.sights.along(part, way)[self.rows] for part in columns.split(_COLUMNS, dim=1)]
        return torch.cat(parts, dim=1)

    def _accuracy(self, found: Tensor) -> float:
        """Of each label in the fold that did not hear it."""
        by_fold = found.view(len(found), COUNT, self.classes)
        own = by_fold[torch.arange(len(found), device=found.device), self.fold]
        return float((own.argmax(dim=1) == self.known).to(torch.float32).mean())


def _trust(coverage: float) -> float:
    """What codes count where labels cover the ground so well.

    Pre-training makes neighbours alike, so a code tells its place. That helps where there are
    labels all over, and misleads where the map goes beyond them.
    """
    return min(max((coverage - _NOT_COVERED) / (_COVERED - _NOT_COVERED), 0.0), 1.0)


def _gate(advantage: float) -> float:
    """What a bench counts whose best juror is so much more accurate than that of the other."""
    weight = math.exp(min(0.0, advantage + _SLACK) / _DECLINE)
    return weight if weight > _CLOSED else 0.0
