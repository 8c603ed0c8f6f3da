import pytest
import torch

from hsiclust.models import pixels
from hsiclust.models.base import Batch
from hsiclust.models.pixels import draw_pools, pairs, thinned


def tile(seed: int = 0, side: int = 12, context: int = 3) -> Batch:
    values = torch.randn(
        1, 2, side + 2 * context, side + 2 * context, generator=torch.Generator().manual_seed(seed)
    )
    return Batch(values, torch.ones(1, side, side, dtype=torch.bool))


def test_a_large_sample_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [tile(seed) for seed in range(9)]
    assert [id(one) for one in thinned(tiles)] == [id(one) for one in tiles]
    monkeypatch.setattr(pixels, "_STUDY_PIXELS", 3 * 12 * 12)
    assert [id(one) for one in thinned(tiles)] == [id(tiles[n]) for n in (0, 3, 6)]


def test_pools_hold_the_medians_of_the_same_pixels() -> None:
    tiles = [tile(seed) for seed in range(2)]
    tiles[1].fit[0, :, 4:] = False
    found = draw_pools(tiles, [1, 5], torch.Generator().manual_seed(0))
    assert found[1].shape == found[5].shape == (12 * 12 + 12 * 4, 2)
    expected = {
        tuple(values[:, row + 3, col + 3].tolist()): values[:, row + 1 : row + 6, col + 1 : col + 6]
        .flatten(1)
        .median(dim=1)
        .values
        for values, fit in ((one.values[0], one.fit[0]) for one in tiles)
        for row, col in torch.nonzero(fit).tolist()
    }
    for pixel, median in zip(found[1], found[5], strict=True):
        assert torch.equal(median, expected.pop(tuple(pixel.tolist())))


def test_pairs_lie_a_lag_apart() -> None:
    values = torch.arange(12).view(1, 3, 4)
    fit = torch.ones(3, 4, dtype=torch.bool)
    fit[0, 1] = False
    down, across = (torch.cat(both).tolist() for both in pairs(values, fit, 2))
    assert down == [[8, 10, 11], [0, 2, 3]]
    assert across == [[2, 6, 7, 10, 11], [0, 4, 5, 8, 9]]
