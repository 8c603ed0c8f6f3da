import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score

from hsiclust.information import normalised_information


def table(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = np.zeros((first.max() + 1, second.max() + 1), np.int64)
    np.add.at(counts, (first, second), 1)
    return counts


@pytest.mark.parametrize("agreeing", [0.0, 0.4, 1.0])
def test_information_is_that_of_scikit_learn(agreeing: float) -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 5, 600)
    second = np.where(random.random(600) < agreeing, first % 3, random.integers(0, 7, 600))
    expected = normalized_mutual_info_score(first, second)
    assert normalised_information(table(first, second), 1.0) == pytest.approx(expected, abs=1e-9)


def test_information_at_its_ends() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 300)
    assert normalised_information(table(labels, 4 - labels), 0.0) == pytest.approx(1)
    nothing = normalised_information(np.ones((4, 5), np.int64), 1.0)
    assert nothing == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("alone", [0.0, 1.0])
def test_one_group_on_either_side(alone: float) -> None:
    assert normalised_information(np.zeros((3, 3), np.int64), alone) == alone
    assert normalised_information(np.array([[7, 0], [0, 0]]), alone) == alone
    assert normalised_information(np.array([[7, 3], [0, 0]]), alone) == 0
