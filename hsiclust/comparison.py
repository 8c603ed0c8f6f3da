"""A map and a truth on the same pixels: what meets what, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsiclust.accuracy import Accuracy, classification
from hsiclust.area import Areas, estimate_areas
from hsiclust.contingency import Contingency, contingency, pixels_by_number
from hsiclust.georef import pixel_hectares
from hsiclust.grid import PixelGrid
from hsiclust.legend import holds_classes
from hsiclust.pairing import Pairing, pair_classes
from hsiclust.scores import Scores, score
from hsiclust.truth import Truth, open_truth


@dataclass(frozen=True)
class Comparison:
    """A map and a truth on the same grid, and what meets what.

    Attributes:
        found: The map.
        truth: The truth.
        grid: Of both.
        table: Their labelled pixels.
        pairing: Classes that are the same; None where clusters have to be matched.
        mapped: Pixels of each class number in the whole map; empty for clusters.
    """

    found: Truth
    truth: Truth
    grid: PixelGrid
    table: Contingency
    pairing: Pairing | None
    mapped: Mapping[int, int]

    @property
    def note(self) -> str | None:
        """What is to be known, line by line."""
        notes = (self.truth.note, self.pairing and self.pairing.note)
        return "\n".join(note for note in notes if note) or None

    def scores(self) -> Scores:
        """Scores of clusters matched with classes, or of paired classes."""
        if self.pairing is None:
            return score(self.table, self.truth.names)
        return score(self.table, self.pairing.names, self.pairing.matching)

    def accuracy(self) -> Accuracy | None:
        """Scores of a map of classes."""
        if self.pairing is None:
            return None
        names = {at: self.found.names.get(at, "") for at in self.mapped if at}
        return classification(self.table, self.pairing.matching, self.pairing.names, names)

    def areas(self, accuracy: Accuracy) -> Areas | None:
        """Estimates for the whole map."""
        classes = accuracy.classes
        names = [each.name for each in classes]
        sample = np.array(accuracy.confusion)[:, :-1].T
        mapped = np.array(
            [0 if each.mapped is None else self.mapped.get(each.mapped, 0) for each in classes]
        )
        return estimate_areas(names, sample, mapped, pixel_hectares(self.grid))


def compare(
    map_path: str | Path, truth: Truth, grid: PixelGrid, match: bool | None = None
) -> Comparison | None:
    """Count what meets what.

    Args:
        map_path: A raster of class numbers.
        truth: Class numbers on the map's grid.
        grid: That grid.
        match: Whether the map's numbers are clusters, to be matched with classes; as the map's own
            tag says when None, and so where it says nothing.

    Returns:
        None where the truth labels no pixel.

    Raises:
        InputError: The map cannot be used.
    """
    found = open_truth(map_path, grid)
    table = contingency(found, truth, grid.window)
    if not table.classes:
        return None
    clusters = not holds_classes(map_path) if match is None else match
    if clusters:
        return Comparison(found, truth, grid, table, None, {})
    mapped = pixels_by_number(found, grid.window)
    labelled = dict(zip(table.classes, table.counts.sum(axis=1).tolist(), strict=True))
    numbers = {*found.names, *mapped} - {0}
    pairing = pair_classes(labelled, truth.names, numbers, found.names)
    return Comparison(found, truth, grid, table, pairing, mapped)
