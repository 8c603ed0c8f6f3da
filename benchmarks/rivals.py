"""Clusterings that other packages offer: from a cube to class numbers.

Each function takes a cube `(feature, row, col)`, its valid pixels `(row, col)`, the number of
clusters and a seed, and gives class numbers `(row, col)`, 1..K, 0 where a pixel is not valid. All
valid pixels are learned from. `MNF` components come from hsiclust, so that a method is compared and
not its input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.subject import Labels

Cube = NDArray[np.float32]
Valid = NDArray[np.bool_]
Cluster = Callable[[Cube, Valid, int, int], Labels]

_PCA = 8  # components of the k-means of the textbooks
_MNF = 20  # components of hsiclust's own k-means
_RIDGE = 1e-3  # added to the variances of a Gaussian; those of MNF components lie around 1
_SLIC_COMPONENTS = 3
_SUPERPIXEL = 40  # pixels of a superpixel, about
_MOST_SUPERPIXELS = 5000
# Of SLIC, whose colours lie within 0..1: one step to the next superpixel weighs as much as a tenth
# of the range, which is about one deviation of the components.
_COMPACTNESS = 0.1
_NEIGHBOURS = 10  # of a superpixel in the graph


@dataclass(frozen=True)
class Rival:
    """A clustering and what it wants to see.

    Attributes:
        name: With its package and settings.
        sees: "bands", or "mnf": 20 noise-whitened components.
        cluster: The function.
    """

    name: str
    sees: Literal["bands", "mnf"]
    cluster: Cluster


def kmeans(bands: Cube, valid: Valid, classes: int, seed: int) -> Labels:
    """Lloyd's k-means, the best of ten starts, on principal components of standardised bands."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    spectra = StandardScaler().fit_transform(bands[:, valid].T)
    components = PCA(min(_PCA, len(bands)), random_state=seed).fit_transform(spectra)
    found = KMeans(classes, n_init=10, random_state=seed).fit_predict(components)
    return _on_grid(found, valid)


def minibatch_kmeans(components: Cube, valid: Valid, classes: int, seed: int) -> Labels:
    """k-means by mini-batches."""
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(classes, n_init=10, random_state=seed)
    return _on_grid(found.fit_predict(components[:, valid].T), valid)


def gaussian_mixture(components: Cube, valid: Valid, classes: int, seed: int) -> Labels:
    """A mixture of Gaussians, each with a full covariance, by expectation maximisation."""
    from sklearn.mixture import GaussianMixture

    pixels = components[:, valid].T.astype(np.float64)
    found = GaussianMixture(
        classes, covariance_type="full", reg_covar=_RIDGE, max_iter=300, random_state=seed
    )
    return _on_grid(found.fit_predict(pixels), valid)


def superpixels(components: Cube, valid: Valid, classes: int, seed: int) -> Labels:
    """SLIC superpixels of the first components, their means grouped by spectral clustering."""
    from skimage.segmentation import slic
    from sklearn.cluster import SpectralClustering

    first = np.moveaxis(components[:_SLIC_COMPONENTS], 0, -1)
    wanted = min(_MOST_SUPERPIXELS, max(2 * classes, int(valid.sum()) // _SUPERPIXEL))
    segments = slic(
        first,
        n_segments=wanted,
        compactness=_COMPACTNESS,
        convert2lab=False,
        channel_axis=-1,
        start_label=1,
        mask=None if valid.all() else valid,
    )
    inside = valid & (segments > 0)
    _, members = np.unique(segments[inside], return_inverse=True)
    sizes = np.bincount(members)
    means = np.stack(
        [np.bincount(members, weights=layer[inside]) / sizes for layer in components], axis=1
    )
    found = SpectralClustering(
        classes,
        affinity="nearest_neighbors",
        n_neighbors=min(_NEIGHBOURS, len(means) - 1),
        random_state=seed,
    ).fit_predict(means)
    return _on_grid(found[members], inside)


def _on_grid(groups: NDArray[np.integer], valid: Valid) -> Labels:
    labels = np.zeros(valid.shape, np.uint8)
    labels[valid] = groups + 1
    return labels


RIVALS: Final = (
    Rival("scikit-learn KMeans, PCA 8, best of 10 starts", "bands", kmeans),
    Rival("scikit-learn MiniBatchKMeans, MNF 20", "mnf", minibatch_kmeans),
    Rival("scikit-learn GaussianMixture, full, MNF 20", "mnf", gaussian_mixture),
    Rival("scikit-image SLIC, spectral clustering of means", "mnf", superpixels),
)


def read_bands(scene: Path) -> tuple[Cube, Valid]:
    """The usable bands of a scene, and the pixels that are valid in all of them."""
    from hsiclust.scene import Scene

    opened = Scene.open(scene)
    block = opened.read(bands=opened.bands.usable())
    return block.astype(np.float32), opened.valid(block, opened.grid.window)


def read_mnf(scene: Path, seed: int) -> tuple[Cube, Valid]:
    """The components that hsiclust's own k-means sees, before it smooths them."""
    import torch

    from hsiclust.sample import Region, TransformOptions, fit_to_scenes
    from hsiclust.scene import Scene

    opened = Scene.open(scene)
    options = TransformOptions("mnf", most_components=_MNF)
    transform = fit_to_scenes([Region(opened, opened.grid.window)], options, seed)
    block = opened.read(bands=transform.bands)
    valid = opened.valid(block, opened.grid.window)
    components = transform.apply(
        torch.from_numpy(np.ascontiguousarray(block)), torch.from_numpy(valid)
    )
    return components.numpy(), valid


def read(sees: str, scene: Path, seed: int) -> tuple[Cube, Valid]:
    """What a rival wants to see of a scene."""
    return read_bands(scene) if sees == "bands" else read_mnf(scene, seed)
