import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import eig

from hsiclust.errors import InputError, UsageError
from hsiclust.spectra import SpectralTransform
from hsiclust.spectralfit import Moments, fit_transform, noise_covariance

Block = NDArray[np.float64]


def noisy_block(rows: int = 40, cols: int = 50, bands: int = 9, seed: int = 0) -> Block:
    """Smooth signals of three sources plus band-dependent noise, `(band, row, col)`."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :cols] / 10
    sources = np.stack([np.sin(y), np.cos(x), np.sin(x + y)])
    mixing = generator.normal(0, 100, (bands, 3))
    noise = generator.normal(0, 1, (bands, rows, cols)) * np.linspace(1, 9, bands)[:, None, None]
    return 1000 + np.einsum("bs,srw->brw", mixing, sources) + noise


def whole(block: Block) -> list[tuple[Block, NDArray[np.bool_]]]:
    return [(block, np.ones(block.shape[1:], bool))]


def plain_mnf(block: Block, count: int) -> tuple[Block, Block]:
    """MNF by the textbook, all pixels at once, with another solver than the package's."""
    spectra = block.reshape(len(block), -1).T
    scaled = (spectra - spectra.mean(0)) / spectra.std(0)
    image = scaled.reshape(*block.shape[1:], -1)
    across = (image[:, 1:] - image[:, :-1]).reshape(-1, len(block))
    down = (image[1:] - image[:-1]).reshape(-1, len(block))
    differences = np.concatenate([across, down])
    norms = np.linalg.norm(differences, axis=1)
    kept = differences[norms <= np.quantile(norms, 0.7)]
    noise = np.cov(kept.T, bias=True) / 2
    noise += 1e-3 * np.trace(noise) / len(noise) * np.eye(len(noise))
    values, vectors = eig(np.cov(scaled.T, bias=True), noise)
    order = np.argsort(values.real)[::-1][:count]
    components = scaled @ vectors.real[:, order]
    unit = components / components.std(0)
    gain = np.sqrt(np.maximum(values.real[order] - 1, 0.1) / np.maximum(values.real[order], 1.1))
    return values.real[order], (unit * gain).T.reshape(count, *block.shape[1:])


def test_moments_merge_to_the_moments_of_all() -> None:
    vectors = np.random.default_rng(0).normal(1e6, 3, (1000, 4))
    left, right = Moments(4), Moments(4)
    for part in np.array_split(vectors[:300], 7):
        left.update(part)
    right.update(vectors[300:])
    right.update(vectors[:0])
    left.merge(right)
    assert left.count == 1000
    np.testing.assert_allclose(left.mean, vectors.mean(0), rtol=1e-13)
    np.testing.assert_allclose(left.covariance, np.cov(vectors.T, bias=True), atol=1e-8)


def test_mnf_is_the_textbooks() -> None:
    block = noisy_block()
    transform = fit_transform(whole(block), range(9), "mnf", 5)
    eigenvalues, components = plain_mnf(block, 5)
    np.testing.assert_allclose(transform.eigenvalues, eigenvalues, rtol=1e-8)
    centred = (block - transform.mean[:, None, None]) / transform.scale[:, None, None]
    found = transform.weights[:, None, None] * np.einsum("cb,brw->crw", transform.matrix, centred)
    for mine, plain in zip(found, components, strict=True):
        sign = np.sign((mine * plain).sum())
        np.testing.assert_allclose(mine, sign * plain, atol=1e-6)


def test_mnf_puts_signal_before_noise() -> None:
    transform = fit_transform(whole(noisy_block()), range(9), "mnf", 9)
    assert (transform.eigenvalues[:3] > 20).all()
    assert (transform.eigenvalues[3:] < 3).all()
    assert (np.diff(transform.weights) <= 1e-12).all()


def test_pca_is_the_textbooks() -> None:
    block = noisy_block()
    transform = fit_transform(whole(block), range(9), "pca", 4)
    spectra = block.reshape(9, -1).T
    scaled = (spectra - spectra.mean(0)) / spectra.std(0)
    _, singular, vectors = np.linalg.svd(scaled, full_matrices=False)
    np.testing.assert_allclose(transform.eigenvalues, singular[:4] ** 2 / len(scaled), rtol=1e-9)
    plain = scaled @ vectors[:4].T / (singular[0] / len(scaled) ** 0.5)
    found = (spectra - transform.mean) @ transform.projection.T
    np.testing.assert_allclose(np.abs(found), np.abs(plain), atol=1e-9)


