"""The parts of labelling by themselves, on data in memory: the network, and the whole model.

This is the one module of the benchmarks of `predict` that knows what a model is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, product, repeat
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.scenes import AXES, Order
from hsiclust.labeller import TorchLabeller
from hsiclust.modelfile import FittedModel, load_model
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc
from hsiclust.threads import work_alone

SIDES: Final = (64, 96, 128, 192, 256, 384)
_STRIP = 16  # rows that are transformed at once where no tile asks for more
_TRIED = 2  # passes that show which way is the fastest

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
        self.network = TorchLabeller(self.model.method, torch.device("cpu")).network
        self._pool = ThreadPoolExecutor(threads, initializer=work_alone)

    def transform(self, raw: torch.Tensor) -> torch.Tensor:
        """Spectra `(B, row, col)` to components `(C, row, col)`."""
        return self.model.labelling_transform.apply(
            raw, torch.ones(raw.shape[1:], dtype=torch.bool)
        )

    def label(self, components: torch.Tensor) -> torch.Tensor:
        """Components `(C, row, col)` to class numbers, without the halo, uint8."""
        with torch.inference_mode():
            values = components.movedim(0, -1)[None].contiguous().movedim(-1, 1)
            scores: torch.Tensor = self.network(values)[0]
            return (scores.max(dim=0).indices + 1).to(torch.uint8)  # as predict does it

    def seconds(
        self, work: Callable[[Piece], object], pieces: Sequence[Piece], passes: int
    ) -> float:
        """Seconds for all pieces, so many times; no thread waits between two passes."""
        begin = perf_counter()
        for _ in self._pool.map(work, chain.from_iterable(repeat(pieces, passes))):
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

    def network(self, passes: int, side: int) -> float:
        """Seconds of so many passes: the network on components, tile by tile."""
        tiles = list(self._tiles(side))
        components = self.components
        label = self.alone.label
        return self.alone.seconds(lambda at: label(components[:, *at]), tiles, passes)

    def tilewise(self, passes: int, side: int) -> float:
        """Seconds: transform and network, tile by tile, the halo transformed again."""
        tiles = list(self._tiles(side))
        raw, alone = self.raw, self.alone
        return alone.seconds(lambda at: alone.label(alone.transform(raw[:, *at])), tiles, passes)

    def stepwise(self, passes: int, side: int) -> float:
        """Seconds: every pixel transformed once, then the network tile by tile."""
        rows = self.raw.shape[1]
        strips = [(slice(at, at + _STRIP), slice(None)) for at in range(0, rows, _STRIP)]
        components = self._room
        raw, alone = self.raw, self.alone

        def transform(at: Piece) -> None:
            components[:, *at] = alone.transform(raw[:, *at])

        label, tiles = alone.label, list(self._tiles(side))
        spent = alone.seconds(transform, strips, passes)
        return spent + alone.seconds(lambda at: label(components[:, *at]), tiles, passes)

    @cached_property
    def _room(self) -> torch.Tensor:
        """Memory for components that the kernel has given already."""
        return torch.zeros_like(self.components)

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
        run: Gives the seconds of so many passes over a sample.
    """

    name: str
    run: Callable[[Sample, int], float]

    def seconds(self, sample: Sample, pixels: int) -> float:
        """For so many pixels, the sample again and again.

        A tenth of a scene would find a shared machine at its best or at its worst, and tell nothing
        of what it does in the time that a labelling takes.
        """
        passes = -(-pixels // sample.pixels)
        return self.run(sample, passes) * pixels / (passes * sample.pixels)


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
    ways[0].run(sample, 1)  # libraries choose their kernels in the first pass
    return min(ways, key=lambda way: way.run(sample, _TRIED))


class Clock:
    """When a device computes: spans of time that may overlap, counted once.

    Args:
        device: "cpu", or a CUDA device, whose own clock is read.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []
        self._origin = self.now()

    def now(self) -> Any:
        """A moment: on a GPU the one at which it has done what it was given until now."""
        if not self._cuda:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, begin: Any, end: Any) -> None:
        """Count what lies between two moments."""
        self._spans.append((begin, end))

    @property
    def seconds(self) -> float:
        """Of all spans."""
        if self._cuda:
            torch.cuda.synchronize()
        total = reached = 0.0
        for begin, end in sorted((self._since(a), self._since(b)) for a, b in self._spans):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total

    def _since(self, moment: Any) -> float:
        """Seconds since the clock was made."""
        if self._cuda:
            return float(self._origin.elapsed_time(moment)) / 1000
        return float(moment - self._origin)


class Clocked(nn.Module):
    """A network under a clock."""

    def __init__(self, network: nn.Module, clock: Clock) -> None:
        super().__init__()
        self.network, self.clock = network, clock

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The network's."""
        begin = self.clock.now()
        scores: torch.Tensor = self.network(values)
        self.clock.add(begin, self.clock.now())
        return scores


def fresh_network(settings: SsccConfig, components: int, classes: int) -> nn.Module:
    """A network as it labels, with random weights: they do not change its speed."""
    return Sscc(components, classes, replace(settings, partitions=0)).settled()


def put_under(clock: Clock) -> None:
    """Put every SSCC network that this process makes ready from now on under a clock."""
    plain = Sscc.settled

    def clocked(self: Sscc) -> nn.Module:
        return Clocked(plain(self), clock)

    Sscc.settled = clocked  # type: ignore[method-assign]
