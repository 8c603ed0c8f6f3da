import pytest
import torch

from hsiclust.models.agreement import FAR, agreement, far_agreement, spheres_share
from hsiclust.models.base import Batch
from hsiclust.models.partitions import Family


@pytest.mark.parametrize(
    ("mixtures", "spheres", "expected"),
    [(0.2, 0.1, 0), (0.2, 0.2, 0), (0.2, 0.225, 0.5), (0.2, 0.24, 1), (0.2, 0.9, 1), (0, 0, 0)],
)
def test_spheres_are_drawn_where_they_say_more(
    mixtures: float, spheres: float, expected: float
) -> None:
    assert spheres_share(mixtures, spheres) == pytest.approx(expected)


def test_agreement_knows_no_names() -> None:
    first = torch.tensor([0, 0, 1, 1, 2, 2])
    assert agreement(first, torch.tensor([5, 5, 0, 0, 1, 1])) == pytest.approx(1)
    assert agreement(first, torch.tensor([0, 1, 0, 1, 0, 1])) == pytest.approx(0, abs=1e-6)


def test_one_class_agrees_on_nothing() -> None:
    same = torch.zeros(6, dtype=torch.int64)
    assert agreement(same, same) == 0


@pytest.mark.parametrize("family", ["mixture", "centres"])
def test_wide_fields_say_what_lies_far(family: Family) -> None:
    """Fields wider than `FAR` do, noise does not; neither do pixels that are not learned from."""
    random = torch.Generator().manual_seed(0)
    kinds = torch.randint(3, (6, 6), generator=random)
    kinds = kinds.repeat_interleave(8 * FAR, 0).repeat_interleave(8 * FAR, 1)
    noise = 0.1 * torch.randn(3, *kinds.shape, generator=random)
    fields = 3 * torch.eye(3)[kinds].permute(2, 0, 1) + noise
    fit = torch.ones(1, *kinds.shape, dtype=torch.bool)
    half = fit.clone()
    half[..., 24 * FAR :] = False
    junk = fields.clone()
    junk[..., 24 * FAR :] = 1e4
    found = [
        far_agreement([Batch(values[None], where)], 3, family, torch.Generator().manual_seed(1))
        for values, where in ((fields, fit), (noise, fit), (fields, half), (junk, half))
    ]
    assert found[0] > 0.3
    assert found[1] < 0.02
    assert found[2] == found[3]
