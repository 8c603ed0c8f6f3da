"""Training batches: random crops of tiles that are held in memory.

What is held is bounded by the training budget, not by the scene; with a dozen components in
float16 a million pixels take about 40 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from hsiclust.errors import InputError
from hsiclust.models.base import Batch, CropShape, Lesson, Method, trimmed
from hsiclust.tiles import TileStore
from hsiclust.truth import Mask, Truth


@dataclass(frozen=True)
class StoredTiles:
    """Tiles of one store to learn from.

    Attributes:
        store: The tile store.
        indices: Which of its tiles.
        mask: Pixels that may be learned from; all valid ones when None.
        labels: Class numbers of labelled pixels, from 1.
    """

    store: TileStore
    indices: Sequence[int]
    mask: Mask | None = None
    labels: Truth | None = None


@dataclass(frozen=True)
class TileStack:
    """Tiles of one store in memory.

    Attributes:
        values: `(T, C, rows, cols)`, float16, halo included.
        fit: `(T, core rows, core cols)`, bool; pixels that may be learned from.
        halo: Pixels around each core.
        lesson: What they are to be learned as, `(T, core rows, core cols)`; None until taught.
    """

    values: Tensor
    fit: Tensor
    halo: int
    lesson: Lesson | None = None

    def tile(self, number: int, context: int) -> Batch:
        """One tile with `context` pixels around its core."""
        one = slice(number, number + 1)
        values = trimmed(self.values[one], self.halo - context).to(torch.float32)
        lesson = None
        if self.lesson is not None:
            trust = self.lesson.trust[one].to(torch.float32)
            lesson = Lesson(self.lesson.classes[one].long(), trust)
        return Batch(values, self.fit[one], lesson)

    def taught(self, method: Method) -> TileStack:
        """The same tiles with what the method's teacher says of them."""
        context = method.crop_shape.context
        lessons = [method.teach(self.tile(n, context).values[0]) for n in range(len(self.fit))]
        given = [lesson for lesson in lessons if lesson is not None]
        if not given:
            return self
        classes = torch.stack([lesson.classes.to(torch.uint8) for lesson in given])
        trust = torch.stack([lesson.trust.to(torch.float16) for lesson in given])
        return replace(self, lesson=Lesson(classes, trust))


class TrainingPixels:
    """All tiles of a training, and the crops drawn from them.

    Args:
        stacks: The tiles of each store.

    Raises:
        InputError: No pixel may be learned from.
    """

    def __init__(self, stacks: Sequence[TileStack]) -> None:
        self.stacks = list(stacks)
        # (pixel, 3): tile, row, col of every pixel that may be learned from
        self._places = [torch.nonzero(stack.fit).to(torch.int32) for stack in self.stacks]
        self._ends = torch.tensor([len(places) for places in self._places]).cumsum(0)
        self.count = _some(sum(len(places) for places in self._places))

    @classmethod
    def load(cls, sources: Sequence[StoredTiles], device: torch.device) -> TrainingPixels:
        """Read stored tiles into the memory of a device.

        Raises:
            InputError: No pixel may be learned from.
        """
        return cls([_stack(source, device) for source in sources if source.indices])

    def tiles(self, context: int) -> list[Batch]:
        """Every tile with `context` pixels around its core."""
        return [
            stack.tile(number, context) for stack in self.stacks for number in range(len(stack.fit))
        ]

    def heed(self, method: Method) -> None:
        """Keep what a method's teacher says of the pixels: crops carry it from now on."""
        with torch.no_grad():
            self.stacks = [stack.taught(method) for stack in self.stacks]

    def draw(self, shape: CropShape, generator: torch.Generator) -> Batch:
        """Crops at random places, each around a pixel that may be learned from."""
        picked = torch.randint(
            self.count, (shape.count,), generator=generator, device=generator.device
        ).cpu()
        offsets = torch.randint(
            shape.outputs, (shape.count, 2), generator=generator, device=generator.device
        ).cpu()
        which = torch.searchsorted(self._ends, picked, right=True)
        crops = [
            self._crop(int(stack), int(pixel), offset, shape)
            for stack, pixel, offset in zip(which, picked, offsets, strict=True)
        ]
        values = torch.stack([crop.values for crop in crops]).to(torch.float32)
        return Batch(values, torch.stack([crop.fit for crop in crops]), _lessons(crops))

    def _crop(self, number: int, pixel: int, offset: Tensor, shape: CropShape) -> Batch:
        """One crop, `(C, side, side)`, and its `(outputs, outputs)` pixels to learn from."""
        stack = self.stacks[number]
        before = int(self._ends[number - 1]) if number else 0
        tile, row, col = self._places[number][pixel - before].tolist()
        rows, cols = stack.fit.shape[1:]
        # The crop's outputs lie within the core, except where the core is smaller than them.
        top = max(0, min(row - int(offset[0]), rows - shape.outputs))
        left = max(0, min(col - int(offset[1]), cols - shape.outputs))
        edge = stack.halo - shape.context
        values = stack.values[
            tile, :, top + edge : top + edge + shape.side, left + edge : left + edge + shape.side
        ]
        core = np.s_[tile, top : top + shape.outputs, left : left + shape.outputs]
        fit, lesson = stack.fit[core], None
        if stack.lesson is not None:
            lesson = Lesson(stack.lesson.classes[core], stack.lesson.trust[core])
        short = (shape.side - values.shape[2], shape.side - values.shape[1])
        missing = (shape.outputs - fit.shape[1], shape.outputs - fit.shape[0])
        if any(short) or any(missing):
            values = pad(values, (0, short[0], 0, short[1]))
            room = (0, missing[0], 0, missing[1])
            fit = pad(fit, room)
            if lesson is not None:
                lesson = Lesson(pad(lesson.classes, room), pad(lesson.trust, room))
        return Batch(values, fit, lesson)


