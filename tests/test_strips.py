"""Each step is read once, whoever needs it; what fails is read again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hsiclust.clock import Clock
from hsiclust.components import Components
from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid, Window
from hsiclust.readplan import ReadPlan
from hsiclust.strips import SceneStrips
from hsiclust.tilegrid import TileGrid

ROWS, COLS = 83, 41
PART = 7  # rows of a part of a step
GROUND = np.random.default_rng(0).normal(size=(3, ROWS, COLS)).astype(np.float32)


@dataclass
class FakeScene:
    """Asked to read ahead, or to keep no longer, it remembers what."""

    ahead: list[Window] = field(default_factory=list)
    released: list[Window] = field(default_factory=list)

    def prefetch(self, window: Window) -> None:
        self.ahead.append(window)

    def release(self, window: Window) -> None:
        self.released.append(window)


@dataclass
class FakeSource:
    """Components without a file; counts how often each pixel is read."""

    scene: FakeScene = field(default_factory=FakeScene)
    grid: PixelGrid = field(default_factory=lambda: PixelGrid(ROWS, COLS))
    reads: NDArray[np.int64] = field(default_factory=lambda: np.zeros((ROWS, COLS), np.int64))
    failing: set[int] = field(default_factory=set)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def parts(self, window: Window) -> list[Window]:
        return list(window.cut(PART, COLS))

    def room(self, rows: int, cols: int) -> Components:
        return Components(torch.full((3, rows, cols), torch.nan), torch.zeros(rows, cols).bool())

    def fill(self, room: Components, window: Window, clock: Clock) -> None:
        if window.row in self.failing:
            self.failing.remove(window.row)
            raise InputError(f"rows from {window.row} on cannot be read")
        with self.lock:
            self.reads[window.slices] += 1
        values = GROUND[:, *window.slices]
        room.values[:] = torch.from_numpy(values)
        room.valid[:] = torch.from_numpy(values[0] > -1)


def plan_of(rows: int = 10, cols: int = 41, panel: int = 1, block: int = 1) -> ReadPlan:
    scene = Window(0, 0, ROWS, COLS)
    return ReadPlan.of(TileGrid(scene, scene, rows, cols, 4), panel, block)


def strips_of(source: FakeSource, plan: ReadPlan, threads: int = 1) -> SceneStrips:
    return SceneStrips(source, plan, threads)  # type: ignore[arg-type]


def check_strip(strips: SceneStrips, plan: ReadPlan, index: int) -> None:
    """All blocks of a strip hold the ground, reflected at its edges."""
    padded = np.pad(GROUND, ((0, 0), (4, 4), (4, 4)), mode="reflect")
    with strips.open(index, Clock()) as strip:
        for number in plan.tiles_of(index):
            for block in strip.blocks(plan.tiles[number], 16):
                found = strip.read(block)
                core = block.core
                expected = padded[:, core.row : core.row_stop + 8, core.col : core.col_stop + 8]
                assert np.array_equal(found.values.numpy(), expected)
                assert np.array_equal(found.valid.numpy(), expected[0] > -1)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("block", [1, 3, 16, 50])
def test_each_pixel_is_read_once(threads: int, block: int) -> None:
    source, plan = FakeSource(), plan_of(block=block)
    strips = strips_of(source, plan, threads=threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda index: check_strip(strips, plan, index), range(len(plan))))
    assert (source.reads == 1).all()


def test_low_tiles_are_labelled_in_wide_blocks() -> None:
    plan = plan_of(rows=4)
    with strips_of(FakeSource(), plan).open(1, Clock()) as strip:
        blocks = list(strip.blocks(plan.tiles[1], 12))
    assert [(block.core.rows, block.core.cols) for block in blocks] == [(4, 21), (4, 20)]
    assert sum(block.core.cols for block in blocks) == COLS
    assert all((b.core.rows + 8) * (b.core.cols + 8) <= (12 + 8) ** 2 for b in blocks)


def test_panels_share_only_their_halo() -> None:
    source, plan = FakeSource(), plan_of(cols=9, panel=2)
    strips = strips_of(source, plan)
    for index in range(len(plan)):
        check_strip(strips, plan, index)
    assert source.reads.max() == 2
    assert (source.reads[:, :14] == 1).all()  # 18 columns of the first panel, less a halo
    assert (source.reads[:, 14:22] == 2).all()


def test_few_steps_are_kept() -> None:
    source, plan = FakeSource(), plan_of()
    strips = strips_of(source, plan)
    for index in range(len(plan)):
        check_strip(strips, plan, index)
        assert len(strips._steps) <= 1
    assert not strips._steps
    assert not strips._rooms


def test_what_nobody_comes_to_use_is_forgotten() -> None:
    """Every third strip only: the others were labelled before."""
    source, plan = FakeSource(), plan_of()
    strips = strips_of(source, plan)
    for index in range(0, len(plan), 3):
        check_strip(strips, plan, index)
        assert len(strips._steps) <= 2


def test_what_comes_is_told_ahead() -> None:
    source, plan = FakeSource(), plan_of()
    strips = strips_of(source, plan)
    check_strip(strips, plan, 0)
    assert source.scene.ahead == [plan.step(2), plan.step(3)]


@pytest.mark.parametrize("passing", [False, True])
def test_the_system_need_not_keep_what_has_been_read(passing: bool) -> None:
    source, plan = FakeSource(), plan_of()
    strips = SceneStrips(source, plan, 1, passing=passing)  # type: ignore[arg-type]
    for index in range(len(plan)):
        check_strip(strips, plan, index)
    steps = [plan.step(number) for number in range(plan.count)]
    assert source.scene.released == (steps if passing else [])


def test_a_step_that_fails_is_read_again() -> None:
    plan = plan_of()
    edge = plan.step(1).row
    source = FakeSource(failing={edge})
    strips = strips_of(source, plan)
    with pytest.raises(InputError, match=f"rows from {edge} on"):
        check_strip(strips, plan, 0)
    check_strip(strips, plan, 0)


def test_who_needs_a_step_that_was_given_up_reads_it() -> None:
    """Two steps of one thread's, of which the first fails before the second is begun."""
    plan = plan_of()
    source = FakeSource(failing={plan.step(0).row})
    strips = strips_of(source, plan)
    with pytest.raises(InputError), strips.open(0, Clock()):
        pass
    assert not strips._steps
    with ThreadPoolExecutor(1) as pool:
        pool.submit(check_strip, strips, plan, 1).result(timeout=20)


