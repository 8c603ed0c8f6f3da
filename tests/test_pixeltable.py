import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.models import pixels
from hsiclust.models.base import Batch, Lesson
from hsiclust.models.pixeltable import NOWHERE, UNLABELLED, Neighbours, PixelTable
from hsiclust.models.scalespace import smoothed

CONTEXT = 4


def made(shapes: list[tuple[int, int]], seed: int = 0, labelled: float = 0.2) -> list[Batch]:
    """Tiles whose first component tells each pixel of all from the others."""
    random = torch.Generator().manual_seed(seed)
    tiles, count = [], 0
    for rows, cols in shapes:
        height, width = rows + 2 * CONTEXT, cols + 2 * CONTEXT
        values = torch.randn(1, 2, height, width, generator=random)
        values[0, 0] = torch.arange(count, count + height * width).view(height, width)
        count += height * width
        fit = torch.rand(1, rows, cols, generator=random) < 0.7
        classes = torch.randint(0, 3, (1, rows, cols), generator=random)
        trust = (torch.rand(1, rows, cols, generator=random) < labelled).float()
        tiles.append(Batch(values, fit, Lesson(classes, trust)))
    return tiles


@st.composite
def tiles_of_any_kind(draw: st.DrawFn) -> list[Batch]:
    shapes = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4))
    return made(shapes, draw(st.integers(0, 9)), draw(st.sampled_from([0.0, 0.2, 1.0])))


@given(tiles_of_any_kind())
def test_every_pixel_that_may_be_learned_from_is_a_row(tiles: list[Batch]) -> None:
    table = PixelTable.of(tiles)
    assert table.whole == len(tiles)
    assert len(table) == sum(int(tile.fit.sum()) for tile in tiles)
    for row, (at, y, x) in enumerate(table.places.tolist()):
        tile = tiles[table.numbers[at]]
        assert bool(tile.fit[0, y, x])
        assert int(table.rows[at][y, x]) == row
        assert tile.lesson is not None
        known = bool(tile.lesson.trust[0, y, x] > 0)
        assert int(table.classes[row]) == (int(tile.lesson.classes[0, y, x]) if known else -1)
    for rows, tile in zip(table.rows, tiles, strict=True):
        assert torch.equal(rows == NOWHERE, ~tile.fit[0])
    assert torch.equal(table.labelled, torch.nonzero(table.classes != UNLABELLED)[:, 0])


def test_features_are_those_of_the_places() -> None:
    tiles = made([(6, 9), (8, 5)])
    table = PixelTable.of(tiles)
    found = table.features(lambda values: values, 0)
    smooth = table.features(lambda values: smoothed(values, 1.0), 3)
    assert found.shape == smooth.shape == (len(table), 2)
    for row, (at, y, x) in enumerate(table.places.tolist()):
        values = tiles[at].values
        assert torch.equal(found[row], values[0, :, y + CONTEXT, x + CONTEXT])
        around = values[:, :, y + 1 : y + 8, x + 1 : x + 8]
        torch.testing.assert_close(smooth[row], smoothed(around, 1.0)[0, :, 0, 0])


def test_labels_of_tiles_that_are_thinned_out_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = made([(8, 8)] * 9, labelled=0.1)
    lesson = tiles[4].lesson
    assert lesson is not None
    lesson.trust.zero_()
    monkeypatch.setattr(pixels, "_STUDY_PIXELS", sum(int(t.fit.sum()) for t in tiles) // 3)
    table = PixelTable.of(tiles)
    whole = table.numbers[: table.whole]
    assert 1 <= table.whole < 9
    assert 4 not in table.numbers[table.whole :]
    for at, number in enumerate(table.numbers):
        tile = tiles[number]
        assert tile.lesson is not None
        labelled = tile.fit[0] & (tile.lesson.trust[0] > 0)
        wanted = tile.fit[0] if number in whole else labelled
        assert torch.equal(table.chosen[at], wanted)
    labels = sum(int((t.fit & (t.lesson.trust > 0)).sum()) for t in tiles if t.lesson is not None)
    assert len(table.labelled) == labels > 0


def test_tiles_without_lessons_have_no_labels() -> None:
    tiles = [Batch(tile.values, tile.fit) for tile in made([(5, 5)])]
    table = PixelTable.of(tiles)
    assert len(table.labelled) == 0
    assert len(table) == int(tiles[0].fit.sum())


def test_rows_are_drawn_from_all() -> None:
    table = PixelTable.of(made([(6, 6), (6, 6)]))
    drawn = table.draw(4000, torch.Generator().manual_seed(0))
    assert drawn.shape == (4000,)
    assert drawn.unique().tolist() == list(range(len(table)))


@given(tiles_of_any_kind(), st.integers(1, 5), st.integers(0, 5))
def test_drawn_neighbours_lie_in_the_same_tile_and_within_reach(
    tiles: list[Batch], reach: int, seed: int
) -> None:
    table = PixelTable.of(tiles)
    chosen = torch.arange(len(table)).repeat(3)
    partner = Neighbours(table).drawn(chosen, reach, torch.Generator().manual_seed(seed))
    assert bool((partner >= 0).all())
    here, there = table.places[chosen], table.places[partner]
    assert torch.equal(here[:, 0], there[:, 0])
    assert int((here[:, 1:] - there[:, 1:]).abs().max() if len(chosen) else 0) <= reach


def test_neighbours_are_where_they_are_sought() -> None:
    tiles = made([(6, 9), (8, 5)])
    table = PixelTable.of(tiles)
    random = np.random.default_rng(0)
    shifts = torch.from_numpy(random.integers(-3, 4, (len(table), 2)))
    found = Neighbours(table).at(torch.arange(len(table)), shifts).tolist()
    places, ends = table.places.tolist(), 0
    for row, ((at, y, x), (down, across)) in enumerate(zip(places, shifts.tolist(), strict=True)):
        rows, cols = table.rows[at].shape
        there = min(max(y + down, 0), rows - 1), min(max(x + across, 0), cols - 1)
        ends += there != (y + down, x + across)
        assert found[row] == int(table.rows[at][there])
    assert ends > 10
    assert NOWHERE in found
