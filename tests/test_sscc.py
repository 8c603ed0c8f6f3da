import copy

import pytest
import torch

from hsiclust.errors import ModelError
from hsiclust.models.base import Batch, Progress
from hsiclust.models.losses import BarlowTwins, NTXent
from hsiclust.models.sscc import Sscc, SsccConfig

SMALL = SsccConfig(width=8, hidden=16, crops=4, outputs=8, displacement=2, rate=3e-3)


def small(seed: int = 0, settings: SsccConfig = SMALL) -> Sscc:
    torch.manual_seed(seed)
    return Sscc(3, 4, settings)


def quadrants(method: Sscc, seed: int) -> Batch:
    """Crops of two kinds of ground, left and right of a random column, with noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = method.crop_shape
    values = 0.1 * torch.randn(shape.count, 3, shape.side, shape.side, generator=generator)
    for crop in values:
        edge = int(torch.randint(shape.side, (1,), generator=generator))
        crop[0, :, :edge] += 1
        crop[1, :, edge:] += 1
    return Batch(values, torch.ones(shape.count, 8, 8, dtype=torch.bool))


def trained(method: Sscc, steps: int, first: int = 0) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        losses.append(method.learn(quadrants(method, step), Progress(step, 60), generator).loss)
    return losses


def test_the_loss_falls_and_the_grounds_are_told_apart() -> None:
    method = small()
    losses = trained(method, 60)
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])
    network = method.settled()
    flat = torch.zeros(2, 3, 15, 15)
    flat[0, 0] = flat[1, 1] = 1
    with torch.inference_mode():
        first, second = network(flat).argmax(1).flatten().tolist()
    assert first != second


def test_the_objective_is_the_weighted_sum_of_both_losses() -> None:
    method = small()
    first, second = torch.rand(2, 30, 4).softmax(-1)
    expected = SMALL.instance_weight * NTXent()(first, second) + BarlowTwins()(first, second)
    found = method.objective(first, second, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected)


def test_settled_labels_as_the_network_does() -> None:
    method = small()
    trained(method, 5)
    method.eval()
    values = torch.randn(1, 3, 40, 300)
    with torch.inference_mode():
        torch.testing.assert_close(method.settled()(values), method(values), rtol=1e-4, atol=1e-4)


def test_reorder_renumbers_the_outputs() -> None:
    method = small().eval()
    values = torch.randn(1, 3, 20, 20)
    with torch.inference_mode():
        before = method(values)
        method.reorder(torch.tensor([3, 1, 0, 2]))
        torch.testing.assert_close(method(values), before[:, [3, 1, 0, 2]])


def test_a_seed_gives_one_network() -> None:
    first, second = small(), small()
    trained(first, 3)
    trained(second, 3)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_training_goes_on_from_its_state() -> None:
    whole, half = small(), small()
    trained(whole, 6)
    trained(half, 3)
    again = small(seed=7)
    again.load_state_dict(copy.deepcopy(half.state_dict()))
    again.load_optimiser_state({k: v.clone() for k, v in half.optimiser_state().items()})
    trained(again, 3, first=3)
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_original_encoder_learns_patch_by_patch() -> None:
    settings = SsccConfig(
        encoder="original", hidden=16, crops=6, outputs=1, displacement=0, smallest_area=0.08
    )
    method = small(settings=settings)
    assert method.crop_shape.side == 11
    values = torch.randn(6, 3, 11, 11)
    batch = Batch(values, torch.ones(6, 1, 1, dtype=torch.bool))
    before = copy.deepcopy(method.state_dict())
    learned = method.learn(batch, Progress(10, 100), torch.Generator().manual_seed(0))
    assert int(learned.counts.sum()) == 6
    assert not torch.equal(before["encoder.stem.conv.weight"], method.encoder.stem.conv.weight)


@pytest.mark.parametrize(
    "settings", [{"width": 10**6}, {"encoder": "huge"}, {"steps": 0}, {"colour": 1}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        Sscc.from_config(3, 4, settings)


def test_confidence_is_the_largest_probability() -> None:
    scores = torch.tensor([2.0, 0.0, 1.0, -1.0])[None, :, None, None]
    expected = scores.softmax(1).max()
    assert float(small().confidence(scores)) == pytest.approx(float(expected))