def test_a_step_is_read_by_all_who_need_it() -> None:
    """Two strips that need the same step: each reads parts of it, at the same time."""
    plan, together = plan_of(), threading.Barrier(2, timeout=20)

    class Slow(FakeSource):
        def fill(self, room: Components, window: Window, clock: Clock) -> None:
            if plan.step(1).contains(window):
                together.wait()  # until two threads are here
            super().fill(room, window, clock)

    source = Slow()
    strips = strips_of(source, plan, threads=2)
    assert len(source.parts(plan.step(1))) == 2
    assert {0, 1} <= set(plan.users_of(1))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda index: check_strip(strips, plan, index), (0, 1)))
    assert source.reads[: plan.step(1).row_stop].max() == 1


def test_a_part_that_fails_fails_all_who_wait() -> None:
    """One reads a part, and is still at it when the other's fails and is tried again."""
    plan, begun, failed, again = plan_of(), *(threading.Event() for _ in range(3))

    class Torn(FakeSource):
        def fill(self, room: Components, window: Window, clock: Clock) -> None:
            if window.row == plan.step(1).row and not begun.is_set():
                begun.set()
                assert again.wait(20)
            elif window.row == PART and not failed.is_set():
                failed.set()
                raise InputError("torn")
            super().fill(room, window, clock)

    source = Torn()
    strips = strips_of(source, plan, threads=2)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(check_strip, strips, plan, 0)
        assert begun.wait(20)
        with pytest.raises(InputError, match="torn"):
            check_strip(strips, plan, 1)
        check_strip(strips, plan, 1)
        again.set()
        assert str(slow.exception(timeout=20)) == "torn"
    for index in range(len(plan)):
        check_strip(strips, plan, index)
