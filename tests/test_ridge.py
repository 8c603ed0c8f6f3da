import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from hsiclust.models import ridge


def samples(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of three classes that overlap, `(M, 4)`, and their classes."""
    random = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 3, (count,), generator=random)
    classes[:3] = torch.arange(3)
    means = torch.tensor([[0.0, 0, 0, 0], [1.5, 0, 1, 0], [0, 1.5, 0, 1]])
    return means[classes] + torch.randn(count, 4, generator=random), classes


def reference(features: torch.Tensor, classes: torch.Tensor) -> KernelRidge:
    wanted = np.eye(3)[classes.numpy()]
    own = KernelRidge(alpha=ridge._RIDGE, kernel="rbf", gamma=ridge._GAMMA)
    return own.fit(features.double().numpy(), wanted)


def test_scores_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "_AT_ONCE", 30)
    features, classes = samples(40)
    features = ridge.scaled(features)
    others, _ = samples(100, seed=1)
    weights = ridge.solved(ridge.kernel(features, features), classes, 3)
    found = ridge.scores(others, features, weights)
    assert found.shape == (100, 3)
    own = reference(features, classes).predict(others.double().numpy())
    np.testing.assert_allclose(found, own, atol=2e-3)
    assert float((found.argmax(1).numpy() == own.argmax(1)).mean()) > 0.98


def test_a_class_without_labels_gets_no_score() -> None:
    features, classes = samples(30)
    weights = ridge.solved(ridge.kernel(features, features), classes, 5)
    assert bool((ridge.scores(features, features, weights)[:, 3:] == 0).all())


def test_scaled_features_have_a_mean_square_of_1() -> None:
    features, _ = samples(50)
    scaled = ridge.scaled(7 * features)
    assert float(scaled.square().sum(dim=1).mean()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(scaled, ridge.scaled(features))
    assert torch.equal(ridge.scaled(torch.zeros(4, 3)), torch.zeros(4, 3))
