import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hsiclust.errors import InputError
from hsiclust.models import pixeltable
from hsiclust.models.base import Batch, Lesson
from hsiclust.models.pixeltable import NOWHERE, UNLABELLED, Neighbours, PixelTable
from hsiclust.models.scalespace import smoothed

CONTEXT = 4


def made(shapes: list[tuple[int, int]], seed: int = 0, labelled: float = 0.2) -> list[Batch]:
    """Tiles whose components are a pixel's tile, row and column, context included."""
    random = torch.Generator().manual_seed(seed)
    tiles = []
    for number, (rows, cols) in enumerate(shapes):
        height, width = rows + 2 * CONTEXT, cols + 2 * CONTEXT
        down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        values = torch.stack([torch.full_like(down, number), down, across])[None].float()
        fit = torch.rand(1, rows, cols, generator=random) < 0.7
        classes = torch.randint(0, 3, (1, rows, cols), generator=random)
        trust = (torch.rand(1, rows, cols, generator=random) < labelled).float()
        tiles.append(Batch(values, fit, Lesson(classes, trust)))
    return tiles


def origins(table: PixelTable) -> list[tuple[int, int, int]]:
    """Tile, row and column in the tile's core of each pixel of a table."""
    found = table.features(lambda values: values, 0).round().long()
    return [(at, y - CONTEXT, x - CONTEXT) for at, y, x in found.tolist()]


def labelled_places(tiles: list[Batch]) -> set[tuple[int, int, int]]:
    return {
        (at, y, x)
        for at, tile in enumerate(tiles)
        if tile.lesson is not None
        for y, x in torch.nonzero(tile.fit[0] & (tile.lesson.trust[0] > 0)).tolist()
    }


@st.composite
def tiles_of_any_kind(draw: st.DrawFn) -> list[Batch]:
    shapes = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4))
    return made(shapes, draw(st.integers(0, 9)), draw(st.sampled_from([0.0, 0.2, 1.0])))


@given(tiles_of_any_kind())
def test_every_pixel_that_may_be_learned_from_is_a_row(tiles: list[Batch]) -> None:
    fits = [(at, y, x) for at, t in enumerate(tiles) for y, x in torch.nonzero(t.fit[0]).tolist()]
    if not fits:
        with pytest.raises(InputError, match="no pixel"):
            PixelTable.of(tiles)
        return
    table = PixelTable.of(tiles)
    assert origins(table) == fits
    for row, (at, y, x) in enumerate(table.places.tolist()):
        assert int(table.rows[at][y, x]) == row
    for row, (at, y, x) in enumerate(origins(table)):
        lesson = tiles[at].lesson
        assert lesson is not None
        known = bool(lesson.trust[0, y, x] > 0)
        assert int(table.classes[row]) == (int(lesson.classes[0, y, x]) if known else -1)
    assert sum(int((rows != NOWHERE).sum()) for rows in table.rows) == len(table)
    assert torch.equal(table.labelled, torch.nonzero(table.classes != UNLABELLED)[:, 0])


def test_features_see_what_lies_around() -> None:
    tiles = made([(6, 9), (8, 5)])
    table = PixelTable.of(tiles)
    smooth = table.features(lambda values: smoothed(values, 1.0), 3)
    assert smooth.shape == (len(table), 3)
    for row, (at, y, x) in enumerate(origins(table)):
        around = tiles[at].values[:, :, y + 1 : y + 8, x + 1 : x + 8]
        torch.testing.assert_close(smooth[row], smoothed(around, 1.0)[0, :, 0, 0])


def test_a_large_training_is_looked_at_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = made([(12, 10)] * 9, labelled=0.05)
    monkeypatch.setattr(pixeltable, "_WINDOW", 4)
    monkeypatch.setattr(pixeltable, "_MOST_PIXELS", 4 * 4 * 3)
    table = PixelTable.of(tiles)
    found, labels = set(origins(table)), labelled_places(tiles)
    assert labels <= found
    assert len(found) == len(table)  # none twice
    windows = {(at, y, x) for at, y, x in found - labels}
    assert {at for at, _, _ in windows} == {0, 3, 6}
    assert all(4 <= y < 8 and 3 <= x < 7 for _, y, x in windows)
    fits = {(at, y, x) for at in (0, 3, 6) for y, x in torch.nonzero(tiles[at].fit[0]).tolist()}
    assert {p for p in fits if 4 <= p[1] < 8 and 3 <= p[2] < 7} <= found
    assert len(table.labelled) == len(labels) > 0


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
    assume(any(bool(tile.fit.any()) for tile in tiles))
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
