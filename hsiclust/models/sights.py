"""Pixels as the jurors see them: at some scales, or spread along graphs; and the graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from hsiclust.models import ridge
from hsiclust.models.pixelgraph import both, feature_walk, ground_walk, spread
from hsiclust.models.pixeltable import PixelTable
from hsiclust.models.scalespace import radius, scales_of


@dataclass(frozen=True)
class Scales:
    """Components as a juror sees them.

    Attributes:
        components: Leading components.
        deviations: Of the Gaussians, in pixels.
        natural: Whether each scale keeps its amplitude: coarse ones vary less, and count less.
    """

    components: int
    deviations: tuple[float, ...]
    natural: bool = False


@dataclass(frozen=True)
class Spread:
    """How far something spreads.

    Attributes:
        graph: Along which graph.
        part: How much of a pixel comes from its neighbours.
        rounds: How often.
    """

    graph: str
    part: float
    rounds: int


_VIEWS = (
    Scales(12, (0.0,)),
    Scales(24, (0.0, 1.0), natural=True),
    Scales(24, (0.0, 1.0, 2.0, 4.0), natural=True),
    Scales(12, (0.0, 1.0, 2.0, 4.0)),
    Scales(24, (0.0, 1.0, 2.0, 4.0)),
    Scales(24, (1.0, 2.0, 4.0)),
    Scales(24, (1.0, 2.0, 4.0, 8.0)),
    Scales(24, (1.0, 2.0, 4.0, 8.0, 16.0)),
    Scales(12, (1.0, 2.0, 4.0, 8.0, 16.0)),
)
# Components that are spread along a graph before a juror sees them.
_DIFFUSED = (
    (24, Spread("ground", 0.98, 60)),
    (24, Spread("fine", 0.98, 60)),
    (24, Spread("fine", 0.995, 120)),
    (12, Spread("ground", 0.995, 120)),
)
CONTEXT = radius(max(deviation for view in _VIEWS for deviation in view.deviations))


class Sights:
    """Pixels of a table in many ways.

    Args:
        table: The pixels.
    """

    def __init__(self, table: PixelTable) -> None:
        self.table = table
        self._graphs: dict[str, Tensor] = {}

    def each(self) -> Iterator[Tensor]:
        """The pixels as each juror sees them, `(M, F)`."""
        for view in _VIEWS:
            found = self._scales(view)
            yield ridge.scaled(found if view.natural else standardised(found))
        for components, how in _DIFFUSED:
            found = self._scales(Scales(components, (0.0,), natural=True))
            yield ridge.scaled(standardised(self.along(found, how)))

    def _scales(self, view: Scales) -> Tensor:
        """Centred components at the scales of a view, in deviations of the components."""

        def of(values: Tensor) -> Tensor:
            few = values[:, : view.components] / self._deviation[: view.components, None, None]
            return scales_of(few, view.deviations)

        found = self.table.features(of, radius(max(view.deviations)))
        return found - found.mean(dim=0)

    @cached_property
    def _deviation(self) -> Tensor:
        """Of each component, `(C,)`."""
        return self.table.features(lambda values: values, 0).std(dim=0).clamp_min(1e-6)

    def graph(self, name: str) -> Tensor:
        """One of the graphs, as its random walk."""
        if name not in self._graphs:
            self._graphs[name] = self._made(name)
        return self._graphs[name]

    def _made(self, name: str) -> Tensor:
        def look(components: int, *deviations: float) -> Tensor:
            return standardised(self._scales(Scales(components, deviations)))

        match name:
            case "bare ground":
                return ground_walk(self.table, look(24, 0.0))
            case "ground":
                return ground_walk(self.table, look(12, 0.0, 1.0, 2.0))
            case "features":
                return feature_walk(look(24, 0.0, 1.0, 2.0, 4.0))
            case "few features":
                return feature_walk(look(12, 0.0, 1.0, 2.0))
            case "fine":
                return both(self.graph("ground"), self.graph("features"))
            case _:
                return both(self.graph("few features"), self.graph("bare ground"))

    def along(self, known: Tensor, way: Spread) -> Tensor:
        """What is known of pixels, `(M, K)`, spread along a graph."""
        return spread(self.graph(way.graph), known, way.part, way.rounds)


def standardised(features: Tensor) -> Tensor:
    """Columns of mean 0 and deviation 1, `(M, F)`."""
    centred = features - features.mean(dim=0)
    return centred / centred.std(dim=0).clamp_min(1e-6)