@pytest.mark.parametrize("kind", ["mnf", "pca"])
def test_whitened_components_have_unit_variance(kind: str) -> None:
    block = noisy_block()
    transform = fit_transform(
        whole(block), range(9), "pca" if kind == "pca" else "mnf", 6, whiten=True
    )
    found = (block.reshape(9, -1).T - transform.mean) @ transform.projection.T
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-9)
    np.testing.assert_allclose(np.corrcoef(found.T), np.eye(6), atol=1e-7)


def test_blocks_together_are_the_scene() -> None:
    block = noisy_block()
    parts = [
        (block[:, :, :20], np.ones((40, 20), bool)),
        (block[:, :, 20:], np.ones((40, 30), bool)),
    ]
    together = fit_transform(parts, range(9), "pca")
    np.testing.assert_allclose(
        together.projection, fit_transform(whole(block), range(9), "pca").projection, atol=1e-10
    )


def test_invalid_pixels_count_for_nothing() -> None:
    block = noisy_block()
    valid = np.ones(block.shape[1:], bool)
    valid[5:9, 10:20] = False
    spoiled = block.copy()
    spoiled[:, ~valid] = np.nan
    clean = block.copy()
    clean[:, ~valid] = 1e9
    first = fit_transform([(spoiled, valid)], range(9))
    np.testing.assert_array_equal(
        first.projection, fit_transform([(clean, valid)], range(9)).projection
    )


def test_noise_covariance_of_known_noise() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, [1.0, 2.0, 4.0], (200, 200, 3)).transpose(2, 0, 1)
    found = noise_covariance(whole(noise), np.arange(3), np.ones(3))
    # Dropping the largest 30 % shrinks the estimate, most where the noise is strongest.
    assert (np.diag(found) < [1.1, 4.1, 16.1]).all()
    assert (np.diag(found) > [0.5, 2.0, 4.0]).all()
    assert np.abs(found - np.diag(np.diag(found))).max() < 0.1


def test_constant_bands_are_dropped() -> None:
    block = noisy_block()
    block[4] = 77
    transform = fit_transform(whole(block), range(10, 19), "mnf")
    assert transform.bands == (10, 11, 12, 13, 15, 16, 17, 18)
    assert transform.components == 7


def test_what_cannot_be_fitted_is_refused() -> None:
    block = noisy_block()
    nothing = np.zeros(block.shape[1:], bool)
    with pytest.raises(InputError, match="valid pixels"):
        fit_transform([(block, nothing)], range(9))
    with pytest.raises(InputError, match="constant"):
        fit_transform(whole(np.ones((3, 5, 5))), range(3))
    with pytest.raises(UsageError, match="12 components from 9"):
        fit_transform(whole(block), range(9), components=12)
    lonely = np.zeros(block.shape[1:], bool)
    lonely[::2, ::2] = True
    with pytest.raises(InputError, match="neighbours"):
        fit_transform([(block, lonely)], range(9))


@pytest.mark.parametrize("columns", [16, 48, 1000])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", ">f4"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_apply_takes_native_pixels_in_any_memory_order(
    dtype: str, order: tuple[int, int, int], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the 50 columns are one product, or several and a rest."""
    monkeypatch.setattr("hsiclust.spectra._SMALL_PRODUCT", columns * 9 * 16)
    block = noisy_block().round()
    transform = fit_transform(whole(block), range(9))
    stored = np.ascontiguousarray(block.transpose(order)).astype(np.dtype(dtype).newbyteorder("="))
    native = stored.transpose(np.argsort(order))
    valid = np.ones(block.shape[1:], bool)
    valid[3, 7] = False
    found = transform.apply(torch.from_numpy(native), torch.from_numpy(valid)).numpy()
    expected = np.einsum("cb,brw->crw", transform.projection, block - transform.mean[:, None, None])
    assert (found[:, 3, 7] == 0).all()
    np.testing.assert_allclose(found[:, valid], expected[:, valid], atol=2e-4)
    assert np.array_equal(native, block)  # the caller's pixels stay as they were


def test_leading_components_are_the_first_of_all() -> None:
    block = noisy_block()
    transform = fit_transform(whole(block), range(9))
    valid = torch.ones(block.shape[1:], dtype=torch.bool)
    found = transform.leading(2).apply(torch.from_numpy(block), valid)
    assert transform.leading(2).components == len(found) == 2
    expected = transform.apply(torch.from_numpy(block), valid)[:2]
    torch.testing.assert_close(found, expected)
    assert transform.leading(transform.components) is transform


def test_equals() -> None:
    block = noisy_block()
    first: SpectralTransform = fit_transform(whole(block), range(9))
    assert first.equals(fit_transform(whole(block), range(9)))
    assert not first.equals(fit_transform(whole(block), range(9), "pca"))
    assert not first.equals(fit_transform(whole(block + noisy_block(seed=1)), range(9)))
