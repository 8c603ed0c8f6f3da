from dataclasses import replace

import pytest
import torch

from hsiclust.models.views import View, ViewPool, draw_view, pair_outputs

PLAIN = ViewPool(smallest_area=1.0, displacement=0, probability=0.0)
SIDE, FIELD = 12, 5
OUTPUTS = SIDE - FIELD + 1


def crops(count: int = 6, margin: int = 0, depth: int = 3) -> torch.Tensor:
    """Smooth crops, so that resampling loses little."""
    side = SIDE + 2 * margin
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = torch.stack([torch.sin(x / 5 + k) + torch.cos(y / 6 - k) for k in range(depth)])
    return waves + torch.arange(count)[:, None, None, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre_network(values: torch.Tensor) -> torch.Tensor:
    """A network with the receptive field `FIELD` that gives back the centre pixel."""
    edge = FIELD // 2
    return values[:, :, edge:-edge, edge:-edge]


def test_plain_views_are_the_crop_turned() -> None:
    source = crops()
    view = draw_view(source, SIDE, FIELD, PLAIN, generator())
    for original, shown in zip(source, view.values, strict=True):
        turned = [
            torch.rot90(base, quarter, (1, 2))
            for base in (original, original.flip(2))
            for quarter in range(4)
        ]
        distances = [float((shown - candidate).abs().max()) for candidate in turned]
        assert min(distances) < 1e-4


def test_all_eight_turns_are_drawn() -> None:
    view = draw_view(crops(200), SIDE, FIELD, PLAIN, generator())
    turns = {tuple(turn.flatten().round().int().tolist()) for turn in view.turn}
    assert len(turns) == 8
    identity = torch.eye(2).expand(200, 2, 2)
    torch.testing.assert_close(view.turn @ view.turn.transpose(1, 2), identity)


@pytest.mark.parametrize("smallest_area", [1.0, 0.5])
def test_pairs_see_the_same_ground(smallest_area: float) -> None:
    pool = ViewPool(smallest_area=smallest_area, displacement=0, probability=0.0)
    # A receptive field of one pixel leaves no room for the place of a resized crop.
    source, random = crops(8), generator(1)
    views = (draw_view(source, SIDE, 0, pool, random), draw_view(source, SIDE, 0, pool, random))
    outputs = (centre_network(views[0].values), centre_network(views[1].values))
    fit = torch.ones(8, OUTPUTS, OUTPUTS, dtype=torch.bool)
    first, second = pair_outputs(views, outputs, fit)
    assert first.shape == (8 * OUTPUTS**2, 3)
    # nearest-pixel pairing of a smooth image: within what half a pixel changes
    limit = 1e-3 if smallest_area == 1.0 else 0.45
    assert float((first - second).abs().max()) < limit


def test_only_pixels_of_the_mask_are_paired() -> None:
    source, random = crops(4), generator(2)
    views = (
        draw_view(source, SIDE, FIELD, PLAIN, random),
        draw_view(source, SIDE, FIELD, PLAIN, random),
    )
    outputs = (centre_network(views[0].values), centre_network(views[1].values))
    fit = torch.zeros(4, OUTPUTS, OUTPUTS, dtype=torch.bool)
    fit[2, 1, 5] = True
    first, second = pair_outputs(views, outputs, fit)
    expected = centre_network(source)[2, :, 1, 5]
    torch.testing.assert_close(first, expected[None], atol=1e-4, rtol=0)
    torch.testing.assert_close(second, expected[None], atol=1e-4, rtol=0)


def test_displacement_moves_a_view_by_whole_pixels() -> None:
    margin = 3
    pool = ViewPool(smallest_area=1.0, displacement=margin, probability=0.0)
    source = crops(40, margin)
    view = draw_view(source, SIDE, FIELD, pool, generator(3))
    shifts = set()
    for original, shown, turn in zip(source, view.values, view.turn, strict=True):
        if not torch.equal(turn.round(), torch.eye(2)):
            continue
        for row in range(2 * margin + 1):
            for col in range(2 * margin + 1):
                part = original[:, row : row + SIDE, col : col + SIDE]
                if float((part - shown).abs().max()) < 1e-4:
                    shifts.add((row - margin, col - margin))
    assert len(shifts) >= 3


def test_a_patch_is_resized_within_itself() -> None:
    """With one output a crop is the paper's patch: any part of it, enlarged to its size."""
    pool = ViewPool(smallest_area=0.08, displacement=0, probability=0.0)
    ramp = torch.arange(11.0).expand(1, 1, 11, 11).expand(500, 1, 11, 11)
    view = draw_view(ramp, 11, 11, pool, generator(4))
    low, high = view.values.amin((1, 2, 3)), view.values.amax((1, 2, 3))
    assert float(low.min()) >= 0
    assert float(high.max()) <= 10
    shown = (high - low + view.scale) / 11  # the edge pixels' centres lie half a step inside
    torch.testing.assert_close(shown, view.scale, atol=0.1, rtol=0)
    assert float(low.max()) > 5  # a small crop at the far side
    assert float(high.min()) < 5


@pytest.mark.parametrize(
    ("pool", "check"),
    [
        (ViewPool(1.0, 0, 1.0, masked_pixels=1.0, masked_bands=0.0), "pixels"),
        (ViewPool(1.0, 0, 1.0, masked_pixels=0.0, masked_bands=1.0), "bands"),
    ],
)
def test_each_spectral_change_hits_a_third_of_the_views(pool: ViewPool, check: str) -> None:
    values = torch.ones(3000, 2, 3, 3)
    view = draw_view(values, 3, 3, pool, generator(5))
    emptied = (view.values == 0).all(dim=(1, 2, 3)).float().mean()
    assert float(emptied) == pytest.approx(1 / 3, abs=0.03)
    # a blur of ones is ones: nothing else has changed
    kept = view.values[(view.values != 0).any(dim=(1, 2, 3))]
    torch.testing.assert_close(kept, torch.ones_like(kept))


def test_masks_hide_the_part_they_say() -> None:
    pool = ViewPool(1.0, 0, 1.0, masked_pixels=0.25, masked_bands=0.5)
    values = torch.ones(900, 10, 8, 8)
    shown = draw_view(values, 8, 8, pool, generator(6)).values
    whole_bands = (shown == 0).all(dim=(2, 3)).float().mean()
    whole_pixels = (shown == 0).all(dim=1).float().mean()
    assert float(whole_bands) == pytest.approx(0.5 / 3, abs=0.02)
    assert float(whole_pixels) == pytest.approx(0.25 / 3, abs=0.02)


def test_blur_is_a_gaussian_of_nine_pixels() -> None:
    values = torch.zeros(300, 1, 7, 7)
    values[:, 0, 3, 3] = 1
    pool = ViewPool(1.0, 0, 1.0, masked_pixels=0.0, masked_bands=0.0)
    shown = draw_view(values, 7, 7, pool, generator(7)).values[:, 0]
    blurred = shown[shown[:, 3, 3] < 0.999]
    assert 60 < len(blurred) < 140
    torch.testing.assert_close(blurred.sum((1, 2)), torch.ones(len(blurred)), atol=1e-4, rtol=0)
    centre, side, corner = blurred[:, 3, 3], blurred[:, 3, 4], blurred[:, 4, 4]
    torch.testing.assert_close(corner * centre, side * side, atol=1e-5, rtol=0)  # separable
    assert float(blurred[:, 2:5, 2:5].sum((1, 2)).min()) > 0.999


def test_outputs_are_paired_in_the_order_of_the_mask() -> None:
    """What is known of the mask's pixels can be laid beside the pairs of unscaled views."""
    source, random = crops(8), generator(11)
    views = tuple(draw_view(source, SIDE, FIELD, PLAIN, random) for _ in range(2))
    fit = torch.rand(8, OUTPUTS, OUTPUTS, generator=random) < 0.5
    outputs = tuple(centre_network(view.values) for view in views)
    pairs = pair_outputs((views[0], views[1]), (outputs[0], outputs[1]), fit)
    expected = centre_network(source).movedim(1, -1)[fit]
    for found in pairs:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_views_that_may_not_turn_are_mirrored_left_to_right() -> None:
    source = crops(100)
    view = draw_view(source, SIDE, FIELD, replace(PLAIN, turns=False), generator(12))
    mirrored = 0
    for original, shown in zip(source, view.values, strict=True):
        plain, mirror = (float((shown - c).abs().max()) for c in (original, original.flip(2)))
        assert min(plain, mirror) < 1e-4
        mirrored += mirror < plain
    assert 30 < mirrored < 70


@pytest.mark.parametrize("turns", [True, False])
def test_pairs_undo_what_was_turned(turns: bool) -> None:
    source, random = crops(30), generator(13)
    pool = replace(PLAIN, turns=turns)
    views = tuple(draw_view(source, SIDE, FIELD, pool, random) for _ in range(2))
    outputs = tuple(centre_network(view.values) for view in views)
    fit = torch.ones(30, OUTPUTS, OUTPUTS, dtype=torch.bool)
    first, second = pair_outputs((views[0], views[1]), (outputs[0], outputs[1]), fit)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    assert not torch.equal(outputs[0], outputs[1])


def test_noise_is_in_deviations_of_each_component() -> None:
    source = torch.randn(40, 3, SIDE, SIDE, generator=generator(14))
    source *= torch.tensor([1.0, 10.0, 0.0])[None, :, None, None]
    source[:, 2] = 7
    pool = replace(PLAIN, turns=False)
    # the same numbers are drawn for the mirrors before those of the noise
    clean = draw_view(source, SIDE, FIELD, pool, generator(15)).values
    noisy = draw_view(source, SIDE, FIELD, replace(pool, noise=0.3), generator(15)).values
    added = (noisy - clean).std(dim=(0, 2, 3))
    torch.testing.assert_close(added, torch.tensor([0.3, 3.0, 0.0]), rtol=0.05, atol=1e-4)
    assert float((noisy - clean).mean(dim=(0, 2, 3)).abs().max()) < 0.15
    beside = (noisy - clean)[:, 0, :, 1:] * (noisy - clean)[:, 0, :, :-1]
    assert abs(float(beside.mean())) < 0.01  # each pixel has its own


def test_gain_is_one_factor_a_view() -> None:
    source = 5 + torch.randn(400, 3, SIDE, SIDE, generator=generator(16))
    pool = replace(PLAIN, turns=False)
    clean = draw_view(source, SIDE, FIELD, pool, generator(17)).values
    bright = draw_view(source, SIDE, FIELD, replace(pool, gain=0.1), generator(17)).values
    factors = (bright / clean).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), atol=1e-2, rtol=0)
    assert float(factors[:, 0].mean()) == pytest.approx(1, abs=0.02)
    assert float(factors[:, 0].std()) == pytest.approx(0.1, rel=0.15)


