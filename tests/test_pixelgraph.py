import numpy as np
import pytest
import torch

from hsiclust.models import pixelgraph
from hsiclust.models.base import Batch
from hsiclust.models.pixelgraph import both, feature_walk, ground_walk, spread
from hsiclust.models.pixeltable import PixelTable


def table_of(*fits: list[list[int]]) -> PixelTable:
    """Pixels of tiles that may be learned from where there is a 1."""
    masks = [torch.tensor(fit, dtype=torch.bool)[None] for fit in fits]
    return PixelTable.of([Batch(torch.zeros(1, 1, *mask.shape[1:]), mask) for mask in masks])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


HOLES = [[1, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
FULL = [[1, 1, 1], [1, 1, 1]]


def test_ground_neighbours_are_those_of_a_brute_force_search() -> None:
    table = table_of(HOLES, FULL)
    features = noise(len(table), 5)
    places = table.places.tolist()
    distance = {}
    for one, (tile, row, col) in enumerate(places):
        for other, (its, down, across) in enumerate(places):
            near = max(abs(row - down), abs(col - across)) == 1
            if one != other and tile == its and near:
                distance[one, other] = float((features[one] - features[other]).square().mean())
    # of an even number of pairs torch takes the lower of the two in the middle
    each = sorted(value for (one, other), value in distance.items() if one < other)
    typical = each[(len(each) - 1) // 2]
    wanted = np.zeros((len(table), len(table)))
    for pair, value in distance.items():
        wanted[pair] = np.exp(-3 * value / typical)
    alone = wanted.sum(axis=1) == 0
    assert alone.sum() == 1  # top right
    wanted[alone, alone] = 1
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ground_walk(table, features).to_dense(), wanted, atol=1e-6)


def test_no_ground_neighbour_lies_in_another_tile() -> None:
    table = table_of(FULL, HOLES, FULL)
    walk = ground_walk(table, torch.zeros(len(table), 2)).to_dense()
    tile = table.places[:, 0]
    assert bool((walk[tile[:, None] != tile[None]] == 0).all())
    assert int((walk > 0).sum()) > len(table)


@pytest.mark.parametrize("kind", ["ground", "features", "both"])
def test_rows_sum_to_1(kind: str) -> None:
    table = table_of(HOLES, FULL, [[1]])
    features = noise(len(table), 4)
    features[3] += 1e4  # far from all: no likeness left
    ground, far = ground_walk(table, features), feature_walk(features)
    walk = {"ground": ground, "features": far, "both": both(ground, far)}[kind].to_dense()
    assert bool((walk >= 0).all())
    torch.testing.assert_close(walk.sum(dim=1), torch.ones(len(table)))


def test_a_pixel_without_neighbours_stays_where_it_is() -> None:
    table = table_of([[1, 0, 1], [0, 0, 0], [1, 0, 1]])
    walk = ground_walk(table, noise(4, 2))
    assert torch.equal(walk.to_dense(), torch.eye(4))


def test_feature_neighbours_are_those_of_a_brute_force_search() -> None:
    features = noise(60, 3).double()
    apart = torch.cdist(features, features).numpy()
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1)[:, :10]
    last = np.take_along_axis(apart, nearest[:, -1:], axis=1)[:, 0]
    wanted = np.zeros((60, 60))
    for one, others in enumerate(nearest):
        wanted[one, others] = np.exp(-(apart[one, others] ** 2) / (last[one] * last[others]))
    wanted = np.maximum(wanted, wanted.T)
    wanted /= wanted.sum(axis=1, keepdims=True)
    found = feature_walk(features).to_dense()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_of_many_pixels_some_are_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixelgraph, "_ALL", 100)
    monkeypatch.setattr(pixelgraph, "_SOME", 40)
    monkeypatch.setattr(pixelgraph, "_AT_ONCE", 33)
    features = noise(200, 2)
    one, other = feature_walk(features), feature_walk(features)
    assert torch.equal(one.to_dense(), other.to_dense())
    torch.testing.assert_close(one.to_dense().sum(1), torch.ones(200))
    # a pixel has the nearest of the 40, and those that it is near to where it is one of them
    few = (one.to_dense() > 0).sum(dim=1)
    assert int((few <= 10).sum()) == 160


def test_either_graph_is_followed_half_the_time() -> None:
    table = table_of(FULL)
    ground, far = ground_walk(table, noise(6, 2)), feature_walk(noise(6, 2, seed=1))
    mean = (ground.to_dense() + far.to_dense()) / 2
    torch.testing.assert_close(both(ground, far).to_dense(), mean)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
def test_what_is_known_spreads_to_the_closed_form(part: float) -> None:
    table = table_of(HOLES, FULL)
    walk = ground_walk(table, noise(len(table), 3))
    known = noise(len(table), 2, seed=2)
    eye = torch.eye(len(table))
    wanted = (1 - part) * torch.linalg.solve(eye - part * walk.to_dense(), known)
    torch.testing.assert_close(spread(walk, known, part, 200), wanted, atol=1e-4, rtol=1e-4)


def test_chances_stay_chances() -> None:
    walk = feature_walk(noise(50, 3))
    known = torch.zeros(50, 3)
    known[torch.arange(50), torch.arange(50) % 3] = 1
    found = spread(walk, known, 0.9, 30)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(50))
    assert bool((found >= 0).all())
