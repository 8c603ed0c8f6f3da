import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.grid import Window
from hsiclust.marks import Marks
from hsiclust.tilechoice import Shares, labelled_tiles, spread_tiles, tiles_to_score
from hsiclust.tilegrid import TileGrid
from hsiclust.truth import Mask

WHOLE = Window(0, 0, 60, 80)
TILES = TileGrid(WHOLE, WHOLE, 10, 10, 2)  # 6 x 8


def marked(*pixels: tuple[int, int, int]) -> Marks:
    rows, cols, numbers = (np.array(column) for column in zip(*sorted(pixels), strict=True))
    return Marks(rows, cols, numbers.astype(np.uint16))


@given(
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(0, 79), st.integers(1, 4)),
        min_size=1,
        unique_by=lambda pixel: pixel[:2],
    ),
    st.integers(1, 6000),
)
def test_labelled_tiles_hold_labels(pixels: list[tuple[int, int, int]], most: int) -> None:
    holding = {row // 10 * 8 + col // 10 for row, col, _ in pixels}
    found = labelled_tiles(TILES, marked(*pixels), most)
    assert found == sorted(found)
    assert set(found) <= holding
    assert len(found) == min(len(holding), max(1, most // 100))


def test_of_labels_those_of_rare_classes_come_first() -> None:
    common = [(row, col, 1) for row in range(10) for col in range(10)]
    marks = marked(*common, *((25, col, 1) for col in range(5)), (55, 75, 2))
    assert labelled_tiles(TILES, marks, 100) == [47]
    assert labelled_tiles(TILES, marks, 200) == [0, 47]
    assert labelled_tiles(TILES, marks, 10**6) == [0, 16, 47]
    nothing = Marks.at(np.empty(0, np.int64), np.empty(0, np.int64))
    assert labelled_tiles(TILES, nothing, 100) == []


def test_tiles_to_score_hold_labels_and_are_drawn() -> None:
    holding = [3, 9, 20, 33, 41, 47]
    marks = marked(*((tile // 8 * 10 + 4, tile % 8 * 10 + 9, 1) for tile in holding))
    assert tiles_to_score(TILES, marks, 10**6, 0) == holding
    drawn = {seed: tuple(tiles_to_score(TILES, marks, 300, seed)) for seed in range(20)}
    assert all(len(found) == 3 and set(found) <= set(holding) for found in drawn.values())
    assert len(set(drawn.values())) > 5
    assert tuple(tiles_to_score(TILES, marks, 300, 7)) == drawn[7]


@given(st.integers(1, 6000), st.integers(0, 5))
def test_spread_tiles_come_one_from_each_stretch(pixels: int, seed: int) -> None:
    found = spread_tiles(TILES, range(48), pixels, None, seed)
    count = min(48, max(1, pixels // 100))
    assert len(found) == count
    assert found == sorted(set(found))
    edges = np.arange(count + 1) * 48 // count
    assert all(low <= at < high for at, low, high in zip(found, edges, edges[1:], strict=False))


def test_tiles_outside_the_mask_are_not_chosen() -> None:
    mask = Mask(marked((5, 5, 1), (15, 75, 1), (59, 0, 1)))
    assert spread_tiles(TILES, range(48), 10**6, mask, 0) == [0, 15, 40]
    assert spread_tiles(TILES, [15, 16], 10**6, mask, 0) == [15]


@given(st.integers(1, 30_000), st.integers(1, 60), st.integers(0, 5))
def test_scenes_hold_together_what_they_may(pixels: int, scenes: int, seed: int) -> None:
    shares = Shares(pixels, scenes, seed)
    counts = [len(shares.tiles_of(TILES, range(48), None)) for _ in range(scenes)]
    held = 100 * sum(counts)
    if pixels // scenes >= 100:
        assert held <= pixels
        assert shares.without == 0
        return
    assert pixels < held <= pixels + 100
    assert shares.without == counts.count(0)
    apart = np.diff([0, *np.flatnonzero(np.array(counts) > 0)])
    assert apart[0] == 0
    assert len(apart) == 1 or np.ptp(apart[1:]) <= 1  # evenly


def test_what_a_mask_keeps_from_a_scene_the_next_may_give() -> None:
    shares = Shares(10, 2, 0)
    outside = Mask(marked((59, 79, 1)))
    assert shares.tiles_of(TILES, range(8), outside) == []
    assert len(shares.tiles_of(TILES, range(8), None)) == 1