def test_drift_is_one_offset_a_component_and_view() -> None:
    scales = torch.tensor([1.0, 10.0])[:, None, None]
    source = scales * torch.randn(400, 2, SIDE, SIDE, generator=generator(18))
    pool = replace(PLAIN, turns=False)
    clean = draw_view(source, SIDE, FIELD, pool, generator(19)).values
    shifted = draw_view(source, SIDE, FIELD, replace(pool, drift=0.4), generator(19)).values
    offsets = (shifted - clean).flatten(2)
    torch.testing.assert_close(offsets, offsets[..., :1].expand_as(offsets), atol=1e-4, rtol=0)
    deviations = offsets[..., 0].std(dim=0) / scales.flatten()
    assert deviations.tolist() == pytest.approx([0.4, 0.4], rel=0.15)
    assert abs(float(torch.corrcoef(offsets[..., 0].T)[0, 1])) < 0.2


def test_views_of_a_seed_are_the_same() -> None:
    pool = ViewPool()
    source = crops(5, pool.displacement)
    first, second = (draw_view(source, SIDE, FIELD, pool, generator(9)) for _ in range(2))
    assert isinstance(first, View)
    assert torch.equal(first.values, second.values)
    other = draw_view(source, SIDE, FIELD, pool, generator(10))
    assert not torch.equal(first.values, other.values)
