from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans as ReferenceKMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

import hsiclust.models.partitions as module
from hsiclust.models.partitions import (
    Draw,
    Gaussians,
    Partitions,
    component_range,
    draw_partitions,
    fit_mixture,
    fit_partition,
    most_clusters,
    window_medians,
)

MEANS = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 5.0]])
COVARIANCES = np.array(
    [[[1.0, 0.8], [0.8, 1.0]], [[2.0, 0.0], [0.0, 0.3]], [[0.5, -0.3], [-0.3, 1.0]]]
)
PLAIN = Draw("mixture", 2, whitened=False, window=1, clusters=3, shrinkage=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clouds(count: int = 4000, seed: int = 0) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Points of three slanted Gaussians, `(count, 2)`, and where they belong."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, count, p=[0.5, 0.3, 0.2])
    drawn = np.stack(
        [random.multivariate_normal(m, c, count) for m, c in zip(MEANS, COVARIANCES, strict=True)]
    )
    return torch.from_numpy(drawn[labels, np.arange(count)].astype(np.float32)), labels


def covariances(fitted: Gaussians) -> torch.Tensor:
    return torch.linalg.inv(fitted.whiten.transpose(1, 2) @ fitted.whiten)


def test_a_mixture_is_recovered() -> None:
    fitted = fit_mixture(clouds()[0], 3, 0.0, generator())
    order = torch.cdist(torch.from_numpy(MEANS).float(), fitted.means).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2]
    np.testing.assert_allclose(fitted.means[order], MEANS, atol=0.15)
    np.testing.assert_allclose(covariances(fitted)[order], COVARIANCES, atol=0.2)
    determinants = torch.linalg.det(covariances(fitted)).log() / 2
    shares = (fitted.offsets + determinants).exp()[order]
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.03)


def test_labels_of_a_mixture_are_those_of_scikit_learn() -> None:
    points, _ = clouds(seed=1)
    expected = GaussianMixture(3, random_state=0).fit_predict(points.numpy())
    found = fit_mixture(points, 3, 0.0, generator())(points)
    assert adjusted_rand_score(expected, found) > 0.98


def test_scores_are_log_densities_but_for_a_constant() -> None:
    points, _ = clouds(50, seed=2)
    fitted = fit_mixture(clouds()[0], 3, 0.1, generator())
    spread = covariances(fitted).double().numpy()
    means = fitted.means.double().numpy()
    density = np.stack(
        [multivariate_normal(m, c).logpdf(points) for m, c in zip(means, spread, strict=True)], 1
    )
    weights = (fitted.offsets.double().numpy() + np.log(np.linalg.det(spread)) / 2)[None]
    found = fitted.scores(points).double().numpy() - np.log(2 * np.pi)
    np.testing.assert_allclose(found, density + weights, atol=2e-3)
    assert np.exp(weights).sum() == pytest.approx(1, abs=1e-4)


def test_shrinkage_is_a_part_of_the_mean_variance() -> None:
    points, _ = clouds()
    plain = np.cov(points.numpy().T, bias=True)
    found = covariances(fit_mixture(points, 1, 0.25, generator()))[0]
    mean_variance = points.var(dim=0, unbiased=False).mean()
    np.testing.assert_allclose(found, plain + 0.25 * float(mean_variance) * np.eye(2), rtol=1e-3)


def test_a_gaussian_of_one_point_stays_finite() -> None:
    points = torch.cat([clouds(100)[0], torch.tensor([[50.0, 50.0]] * 3)])
    fitted = fit_mixture(points, 4, 0.05, generator())
    for values in (fitted.means, fitted.whiten, fitted.offsets):
        assert bool(torch.isfinite(values).all())
    assert len(set(fitted(points)[-3:].tolist())) == 1


def test_spheres_are_k_means() -> None:
    points, _ = clouds(seed=3)
    reference = ReferenceKMeans(3, n_init=5, random_state=0).fit(points.numpy())
    fitted = fit_partition(points, torch.ones(2), replace(PLAIN, family="centres"), generator())
    expected = torch.cdist(points, fitted.means).argmin(dim=1)
    assert torch.equal(fitted(points), expected)
    assert adjusted_rand_score(reference.labels_, expected) > 0.97


@pytest.mark.parametrize("family", ["mixture", "centres"])
def test_only_leading_components_are_seen(family: Literal["mixture", "centres"]) -> None:
    points, _ = clouds(900)
    noisy = torch.cat([points, 1e3 * torch.randn(900, 1, generator=generator(5))], dim=1)
    draw = replace(PLAIN, family=family)
    first = fit_partition(noisy, torch.ones(3), draw, generator())
    second = fit_partition(points, torch.ones(2), draw, generator())
    assert first.means.shape == (3, 2)
    assert torch.equal(first(points), second(points))


@pytest.mark.parametrize("family", ["mixture", "centres"])
@pytest.mark.parametrize("whitened", [True, False])
def test_whitening_lets_a_faint_component_decide(
    family: Literal["mixture", "centres"], whitened: bool
) -> None:
    """The result takes pixels as they are, whatever they were scaled by for the fit."""
    random = np.random.default_rng(0)
    sides = random.integers(0, 2, 1500)
    loud, faint = random.normal(0, 10, 1500), 0.1 * (2 * sides - 1) + random.normal(0, 0.01, 1500)
    pixels = torch.from_numpy(np.stack([loud, faint], axis=1).astype(np.float32))
    draw = replace(PLAIN, family=family, clusters=2, whitened=whitened, shrinkage=0.1)
    labels = fit_partition(pixels, 1 / pixels.std(dim=0), draw, generator())(pixels)
    agreement = adjusted_rand_score(sides, labels)
    assert agreement == 1.0 if whitened else agreement < 0.1


