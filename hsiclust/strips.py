"""Strips of a scene: what is read is kept until the tiles around it have used it.

One `SceneStrips` serves all threads of a process. Each step of the read plan is read by the threads
that need it, part by part: none waits while there is something left to read. Tiles are labelled in
blocks, which are cut from the steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from hsiclust.clock import Clock
from hsiclust.components import Components, SceneComponents
from hsiclust.devices import own_stream
from hsiclust.grid import Window
from hsiclust.readplan import ReadPlan
from hsiclust.tilegrid import Tile, TileGrid, even_tile_size, pad_reflect_rows, reflect_indices
from hsiclust.tiles import TileStore

# The system is told so many steps ahead what will be read. Where a step is 200 stretches of a file
# (BSQ), telling it of four delays those that read now: 3 % of a labelling from a cold disk.
_READ_AHEAD = 2
# Steps that are kept, beside one a thread, although no strip is at work on them: where an earlier
# run has labelled some strips, nobody comes to use theirs.
_KEPT = 1


_Part = tuple[Window, Components]


class Strip(Protocol):
    """A row of tiles, read."""

    def blocks(self, tile: Tile, side: int) -> Iterable[Tile]:
        """The blocks that a tile is labelled in, each no larger than a square of this side."""
        ...

    def read(self, block: Tile) -> Components:
        """A block with its halo."""
        ...


class StripSource(Protocol):
    """Whatever gives strips, to any thread."""

    def open(self, strip: int, clock: Clock) -> AbstractContextManager[Strip]:
        """A strip by its number."""
        ...


@dataclass
class _Step:
    """A step that is being read, or has been.

    Attributes:
        todo: Parts of it that nobody has begun to read.
        unread: Number of parts that are not read yet.
        left: Strips that have not yet used it.
        users: Strips that are at work on it.
        room: Where its components go, from the first part on.
        found: Its components, to come.
    """

    todo: deque[Window]
    unread: int
    left: int
    users: int = 0
    room: Components | None = None
    found: Future[Components] = field(default_factory=Future)


class SceneStrips:
    """The steps of a read plan, each read once.

    Args:
        source: What is read.
        plan: In which steps.
        threads: Strips that are at work at the same time.
        passing: Whether the system is told that it need not keep what has been read.
    """

    def __init__(
        self, source: SceneComponents, plan: ReadPlan, threads: int, *, passing: bool = False
    ) -> None:
        self.source = source
        self.plan = plan
        self.threads = threads
        self.passing = passing
        # Above each step there is room for what the strip below its first row needs of the last.
        self._head = 2 * plan.tiles.halo
        self._steps: dict[int, _Step] = {}
        self._rooms: list[Components] = []
        self._lock = threading.Lock()

    @contextmanager
    def open(self, strip: int, clock: Clock) -> Iterator[SceneStrip]:
        """What a strip needs, read where no other strip has read it.

        Raises:
            InputError: The scene cannot be read there.
        """
        numbers = self.plan.steps_of(strip)
        steps = self._use(numbers)
        try:
            for number, step in steps.items():
                self._read(number, step, clock)
            top = self.plan.tiles[self.plan.tiles_of(strip)[0]].read.row
            parts = [(self._held(number), step.found.result()) for number, step in steps.items()]
            with clock.during("computing"):
                parts = self._joined(parts, top)
            yield SceneStrip(parts, self.source.grid.window, self.plan.tiles.halo)
        finally:
            self._release(steps)

    def _joined(self, parts: list[_Part], top: int) -> list[_Part]:
        """Steps without the room above them; two of them as one, where that room is enough.

        Then blocks are views, and no block has to be put together from two steps.
        """
        (window, lower), head = parts[-1], self._head
        above = window.row - top
        if len(parts) == 2 and above <= min(head, parts[0][0].rows):
            upper = parts[0][1]
            lower.values[:, head - above : head] = upper.values[:, -above:]
            lower.valid[head - above : head] = upper.valid[-above:]
            whole = Window(top, window.col, above + window.rows, window.cols)
            return [(whole, lower.below(head - above))]
        return [(window, found.below(head)) for window, found in parts]

    def _use(self, numbers: Sequence[int]) -> dict[int, _Step]:
        """The steps of these numbers, which nobody forgets until they are released."""
        with self._lock:
            for number in numbers:
                if number not in self._steps:
                    parts = self.source.parts(self.plan.step(number))
                    users = len(self.plan.users_of(number))
                    self._steps[number] = _Step(deque(parts), len(parts), users)
                self._steps[number].users += 1
            return {number: self._steps[number] for number in numbers}

    def _read(self, number: int, step: _Step, clock: Clock) -> None:
        """Read what nobody else reads of a step; where that fails, all fail that need the step."""
        try:
            while (taken := self._take(number, step)) is not None:
                part, room = taken
                rows, cols = part.relative_to(self._held(number)).slices
                with own_stream(self.source.device):  # others use it from their own
                    self.source.fill(room.below(self._head).at(rows, cols), part, clock)
                self._count(number, step, room, clock)
        except BaseException as error:
            with self._lock:
                if not step.found.done():
                    step.found.set_exception(error)
                # Whoever comes from now on begins anew, although others may still be reading parts.
                if self._steps.get(number) is step:
                    del self._steps[number]
            raise

    def _take(self, number: int, step: _Step) -> tuple[Window, Components] | None:
        """The next part of a step, and where it goes; None when others have begun the last."""
        with self._lock:
            if not step.todo or step.found.done():
                return None
            part, room, first = step.todo.popleft(), step.room, step.room is None
            if room is None:
                held = self._held(number)
                room = step.room = self._room(self._head + held.rows, held.cols)
        # The system reads on while this step is worked on.
        if first and number + _READ_AHEAD < self.plan.count:
            self.source.scene.prefetch(self.plan.step(number + _READ_AHEAD))
        return part, room

    def _count(self, number: int, step: _Step, room: Components, clock: Clock) -> None:
        """Count a part as read; with the last one the step is whole."""
        with self._lock:
            step.unread -= 1
            if step.unread or step.found.done():
                return
        if self.passing:
            self.source.scene.release(self.plan.step(number))
        with own_stream(self.source.device), clock.during("computing"):
            self._mirror(room.below(self._head), self._held(number))
        step.found.set_result(room)

    def _release(self, steps: Mapping[int, _Step]) -> None:
        """Use these steps no longer, and forget those that nobody will ask for."""
        with self._lock:
            for step in steps.values():
                step.users -= 1
                step.left -= 1
            idle = sorted(number for number, step in self._steps.items() if step.users == 0)
            for number in idle:
                step = self._steps[number]
                # What was not read to its end, because another step failed, is to be read again.
                if step.left <= 0 or not step.found.done():
                    self._forget(number)
            kept = [number for number in idle if number in self._steps]
            for number in kept[: -self.threads - _KEPT]:
                self._forget(number)
            if not self._steps:  # the end of a run; the next one may be of another scene
                self._rooms.clear()

    def _forget(self, number: int) -> None:
        step = self._steps.pop(number)
        if step.room is not None:
            self._rooms = [step.room]  # one is enough: a step is begun when another has been used

    def _room(self, rows: int, cols: int) -> Components:
        """Memory of a step that is forgotten, or new: the system gives it page by page."""
        for place, room in enumerate(self._rooms):
            if room.valid.shape == (rows, cols):
                return self._rooms.pop(place)
        self._rooms.clear()  # of another shape, at the edges of a scene or panel
        return self.source.room(rows, cols)

    def _held(self, number: int) -> Window:
        """The window of a step as it is kept: with a halo at both sides."""
        step, halo = self.plan.step(number), self.plan.tiles.halo
        return Window(step.row, step.col - halo, step.rows, step.cols + 2 * halo)

    def _mirror(self, room: Components, held: Window) -> None:
        """Continue a step by reflection where the scene ends beside it.

        Done once a step, so that a block at the side is a view like any other.
        """
        halo, scene = self.plan.tiles.halo, self.source.grid.window
        for edge in (slice(0, halo), slice(held.cols - halo, held.cols)):
            start, stop = (held.col - scene.col + place for place in (edge.start, edge.stop))
            if start < 0 or stop > scene.cols:
                mirrored = reflect_indices(start, stop, scene.cols) - held.col + scene.col
                room.values[:, :, edge] = room.values[:, :, mirrored]
                room.valid[:, edge] = room.valid[:, mirrored]


@dataclass(frozen=True)
class SceneStrip:
    """The steps that a strip needs, one below the other.

    Attributes:
        parts: Each with its window.
        scene: The window of the whole scene.
        halo: Pixels around a block.
    """

    parts: Sequence[_Part]
    scene: Window
    halo: int

    def blocks(self, tile: Tile, side: int) -> Iterable[Tile]:
        """Blocks of nearly equal size: a narrow last one would be mostly halo.

        Where a tile is low they are wide instead, and where it is narrow they are high, with no
        more pixels than a square.
        """
        edges = 2 * self.halo
        narrow = min(side, tile.core.cols)
        rows = even_tile_size(tile.core.rows, (side + edges) ** 2 // (narrow + edges) - edges)
        cols = (side + edges) ** 2 // (rows + edges) - edges
        cols = even_tile_size(tile.core.cols, cols)
        return TileGrid(self.scene, tile.core, rows, cols, self.halo)

    def read(self, block: Tile) -> Components:
        """A part of the strip with its halo; a view of the step where one step holds it."""
        read, pad = block.read, block.pad
        left, width = read.col - pad.left, pad.left + read.cols + pad.right
        values, valid = [], []
        for window, found in self.parts:
            top, bottom = max(read.row, window.row), min(read.row_stop, window.row_stop)
            if top < bottom:
                part = Window(top, left, bottom - top, width)
                rows, cols = part.relative_to(window).slices
                values.append(found.values[:, rows, cols].movedim(0, -1))
                valid.append(found.valid[rows, cols])
        return Components(
            pad_reflect_rows(_stacked(values).movedim(-1, 0), block, self.scene),
            pad_reflect_rows(_stacked(valid), block, self.scene),
        )


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


@dataclass(frozen=True)
class StoredStrips:
    """Tiles of a tile store, each a strip and a block of its own.

    Attributes:
        store: The tile store.
        plan: With panels of one tile.
        halo: Pixels around a block; what the store holds beyond is cut.
    """

    store: TileStore
    plan: ReadPlan
    halo: int

    @contextmanager
    def open(self, strip: int, clock: Clock) -> Iterator[StoredStrip]:
        """The tile of a strip."""
        (number,) = self.plan.tiles_of(strip)
        with clock.during("reading"):
            found = self.store.read(self.store.tiles[number])
        yield StoredStrip(found.trimmed(self.store.tiles.halo - self.halo))


@dataclass(frozen=True)
class StoredStrip:
    """A tile of a tile store."""

    components: Components

    def blocks(self, tile: Tile, side: int) -> Iterable[Tile]:  # noqa: ARG002
        """The tile."""
        return [tile]

    def read(self, block: Tile) -> Components:  # noqa: ARG002
        """The tile with its halo."""
        return self.components
