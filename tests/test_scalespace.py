import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from hsiclust.models.base import Batch
from hsiclust.models.classifier import standardise
from hsiclust.models.scalespace import ScaleSpace, radius, smoothed


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("deviation", [0.0, 0.5, 1.0, 1.7, 4.0])
def test_smoothing_is_scipys_away_from_the_edge(deviation: float) -> None:
    values = noise(2, 3, 40, 45)
    reach = radius(deviation)
    found = smoothed(values, deviation)
    assert found.shape == (2, 3, 40 - 2 * reach, 45 - 2 * reach)
    sigma = (0, 0, deviation, deviation)
    whole = gaussian_filter(values.double().numpy(), sigma, radius=reach)
    wanted = whole[..., reach : 40 - reach, reach : 45 - reach]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@given(st.floats(0.1, 3.0), st.floats(-100, 100))
def test_smoothing_leaves_even_ground_alone(deviation: float, level: float) -> None:
    values = torch.full((1, 2, 20, 20), level)
    torch.testing.assert_close(
        smoothed(values, deviation),
        torch.full_like(values, level)[
            ..., : 20 - 2 * radius(deviation), : 20 - 2 * radius(deviation)
        ],
        rtol=1e-5,
        atol=1e-5,
    )


def test_features_are_the_components_at_each_scale_in_turn() -> None:
    space = ScaleSpace(3, (0.0, 1.0, 2.0))
    values = noise(1, 3, 20, 22)
    found = space(values)
    assert space.halo == radius(2.0) == 6
    assert found.shape == (1, space.features, 8, 10) == (1, 9, 8, 10)
    assert torch.equal(found[:, :3], values[..., 6:-6, 6:-6])
    torch.testing.assert_close(found[:, 3:6], smoothed(values, 1.0)[..., 3:-3, 3:-3])
    torch.testing.assert_close(found[:, 6:], smoothed(values, 2.0))


def test_a_features_window_is_the_halo_and_no_more() -> None:
    space = ScaleSpace(1, (0.0, 1.5))
    values = torch.zeros(1, 1, 31, 31)
    values[..., 15, 15] = 1
    rows, cols = torch.nonzero(space(torch.nn.functional.pad(values, (5,) * 4))[0].sum(0)).T
    assert (int(rows.min()), int(rows.max())) == (15 - space.halo, 15 + space.halo)
    assert (int(cols.min()), int(cols.max())) == (15 - space.halo, 15 + space.halo)


def test_multiply_adds_are_counted() -> None:
    # lines of 7 and 13 taps, down and across
    assert ScaleSpace(24, (0.0, 1.0, 2.0)).multiply_adds == 24 * 2 * (7 + 13)
    assert ScaleSpace(24, (0.0,)).multiply_adds == 0


def test_standardised_features_have_mean_0_and_deviation_1_where_may_be_learned() -> None:
    space = ScaleSpace(2, (0.0, 1.0))
    tiles = []
    for seed in range(3):
        values = 5 + 3 * noise(1, 2, 30, 32, seed=seed)
        fit = noise(1, 30 - 10, 32 - 10, seed=seed + 9) > 0
        tiles.append(Batch(values, fit))
    standardise(space, tiles)
    features = torch.cat(
        [space(tile.within(space.halo).values).movedim(1, -1)[tile.fit] for tile in tiles]
    )
    torch.testing.assert_close(features.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(4), atol=1e-2, rtol=0)


def test_a_constant_feature_does_not_become_infinite() -> None:
    space = ScaleSpace(1, (0.0, 1.0))
    standardise(space, [Batch(torch.full((1, 1, 16, 16), 7.0), torch.ones(1, 10, 10).bool())])
    assert bool(torch.isfinite(space(torch.full((1, 1, 16, 16), 7.0))).all())
    assert bool((space.scale > 0).all())