class StreamedPixels:
    """The tiles of a training that learns from what it gathers of them: none stays in memory.

    Args:
        sources: Stored tiles.
        device: Where they are to be.

    Raises:
        InputError: No pixel may be learned from.
    """

    def __init__(self, sources: Sequence[StoredTiles], device: torch.device) -> None:
        self._tiles = StoredBatches(sources, device)
        self.count = _some(sum(int(tile.fit.sum()) for tile in self._tiles))

    def tiles(self, context: int) -> Sequence[Batch]:
        """Every tile with `context` pixels around its core, read whenever it is looked at."""
        return replace(self._tiles, context=context)

    def heed(self, method: Method) -> None:
        """There is no teacher: the tiles carry the user's labels."""

    def draw(self, shape: CropShape, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Nothing: the method draws from what it gathered."""
        return self._tiles[0].none()


@dataclass(frozen=True)
class StoredBatches(Sequence[Batch]):
    """Stored tiles, one at a time.

    Attributes:
        sources: Stored tiles.
        device: Where they are to be.
        context: Pixels around each core; all that are stored when None.
    """

    sources: Sequence[StoredTiles]
    device: torch.device
    context: int | None = None

    def __len__(self) -> int:
        return sum(len(source.indices) for source in self.sources)

    @overload
    def __getitem__(self, number: int) -> Batch: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Batch]: ...

    def __getitem__(self, number: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        for site, source in enumerate(self.sources):
            if number < len(source.indices):
                index = source.indices[number]
                stack = _stack(replace(source, indices=[index]), self.device)
                core = source.store.tiles[index].core
                context = stack.halo if self.context is None else self.context
                return replace(stack.tile(0, context), place=(site, core.row, core.col))
            number -= len(source.indices)
        raise IndexError("there are not that many tiles")


Pixels = TrainingPixels | StreamedPixels


def _some(count: int) -> int:
    """A number of pixels to learn from; raises `InputError` where there are none."""
    if count == 0:
        raise InputError("no valid pixel to learn from: nodata, or a mask that leaves none")
    return count


def _lessons(crops: Sequence[Batch]) -> Lesson | None:
    """The lessons of all crops, `(N, outputs, outputs)`."""
    given = [crop.lesson for crop in crops if crop.lesson is not None]
    if not given:
        return None
    return Lesson(
        torch.stack([lesson.classes for lesson in given]).long(),
        torch.stack([lesson.trust for lesson in given]).to(torch.float32),
    )


def _stack(source: StoredTiles, device: torch.device) -> TileStack:
    store, halo = source.store, source.store.tiles.halo
    values, fit = [], []
    for index in source.indices:
        components, valid = store.read_chunk(index)
        values.append(torch.from_numpy(components))
        fit.append(torch.from_numpy(_fit(source, index, valid)))
    lesson = _labels(source, device)
    return TileStack(torch.stack(values).to(device), torch.stack(fit).to(device), halo, lesson)


def _labels(source: StoredTiles, device: torch.device) -> Lesson | None:
    """The labels of tiles, trusted where there are any."""
    if source.labels is None:
        return None
    tiles = source.store.tiles
    numbers = np.zeros((len(source.indices), tiles.tile_rows, tiles.tile_cols), np.int16)
    for position, index in enumerate(source.indices):
        core = tiles[index].core
        numbers[position, : core.rows, : core.cols] = source.labels.read(core)
    found = torch.from_numpy(numbers).to(device)
    return Lesson((found - 1).clamp_min(0).to(torch.uint8), (found > 0).to(torch.float16))


def _fit(source: StoredTiles, index: int, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a tile's core that may be learned from; the core's unused rest is not."""
    tiles = source.store.tiles
    core = tiles[index].core
    fit = np.zeros((tiles.tile_rows, tiles.tile_cols), bool)
    inner = valid[tiles.halo : tiles.halo + core.rows, tiles.halo : tiles.halo + core.cols]
    fit[: core.rows, : core.cols] = inner if source.mask is None else inner & source.mask.read(core)
    return fit
