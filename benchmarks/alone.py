"""The parts of labelling by themselves, on data in memory: the network, and the whole model.

This is the one module of the benchmarks of `predict` that knows what a model is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.scenes import AXES, Order
from hsiclust.modelfile import FittedModel, load_model

SIDES: Final = (64, 96, 128, 192, 256)
_STRIP = 16  # rows that are transformed at once where no tile asks for more

Piece = tuple[slice, slice]


class Alone:
    """A model that labels arrays in memory, one piece a thread.

    Args:
        path: Model file.
        threads: Pieces that are worked on at once.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self.model: FittedModel = load_model(path)
        self.halo = self.model.method.halo
        self.network = self.model.method.settled()
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def transform(self, raw: torch.Tensor) -> torch.Tensor:
        """Spectra `(B, row, col)` to components `(C, row, col)`."""
        return self.model.transform.apply(raw, torch.ones(raw.shape[1:], dtype=torch.bool))

    def label(self, components: torch.Tensor) -> torch.Tensor:
        """Components `(C, row, col)` to class numbers, without the halo, uint8."""
        with torch.inference_mode():
            values = components[None].contiguous(memory_format=torch.channels_last)
            scores: torch.Tensor = self.network(values)[0]
            return (scores.argmax(dim=0) + 1).to(torch.uint8)

    def seconds(self, work: Callable[[Piece], object], pieces: Sequence[Piece]) -> float:
        """Seconds for all pieces."""
        begin = perf_counter()
        for _ in self._pool.map(work, pieces):
            pass
        return perf_counter() - begin


@dataclass(frozen=True)
class Sample:
    """A part of a scene in memory.

    Attributes:
        alone: The model.
        raw: `(B, row, col)` in the scene's data type; strides as the file's order gives them.
    """

    alone: Alone
    raw: torch.Tensor

    @classmethod
    def of(cls, alone: Alone, block: NDArray[Any], order: Order) -> Sample:
        """A block `(band, row, col)`, laid out anew in this order."""
        axes = AXES[order]
        lying = np.ascontiguousarray(block[list(alone.model.transform.bands)].transpose(axes))
        return cls(alone, torch.from_numpy(lying).permute(*np.argsort(axes).tolist()))

    @cached_property
    def components(self) -> torch.Tensor:
        """`(C, row, col)`."""
        return self.alone.transform(self.raw)

    @property
    def pixels(self) -> int:
        """That get a label: those at the edge have no neighbours."""
        rows, cols = self.raw.shape[1:]
        return (rows - 2 * self.alone.halo) * (cols - 2 * self.alone.halo)

    def network(self, side: int) -> float:
        """Seconds a pixel: the network on components, tile by tile."""
        tiles = list(self._tiles(side))
        components = self.components
        label = self.alone.label
        return self.alone.seconds(lambda at: label(components[:, *at]), tiles) / self.pixels

    def tilewise(self, side: int) -> float:
        """Seconds a pixel: transform and network, tile by tile, the halo transformed again."""
        tiles = list(self._tiles(side))
        raw, alone = self.raw, self.alone
        spent = alone.seconds(lambda at: alone.label(alone.transform(raw[:, *at])), tiles)
        return spent / self.pixels

    def stepwise(self, side: int) -> float:
        """Seconds a pixel: every pixel transformed once, then the network tile by tile."""
        rows = self.raw.shape[1]
        strips = [(slice(at, at + _STRIP), slice(None)) for at in range(0, rows, _STRIP)]
        components = torch.empty(self.components.shape)
        raw, alone = self.raw, self.alone

        def transform(at: Piece) -> None:
            components[:, *at] = alone.transform(raw[:, *at])

        spent = alone.seconds(transform, strips)
        label = alone.label
        spent += alone.seconds(lambda at: label(components[:, *at]), list(self._tiles(side)))
        return spent / self.pixels

    def _tiles(self, side: int) -> Iterator[Piece]:
        """Tiles with their halo: cores of `side`, smaller ones at the end."""
        rows, cols = self.raw.shape[1:]
        halo = self.alone.halo
        starts = (range(halo, length - halo, side) for length in (rows, cols))
        for row, col in product(*starts):
            stop_row, stop_col = (
                min(start + side, length - halo) + halo
                for start, length in ((row, rows), (col, cols))
            )
            yield slice(row - halo, stop_row), slice(col - halo, stop_col)


@dataclass(frozen=True)
class Way:
    """A way to run a part of the model.

    Attributes:
        name: For people.
        run: Gives seconds a pixel.
    """

    name: str
    run: Callable[[Sample], float]


def fastest_network(sample: Sample) -> Way:
    """The tile size at which the network alone is fastest."""
    return _fastest(
        sample, [Way(f"tiles of {side}", partial(Sample.network, side=side)) for side in SIDES]
    )


def fastest_model(sample: Sample) -> Way:
    """The way in which the whole model is fastest."""
    runs = {"halo transformed again": Sample.tilewise, "transformed once": Sample.stepwise}
    ways = [
        Way(f"tiles of {side}, {name}", partial(run, side=side))
        for name, run in runs.items()
        for side in SIDES
    ]
    return _fastest(sample, ways)


def _fastest(sample: Sample, ways: Sequence[Way]) -> Way:
    ways[0].run(sample)  # libraries choose their kernels in the first pass
    return min(ways, key=lambda way: way.run(sample))
