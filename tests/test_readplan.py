from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.errors import UsageError
from hsiclust.grid import Window
from hsiclust.readplan import ReadPlan
from hsiclust.tilegrid import TileGrid


@st.composite
def plans(draw: st.DrawFn) -> ReadPlan:
    rows, cols = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    scene = Window(0, 0, rows, cols)
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    area = Window(top, left, draw(st.integers(1, rows - top)), draw(st.integers(1, cols - left)))
    tiles = TileGrid(
        scene,
        area,
        draw(st.integers(1, 40)),
        draw(st.integers(1, 40)),
        draw(st.integers(0, 12)),
    )
    return ReadPlan.of(tiles, draw(st.integers(1, 5)), draw(st.integers(1, 30)))


@given(plans())
def test_every_tile_is_in_one_strip(plan: ReadPlan) -> None:
    tiles = [tile for strip in range(len(plan)) for tile in plan.tiles_of(strip)]
    assert sorted(tiles) == list(range(len(plan.tiles)))
    for strip in range(len(plan)):
        assert plan.strips_of(list(plan.tiles_of(strip))) == [strip]
    assert plan.strips_of(list(range(len(plan.tiles)))) == list(range(len(plan)))


@given(plans())
def test_the_steps_of_a_strip_hold_all_that_its_tiles_read(plan: ReadPlan) -> None:
    for strip in range(len(plan)):
        steps = [plan.step(number) for number in plan.steps_of(strip)]
        for above, below in pairwise(steps):
            assert above.row_stop == below.row
        for tile in plan.tiles_of(strip):
            read = plan.tiles[tile].read
            assert steps[0].row <= read.row
            assert steps[0].row_stop > read.row  # and no step is there in vain
            assert steps[-1].row_stop >= read.row_stop
            assert steps[-1].row < read.row_stop
            for step in steps:
                assert step.col <= read.col
                assert step.col_stop >= read.col_stop


@given(plans())
def test_steps_read_each_pixel_of_a_panel_once(plan: ReadPlan) -> None:
    down = plan.count // plan.panels
    for panel in range(plan.panels):
        steps = [plan.step(panel * down + place) for place in range(down)]
        reads = [tile.read for tile in plan.tiles]
        assert steps[0].row == min(read.row for read in reads)
        assert steps[-1].row_stop == max(read.row_stop for read in reads)
        for above, below in pairwise(steps):
            assert (above.row_stop, above.col, above.cols) == (below.row, below.col, below.cols)
    for step in range(plan.count):
        users = [strip for strip in range(len(plan)) if step in plan.steps_of(strip)]
        assert users == list(plan.users_of(step))
        assert users


def test_what_is_read_of_a_huge_scene_is_told_at_once() -> None:
    whole = Window(0, 0, 10**9, 10**9)
    plan = ReadPlan.of(TileGrid(whole, whole, 128, 128, 7), 1000, 1)
    inner = -(-(10**9) // 128000) - 1  # edges between panels, read from both sides
    assert plan.pixels_read() == 10**18 + 10**9 * 14 * inner
    assert plan.largest == (128, 128014)


@given(plans(), st.integers(1, 30))
def test_steps_end_where_blocks_do(plan: ReadPlan, block: int) -> None:
    plan = ReadPlan.of(plan.tiles, plan.panel, block)
    bottom = max(tile.read.row_stop for tile in plan.tiles)
    for number in range(plan.count):
        stop = plan.step(number).row_stop
        assert stop % block == 0 or stop == bottom


@given(plans(), st.integers(1, 30), st.integers(1, 30))
def test_what_is_read_is_what_the_steps_read(plan: ReadPlan, block: int, width: int) -> None:
    steps = [plan.step(number) for number in range(plan.count)]
    assert plan.pixels_read() == sum(step.pixels for step in steps)
    assert plan.largest == (max(s.rows for s in steps), max(s.cols for s in steps))
    tiles = plan.tiles
    whole = ReadPlan.of(tiles, plan.panel, block)
    rows, cols = tiles.scene.rows, tiles.scene.cols
    read = 0
    for number in range(whole.count):
        step = whole.step(number)
        low, left = step.row // block * block, step.col // width * width
        stop = min(-(-step.row_stop // block) * block, rows)
        right = min(-(-step.col_stop // width) * width, cols)
        read += (stop - low) * (right - left)
    assert whole.pixels_read((block, width)) == read


def test_lines_need_one_new_step_a_strip() -> None:
    scene = Window(0, 0, 1000, 300)
    plan = ReadPlan.of(TileGrid(scene, scene, 100, 300, 7), 1, 1)
    assert [plan.step(number).rows for number in plan.steps_of(3)] == [100, 100]
    assert plan.count == 11
    assert plan.step(0) == Window(0, 0, 7, 300)


def test_plans_that_cannot_be() -> None:
    scene = Window(0, 0, 10, 10)
    tiles = TileGrid(scene, scene, 5, 5, 1)
    with pytest.raises(UsageError, match="panels of 3 of 2"):
        ReadPlan(tiles, 3, 0, 5)
    with pytest.raises(UsageError, match="steps of 0 rows"):
        ReadPlan(tiles, 1, 0, 0)
