import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from hsiclust.models.base import Batch
from hsiclust.models.grain import correlation_length, histogram_window, median_windows

EDGE = 6  # pixels of context, which must not count


def whole(values: torch.Tensor) -> Batch:
    """A tile of `(C, H, W)` all of whose core may be learned from."""
    rows, cols = (length - 2 * EDGE for length in values.shape[1:])
    return Batch(values[None], torch.ones(1, rows, cols, dtype=torch.bool))


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0.0, [1]),
        (1.9, [1]),
        (2.0, [1, 3]),
        (3.0, [1, 3, 5]),
        (4.4, [1, 3, 5]),
        (4.5, [3, 5, 9]),
        (50.0, [3, 5, 9]),
    ],
)
def test_coarser_grain_gets_larger_medians(length: float, expected: list[int]) -> None:
    assert median_windows(length) == expected


@pytest.mark.parametrize(
    ("length", "expected"), [(0.0, 1), (2.9, 1), (3.0, 3), (4.9, 3), (5.0, 5), (50.0, 5)]
)
def test_coarser_grain_gets_larger_histograms(length: float, expected: int) -> None:
    assert histogram_window(length) == expected


def field(length: float, noise: float, seed: int = 0) -> Batch:
    """Components whose correlation falls as `exp(-lag / length)` along rows and columns."""
    random, rho = np.random.default_rng(seed), float(np.exp(-1 / length))
    drawn = random.normal(size=(6, 320, 320))
    for axis in (1, 2):
        drawn = lfilter([1], [1, -rho], drawn, axis=axis)
    values = drawn[:, 100:, 100:] / drawn.std() + noise * random.normal(size=(6, 220, 220))
    return whole(torch.from_numpy(values.astype(np.float32)))


@pytest.mark.parametrize("length", [1.5, 4.0, 7.0])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_correlation_length_of_a_known_field(length: float, noise: float) -> None:
    assert correlation_length([field(length, noise)]) == pytest.approx(length, rel=0.15)


def test_correlation_length_over_several_tiles_and_their_masks() -> None:
    first, second = field(4.0, 0.0, 1), field(4.0, 0.0, 2)
    shifted = Batch(second.values + 5, second.fit.clone())
    shifted.values[..., 120:] = torch.randn(
        shifted.values[..., 120:].shape, generator=torch.Generator().manual_seed(0)
    )
    shifted.fit[..., 120 - EDGE :] = False
    both = correlation_length([Batch(first.values + 5, first.fit), shifted])
    assert both == pytest.approx(4.0, rel=0.2)


def test_correlation_lengths_that_have_none() -> None:
    assert correlation_length([whole(torch.ones(2, 40, 40))]) == 0.0
    board = torch.ones(1, 40, 40)
    board[:, ::2, ::2] = board[:, 1::2, 1::2] = -1  # neighbours are opposite
    assert correlation_length([whole(board)]) == 0.0
    # waves four pixels long: three apart they are as alike as one apart
    wave = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(17).expand(1, 68, 68)
    assert correlation_length([whole(wave)]) == 50.0