def test_fewer_pixels_than_clusters_are_a_cluster_each() -> None:
    points = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    fitted = fit_partition(points, torch.ones(2), PLAIN, generator())
    assert fitted.means.shape == (2, 2)
    assert sorted(fitted(points).tolist()) == [0, 1]


def test_pixels_are_labelled_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = clouds(501)
    fitted = fit_mixture(points, 3, 0.1, generator())
    whole = fitted(points)
    sizes: list[int] = []
    scores = Gaussians.scores

    def watched(self: Gaussians, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return scores(self, pixels)

    monkeypatch.setattr(Gaussians, "scores", watched)
    monkeypatch.setattr(module, "_AT_ONCE", 600)  # 3 Gaussians of 2 components
    assert torch.equal(fitted(points), whole)
    assert sizes == [100] * 5 + [1]


def test_partitions_of_any_size_are_kept() -> None:
    points, _ = clouds(600)
    wide = torch.cat([points, points.flip(1)], dim=1)
    two = fit_mixture(points, 2, 0.1, generator())
    five = fit_mixture(wide, 5, 0.1, generator())
    partitions = Partitions(2, 7, 3)
    partitions.put(0, two, 5)
    partitions.put(1, five, 1)
    again = Partitions(2, 7, 3)
    again.load_state_dict(partitions.state_dict())
    assert len(again) == 2
    assert again.used_windows() == [1, 5]
    for number, (pixels, gaussians) in enumerate(((points, two), (wide, five))):
        kept = again.get(number)
        assert torch.equal(kept.means, gaussians.means)
        assert torch.equal(kept.scores(pixels), gaussians.scores(pixels))
        assert int(again.windows[number]) == (5, 1)[number]


@pytest.mark.parametrize("window", [1, 3, 5, 9])
@pytest.mark.parametrize("beyond", [0, 2])
def test_medians_are_those_of_scipy(window: int, beyond: int) -> None:
    values = torch.randn(3, 24, 31, generator=generator())
    trim = window // 2 + beyond
    found = window_medians(values, window, trim)
    expected = median_filter(values.numpy(), size=(1, window, window))
    assert found.shape == (3, 24 - 2 * trim, 31 - 2 * trim)
    assert np.array_equal(found, expected[:, trim : 24 - trim, trim : 31 - trim])


@pytest.mark.parametrize(("spheres", "expected"), [(0.0, 0), (0.3, 6), (0.5, 10), (1.0, 20)])
def test_the_families_have_their_shares(spheres: float, expected: int) -> None:
    draws = draw_partitions(20, 8, 5, [1, 3], spheres, 0)
    assert len(draws) == 20
    assert sum(draw.family == "centres" for draw in draws) == expected


@pytest.mark.parametrize(("components", "classes"), [(1, 2), (2, 9), (12, 4), (30, 16), (40, 255)])
def test_draws_fit_where_partitions_are_kept(components: int, classes: int) -> None:
    draws = draw_partitions(300, components, classes, [3, 5, 9], 0.5, 1)
    kept = Partitions(1, components, classes)
    assert kept.means.shape[1] == most_clusters(classes) <= max(128, classes)
    least, most = component_range(components, classes)
    assert kept.means.shape[2] == most <= components
    assert {draw.components for draw in draws} == set(range(least, most + 1))
    assert {draw.window for draw in draws} == {3, 5, 9}
    assert {draw.whitened for draw in draws} == {True, False}
    assert min(draw.clusters for draw in draws) >= classes
    assert max(draw.clusters for draw in draws) <= most_clusters(classes)
    assert all(0.05 <= draw.shrinkage <= 0.2 for draw in draws)


@pytest.mark.parametrize(
    ("components", "classes", "expected"),
    [(30, 16, (15, 26)), (30, 2, (3, 5)), (2, 16, (2, 2)), (20, 16, (15, 20)), (9, 16, (9, 9))],
)
def test_components_are_about_as_many_as_classes(
    components: int, classes: int, expected: tuple[int, int]
) -> None:
    assert component_range(components, classes) == expected


def test_clusters_of_a_partition_have_a_limit() -> None:
    assert [most_clusters(classes) for classes in (2, 16, 42, 43, 100, 255)] == [
        6,
        48,
        126,
        128,
        128,
        255,
    ]


def test_a_seed_gives_the_same_draws() -> None:
    first, second, other = (draw_partitions(9, 12, 6, [1, 3], 0.4, seed) for seed in (3, 3, 4))
    assert first == second
    assert first != other


@pytest.mark.parametrize("family", ["mixture", "centres"])
def test_a_seed_gives_the_same_partition(family: Literal["mixture", "centres"]) -> None:
    points, _ = clouds(700)
    draw = replace(PLAIN, family=family, clusters=7)
    first, second = (fit_partition(points, torch.ones(2), draw, generator(6)) for _ in range(2))
    assert torch.equal(first.means, second.means)
    assert torch.equal(first.whiten, second.whiten)


@pytest.mark.parametrize("case", ["far", "flat", "alike"])
def test_any_pixels_can_be_fitted(case: str) -> None:
    points, labels = clouds()
    pixels = {
        "far": points + 3000,
        "flat": torch.cat([points, torch.full((len(points), 1), 3e6)], dim=1),
        "alike": torch.full((500, 2), 5.3),
    }[case]
    fitted = fit_mixture(pixels, 3, 0.05, generator())
    assert bool(torch.isfinite(fitted.scores(pixels)).all())
    if case != "alike":
        assert adjusted_rand_score(labels, fitted(pixels)) > 0.95
