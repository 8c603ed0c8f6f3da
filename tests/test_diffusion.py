from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.models import diffusion
from hsiclust.models.diffusion import (
    Denoiser,
    DiffusionConfig,
    averaged,
    denoising_loss,
    drawn,
    follow,
    gaussian_vectors,
    refined,
)

SMALL = DiffusionConfig(width=48, blocks=2, rate=5e-3, average=0.98)
MEANS = torch.tensor([[-1.2, 0.8, 0.0], [1.2, 0.4, 0.5], [0.0, -1.2, -0.5]])
DEVIATION = 0.25


def mixture(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of three classes, `(M, 3)`, and their classes."""
    random = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 3, (count,), generator=random)
    return MEANS[classes] + DEVIATION * torch.randn(count, 3, generator=random), classes


@pytest.fixture(scope="module")
def learned() -> Denoiser:
    """A model that has learned the mixture, with and without classes."""
    torch.manual_seed(0)
    denoiser = Denoiser(3, 3, SMALL)
    average = averaged(denoiser)
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=SMALL.rate)
    for step in range(300):
        clean, classes = mixture(256, step)
        random = torch.Generator().manual_seed(step)
        anyone = torch.rand(256, generator=random) < 0.4
        loss = denoising_loss(denoiser, clean, classes.masked_fill(anyone, 3), random)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        follow(average, denoiser, step)
    return average.eval()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9))
def test_signal_and_noise_keep_the_variance(times: list[float]) -> None:
    signal, noise = diffusion._mixture(torch.tensor(times))
    assert signal.shape == noise.shape == (len(times), 1)
    torch.testing.assert_close(signal.square() + noise.square(), torch.ones(len(times), 1))
    assert bool((signal >= -1e-6).all())
    assert bool((noise >= 0).all())


def test_at_time_0_the_clean_vector_is_the_noisy_one() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(5, 2, SMALL)
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    vectors = torch.randn(7, 5)
    found = denoiser(vectors, torch.zeros(7), torch.zeros(7, dtype=torch.int64))
    torch.testing.assert_close(found, vectors)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_vectors_that_are_drawn_lie_where_their_class_does(
    learned: Denoiser, guidance: float
) -> None:
    learned.settings = replace(SMALL, guidance=guidance)
    classes = torch.arange(3).repeat_interleave(100)
    found = drawn(learned, classes, torch.Generator().manual_seed(0))
    assert found.shape == (300, 3)
    for number in range(3):
        mine = found[classes == number]
        assert float((mine.mean(0) - MEANS[number]).norm()) < 0.5
        # none is nearer to the mean of another class, and they are not all one
        assert float((torch.cdist(mine, MEANS).argmin(1) == number).float().mean()) > 0.95
        assert 0.02 < float(mine.std(0).mean()) < 3 * DEVIATION


def test_a_seed_draws_the_same(learned: Denoiser) -> None:
    classes = torch.arange(3)
    one, other = (drawn(learned, classes, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, drawn(learned, classes, torch.Generator().manual_seed(5)))


def test_refined_vectors_lie_closer_to_their_kind(learned: Denoiser) -> None:
    vectors, classes = mixture(300, 1000)
    found = refined(learned, vectors)
    assert torch.equal(found, refined(learned, vectors))
    torch.testing.assert_close(found[:50], refined(learned, vectors[:50]), atol=1e-5, rtol=1e-4)
    for number in range(3):
        mine = classes == number
        assert float(found[mine].var(0).sum()) < 0.8 * float(vectors[mine].var(0).sum())
        assert float((found[mine].mean(0) - MEANS[number]).norm()) < 0.3


def test_without_guidance_the_class_is_heard_as_it_is(learned: Denoiser) -> None:
    noisy, classes, time = torch.randn(9, 3), torch.arange(9) % 3, torch.full((9,), 0.7)
    learned.settings = replace(SMALL, guidance=0.0)
    plain = learned(noisy, time, classes)
    assert torch.equal(learned.guided(noisy, time, classes), plain)
    learned.settings = replace(SMALL, guidance=1.5)
    anyone = learned(noisy, time, torch.full((9,), 3))
    pushed = learned.guided(noisy, time, classes)
    torch.testing.assert_close(pushed, plain + 1.5 * (plain - anyone))
    assert float((pushed - plain).abs().max()) > 1e-3
    assert torch.equal(learned.guided(noisy, time, torch.full((9,), 3)), anyone)


def test_the_average_follows() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(3, 2, SMALL)
    average = averaged(denoiser)
    assert not any(weight.requires_grad for weight in average.parameters())
    before = average.into.weight.clone()
    torch.nn.init.ones_(denoiser.into.weight)
    follow(average, denoiser, 0)  # a tenth is kept at first
    torch.testing.assert_close(average.into.weight, 0.1 * before + 0.9)
    before = average.into.weight.clone()
    follow(average, denoiser, 10**6)
    torch.testing.assert_close(average.into.weight, 0.98 * before + 0.02)


def test_gaussian_vectors_have_the_mean_and_covariance_of_their_class() -> None:
    random = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.8], [0.0, 0.5]])
    many = torch.randn(4000, 2, generator=random) @ mixing + 5
    few = torch.randn(3, 2, generator=random) - 5
    vectors = torch.cat([many, few])
    classes = torch.tensor([2] * 4000 + [7] * 3)
    wanted = torch.tensor([2] * 4000 + [7] * 4000)
    found = gaussian_vectors(vectors, classes, wanted, torch.Generator().manual_seed(1))
    assert found.shape == (8000, 2)
    torch.testing.assert_close(found[:4000].mean(0), many.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(found[:4000].T.cov(), many.T.cov(), atol=0.08, rtol=0)
    # a class of few labels has its own mean, and most of its covariance from all
    torch.testing.assert_close(found[4000:].mean(0), few.mean(0), atol=0.06, rtol=0)
    pooled = many.T.cov() * 3999 / 4001 + few.T.cov() * 2 / 4001
    shrunk = 3 / 5 * few.T.cov() + 2 / 5 * pooled
    torch.testing.assert_close(found[4000:].T.cov(), shrunk, atol=0.08, rtol=0)
    again = gaussian_vectors(vectors, classes, wanted, torch.Generator().manual_seed(1))
    assert torch.equal(found, again)
