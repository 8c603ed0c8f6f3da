import torch

from hsiclust.models.augment import changed


def test_without_noise_and_dropout_nothing_changes() -> None:
    features = torch.randn(20, 6)
    assert torch.equal(changed(features, 0.0, 0.0, torch.Generator()), features)


def test_each_pixel_has_its_own_noise_up_to_the_largest() -> None:
    features = torch.zeros(4000, 200)
    found = changed(features, 0.5, 0.0, torch.Generator().manual_seed(0)).std(dim=1)
    assert float(found.max()) < 0.5 * 1.25
    assert float(found.max()) > 0.45
    assert float(found.min()) < 0.01
    assert abs(float(found.mean()) - 0.25) < 0.01


def test_each_pixel_hides_its_own_part_up_to_the_largest() -> None:
    features = torch.ones(4000, 500)
    found = changed(features, 0.0, 0.4, torch.Generator().manual_seed(0))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    hidden = (found == 0).float().mean(dim=1)
    assert abs(float(hidden.mean()) - 0.2) < 0.01
    assert float(hidden.max()) < 0.5
    assert float(hidden.min()) < 0.01


def test_a_seed_changes_alike() -> None:
    features = torch.randn(9, 5)
    one, other = (changed(features, 0.3, 0.3, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, changed(features, 0.3, 0.3, torch.Generator().manual_seed(3)))
