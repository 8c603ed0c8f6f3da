"""Scores of clusters on labelled pixels, all of them from one contingency table.

A labelled pixel that the map leaves unclassified (0) counts as wrong for accuracy, kappa and
purity, and as a member of a cluster of its own for NMI and ARI: a map cannot win by saying
nothing where it is hard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from hsiclust.contingency import Contingency, kappa
from hsiclust.information import normalised_information


@dataclass(frozen=True)
class ClassScore:
    """How one class of the truth fares.

    Attributes:
        number: Its number in the truth.
        name: Its name.
        pixels: Its labelled pixels.
        accuracy: Share of them in the cluster that it was matched with.
        cluster: That cluster, or None.
    """

    number: int
    name: str
    pixels: int
    accuracy: float
    cluster: int | None


@dataclass(frozen=True)
class Scores:
    """Scores of a map on labelled pixels.

    Attributes:
        pixels: Labelled pixels.
        accuracy: Share of them whose cluster was matched with their class. Clusters and classes
            are matched one to one so that this is greatest (Kuhn 1955); clusters left over are
            wrong.
        kappa: Cohen's (1960), `(p - e) / (1 - e)`, of the classes after matching; `p` is the
            accuracy, `e` that of a map as frequent in each class that ignores the ground.
        nmi: Normalized mutual information, `I(U, V) / ((H(U) + H(V)) / 2)` (Vinh et al. 2010).
        ari: Adjusted Rand index (Hubert and Arabie 1985), over pairs of pixels.
        purity: Share of pixels in the most frequent class of their cluster (Manning et al. 2008,
            section 16.3).
        unclassified: Labelled pixels that the map leaves unclassified.
        classes: Each class of the truth.
        matching: Class of each matched cluster.
        confusion: Pixels by class (row) and by the class that their cluster was matched with
            (column), classes in the order of `classes`; the last column is no class.
    """

    pixels: int
    accuracy: float
    kappa: float
    nmi: float
    ari: float
    purity: float
    unclassified: int
    classes: tuple[ClassScore, ...]
    matching: Mapping[int, int]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def average_accuracy(self) -> float:
        """Mean of the classes' accuracies (AA)."""
        return float(np.mean([score.accuracy for score in self.classes]))

    def class_lines(self) -> list[str]:
        """A line for each class: name, pixels, accuracy, cluster."""
        return [
            f"{score.name[:32]:<32} {score.pixels:>8} {score.accuracy:>9.4f}  "
            f"{'-' if score.cluster is None else score.cluster}"
            for score in self.classes
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain values; keys of the matching become text, as JSON has them."""
        matching = {str(cluster): number for cluster, number in self.matching.items()}
        extra = {"average_accuracy": self.average_accuracy, "matching": matching}
        return {**asdict(self), **extra}


def score(
    table: Contingency,
    names: Mapping[int, str] | None = None,
    matching: Mapping[int, int] | None = None,
) -> Scores:
    """All scores of a contingency table that holds at least one pixel.

    Args:
        table: Counts of class and cluster.
        names: Names of classes, where known.
        matching: Class of each cluster, one to one, where the map's numbers mean classes; the
            matching that makes most pixels right when None.
    """
    matching = match(table) if matching is None else matching
    confusion = _confusion(table, matching)
    right, of_class = np.diagonal(confusion), confusion.sum(axis=1)
    cluster_of = {number: cluster for cluster, number in matching.items()}
    classes = (
        ClassScore(
            number,
            (names or {}).get(number, f"class {number}"),
            int(of_class[row]),
            float(right[row] / of_class[row]),
            cluster_of.get(number),
        )
        for row, number in enumerate(table.classes)
    )
    pixels = int(table.counts.sum())
    return Scores(
        pixels=pixels,
        accuracy=float(right.sum() / pixels),
        kappa=kappa(confusion),
        nmi=normalised_information(table.counts, alone=1.0),  # as scikit-learn has it
        ari=_adjusted_rand_index(table.counts),
        purity=float(table.counts[:, 1:].max(axis=0, initial=0).sum() / pixels),
        unclassified=int(table.counts[:, 0].sum()),
        classes=tuple(classes),
        matching=matching,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def match(table: Contingency) -> dict[int, int]:
    """The class of each cluster, one to one, that makes most pixels right (Kuhn 1955).

    Clusters that share no pixel with the class that would be left for them match none.
    """
    shared = table.counts[:, 1:]
    rows, columns = linear_sum_assignment(shared, maximize=True)
    return {
        table.clusters[column + 1]: table.classes[row]
        for row, column in zip(rows, columns, strict=True)
        if shared[row, column] > 0
    }


def _confusion(table: Contingency, matching: Mapping[int, int]) -> NDArray[np.int64]:
    """`(class, class + 1)`: pixels by class and matched class, in the last column those of none."""
    confusion = np.zeros((len(table.classes), len(table.classes) + 1), np.int64)
    for column, cluster in enumerate(table.clusters):
        number = matching.get(cluster)
        target = -1 if number is None else table.classes.index(number)
        confusion[:, target] += table.counts[:, column]
    return confusion


def _adjusted_rand_index(counts: NDArray[np.int64]) -> float:
    """1 where both sides group the pixels alike, also when that is no surprise."""

    def pairs(groups: NDArray[np.int64]) -> float:
        sizes = groups.astype(np.float64)
        return float((sizes * (sizes - 1) / 2).sum())

    together, everything = pairs(counts), pairs(counts.sum(keepdims=True))
    of_class, of_cluster = pairs(counts.sum(axis=1)), pairs(counts.sum(axis=0))
    if together == of_class == of_cluster:
        return 1.0
    expected = of_class * of_cluster / everything
    return (together - expected) / ((of_class + of_cluster) / 2 - expected)
