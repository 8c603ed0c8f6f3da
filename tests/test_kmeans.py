import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.cluster import KMeans as ReferenceKMeans

from hsiclust.errors import InputError
from hsiclust.models.base import Batch, Progress
from hsiclust.models.kmeans import KMeans


def blobs(count: int = 900, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Three clouds of points `(count, 2)` and where they belong."""
    generator = np.random.default_rng(seed)
    centres = np.array([[0, 0], [8, 0], [0, 8]])
    labels = generator.integers(0, 3, count)
    return torch.from_numpy(
        (centres[labels] + generator.normal(0, 1, (count, 2))).astype(np.float32)
    ), labels


def batch_of(points: torch.Tensor, halo: int = 0) -> Batch:
    side = 1 + 2 * halo
    values = points[:, :, None, None].expand(-1, -1, side, side).contiguous()
    return Batch(values, torch.ones(len(points), 1, 1, dtype=torch.bool))


def fitted(smoothing: float = 0.0) -> KMeans:
    method = KMeans(2, 3, smoothing)
    for step in range(20):
        points, _ = blobs(seed=step)
        generator = torch.Generator().manual_seed(step)
        method.learn(batch_of(points, method.halo), Progress(step, 20), generator)
    return method


def test_centres_are_those_of_scikit_learn() -> None:
    everything = torch.cat([blobs(seed=step)[0] for step in range(20)]).numpy()
    reference = ReferenceKMeans(3, n_init=5, random_state=0).fit(everything).cluster_centers_
    found = fitted().centres.numpy()
    distances = np.linalg.norm(found[:, None] - reference[None], axis=2)
    assert sorted(distances.argmin(axis=1)) == [0, 1, 2]
    assert distances.min(axis=1).max() < 0.1


def test_scores_are_negative_squared_distances() -> None:
    method = fitted()
    points, _ = blobs(50, seed=99)
    scores = method(points.T[None, :, :, None])[0, :, :, 0]
    expected = -torch.cdist(points.double(), method.centres.double()).square().T
    torch.testing.assert_close(scores.double(), expected, atol=1e-3, rtol=1e-4)


def test_confidence_is_the_simplified_silhouette() -> None:
    method = fitted()
    points, _ = blobs(50, seed=99)
    distances = torch.cdist(points, method.centres).sort(dim=1)[0]
    expected = 1 - distances[:, 0] / distances[:, 1]
    found = method.confidence(method(points.T[None, :, :, None]))[0, :, 0]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_smoothing_is_a_gaussian(sigma: float) -> None:
    method = KMeans(2, 3, sigma)
    values = torch.randn(1, 2, 40, 50)
    smooth = method.smoothed(values).numpy()[0]
    edge = method.halo
    assert method.receptive_field == 2 * edge + 1
    expected = gaussian_filter(values.numpy()[0], (0, sigma, sigma), radius=(0, edge, edge))
    np.testing.assert_allclose(smooth, expected[:, edge:-edge, edge:-edge], atol=1e-5)


def test_only_pixels_to_be_learned_from_count() -> None:
    method = KMeans(2, 2, 0.0)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [500.0, 500.0]])
    batch = batch_of(points)
    batch.fit[2] = False
    learned = method.learn(batch, Progress(0, 1), torch.Generator().manual_seed(0))
    assert float(method.centres.max()) <= 1.0
    assert int(learned.counts.sum()) == 2


def test_centres_are_running_means() -> None:
    method = KMeans(1, 1, 0.0)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0]]), torch.tensor([[2.0], [4.0]])]
    for step, points in enumerate(batches):
        method.learn(batch_of(points), Progress(step, 3), generator)
    assert float(method.centres) == pytest.approx(20 / 5)


def test_reorder_renumbers() -> None:
    method = fitted()
    points, _ = blobs(50, seed=99)
    before = method(points.T[None, :, :, None]).argmax(1)
    method.reorder(torch.tensor([2, 0, 1]))
    after = method(points.T[None, :, :, None]).argmax(1)
    assert torch.equal(torch.tensor([2, 0, 1])[after], before)


def test_too_few_pixels() -> None:
    points, _ = blobs(2)
    with pytest.raises(InputError, match="2 pixels"):
        KMeans(2, 3, 0.0).learn(batch_of(points), Progress(0, 1), torch.Generator())


def test_equal_pixels_do_not_break_the_start() -> None:
    method = KMeans(2, 3, 0.0)
    method.learn(batch_of(torch.ones(10, 2)), Progress(0, 1), torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(method.centres).all())
