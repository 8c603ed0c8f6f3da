"""Scores of a map whose numbers mean classes, all of them from one confusion matrix.

A labelled pixel that the map leaves unclassified (0), or whose class the map does not know, counts
as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsiclust.contingency import Contingency, kappa


@dataclass(frozen=True)
class ClassAccuracy:
    """How one class fares.

    Attributes:
        number: Its number in the truth; None where the truth labels no pixel with it.
        mapped: Its number in the map; None where the map does not know it.
        name: Its name.
        pixels: Labelled pixels of this class.
        predicted: Labelled pixels that the map gives this class.
        producers: Producer's accuracy (PA, recall): share of `pixels` that the map gives this
            class; None without pixels.
        users: User's accuracy (UA, precision): share of `predicted` that are of this class; None
            where the map gives it to no labelled pixel.
        f1: `2 * right / (pixels + predicted)`, the harmonic mean of both; None without either.
    """

    number: int | None
    mapped: int | None
    name: str
    pixels: int
    predicted: int
    producers: float | None
    users: float | None
    f1: float | None


@dataclass(frozen=True)
class Accuracy:
    """Scores of a classification on labelled pixels.

    Attributes:
        pixels: Labelled pixels.
        unclassified: Those that the map leaves unclassified.
        accuracy: Overall accuracy (OA): share of labelled pixels that have their class.
        average_accuracy: Mean producer's accuracy (AA) of the classes that the truth labels.
        kappa: Cohen's (1960), agreement beyond that of chance.
        macro_f1: Mean F1 of the classes that the truth labels.
        classes: Classes of the truth by rising number, then those that the map alone has.
        confusion: Pixels by class in the truth (row) and in the map (column), both in the order
            of `classes`; the last column is unclassified.
    """

    pixels: int
    unclassified: int
    accuracy: float
    average_accuracy: float
    kappa: float
    macro_f1: float
    classes: tuple[ClassAccuracy, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def classification(
    table: Contingency,
    matching: Mapping[int, int],
    names: Mapping[int, str],
    map_names: Mapping[int, str],
) -> Accuracy:
    """All scores of a contingency table that holds at least one pixel.

    Args:
        table: Counts of class and class number of the map.
        matching: Class number of the truth, by class number of the map.
        names: Names of the truth's classes, where known.
        map_names: Class numbers that pixels of the map have, and their names, where known.
    """
    alone = sorted(({*table.clusters, *map_names} - {0}) - matching.keys())
    confusion = _confusion(table, matching, alone)
    known = {number: mapped for mapped, number in matching.items()}
    identities: list[tuple[int | None, int | None, str]] = [
        (number, known.get(number), _name(names, number)) for number in table.classes
    ]
    identities += [(None, mapped, _name(map_names, mapped)) for mapped in alone]
    classes = tuple(
        _class_accuracy(identity, confusion, at) for at, identity in enumerate(identities)
    )
    labelled = classes[: len(table.classes)]
    return Accuracy(
        pixels=int(confusion.sum()),
        unclassified=int(confusion[:, -1].sum()),
        accuracy=float(np.trace(confusion) / confusion.sum()),
        average_accuracy=float(np.mean([each.producers or 0 for each in labelled])),
        kappa=kappa(confusion),
        macro_f1=float(np.mean([each.f1 or 0 for each in labelled])),
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _name(names: Mapping[int, str], number: int) -> str:
    return names.get(number) or f"class {number}"


def _confusion(
    table: Contingency, matching: Mapping[int, int], alone: list[int]
) -> NDArray[np.int64]:
    """`(C, C + 1)`: classes of the truth, then the map's own, and unclassified as last column."""
    labelled = len(table.classes)
    column_of = {mapped: table.classes.index(number) for mapped, number in matching.items()}
    column_of |= {mapped: labelled + at for at, mapped in enumerate(alone)}
    size = labelled + len(alone)
    confusion = np.zeros((size, size + 1), np.int64)
    for column, mapped in enumerate(table.clusters):
        confusion[:labelled, column_of.get(mapped, -1)] += table.counts[:, column]
    return confusion


def _class_accuracy(
    identity: tuple[int | None, int | None, str], confusion: NDArray[np.int64], at: int
) -> ClassAccuracy:
    right, pixels, predicted = (
        int(count) for count in (confusion[at, at], confusion[at].sum(), confusion[:, at].sum())
    )
    return ClassAccuracy(
        *identity,
        pixels=pixels,
        predicted=predicted,
        producers=_share(right, pixels),
        users=_share(right, predicted),
        f1=_share(2 * right, pixels + predicted),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
