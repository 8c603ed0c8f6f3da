import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hsiclust.models.losses import BarlowTwins, NTXent


def views(count: int = 12, depth: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(count, depth, generator=generator, dtype=torch.float64).softmax(1)
    second = (first + 0.05 * torch.rand(count, depth, generator=generator)).softmax(1)
    return first, second


def plain_nt_xent(first: NDArray[np.float64], second: NDArray[np.float64], t: float) -> float:
    """Chen et al. 2020, equation 1, pair by pair."""
    vectors = np.concatenate([first, second])
    count = len(first)

    def similarity(i: int, j: int) -> float:
        a, b = vectors[i], vectors[j]
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    total = 0.0
    for i in range(2 * count):
        j = i + count if i < count else i - count
        others = [np.exp(similarity(i, k) / t) for k in range(2 * count) if k != i]
        total -= np.log(np.exp(similarity(i, j) / t) / sum(others))
    return total / (2 * count)


def plain_barlow(first: NDArray[np.float64], second: NDArray[np.float64], off: float) -> float:
    """Zbontar et al. 2021, equation 1, entry by entry."""
    total = 0.0
    for i in range(first.shape[1]):
        for j in range(first.shape[1]):
            correlation = np.corrcoef(first[:, i], second[:, j])[0, 1]
            total += (1 - correlation) ** 2 if i == j else off * correlation**2
    return total


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_the_papers(temperature: float) -> None:
    first, second = views()
    expected = plain_nt_xent(first.numpy(), second.numpy(), temperature)
    assert float(NTXent(temperature)(first, second)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("off", [0.0, 0.005, 0.5])
def test_barlow_twins_is_the_papers(off: float) -> None:
    first, second = views()
    expected = plain_barlow(first.numpy(), second.numpy(), off)
    assert float(BarlowTwins(off)(first, second)) == pytest.approx(expected, rel=1e-6)


def test_losses_fall_when_views_agree() -> None:
    first, second = views()
    shuffled = second[torch.randperm(len(second), generator=torch.Generator().manual_seed(1))]
    for loss in (NTXent(), BarlowTwins()):
        assert loss(first, second) < loss(first, shuffled)


@pytest.mark.parametrize("loss", [NTXent(), BarlowTwins()])
def test_losses_take_any_batch_and_have_gradients(loss: torch.nn.Module) -> None:
    for count in (3, 20):
        first, second = (view.float().requires_grad_() for view in views(count))
        loss(first, second).backward()
        assert first.grad is not None
        assert second.grad is not None
        assert bool(torch.isfinite(first.grad).all())
        assert float(first.grad.abs().sum()) > 0


def test_a_dead_cluster_has_finite_gradients() -> None:
    first, second = (view.float().clone() for view in views())
    first[:, 0] = second[:, 0] = 0.0
    first.requires_grad_()
    BarlowTwins()(first, second).backward()
    assert first.grad is not None
    assert bool(torch.isfinite(first.grad).all())
