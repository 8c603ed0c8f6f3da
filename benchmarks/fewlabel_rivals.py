"""Classifiers of a few labelled pixels by other packages: scikit-learn, scikit-image.

Each learns from every valid pixel what needs no label (scale, principal components), as hsiclust
does, and chooses C and gamma by cross-validation on the labelled pixels. How the bands are scaled
was chosen in the rivals' favour: with a deviation of its own for each band they are 1 to 4 points
worse on Indian Pines.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals import Cube, Valid

Features = NDArray[np.float64]
Classes = NDArray[np.int64]
Describe = Callable[[Cube, Valid, int], Features]
"""From a cube `(band, row, col)`, its valid pixels and a seed to features `(F, row, col)`."""

_COMPONENTS = 4
_RADII = (2, 4, 6, 8)  # of the disks, pixels
_FOLDS = 5
# The first of equals is taken.
_COSTS = (100.0, 10.0, 1000.0, 1.0, 10_000.0)
_WIDTHS = (1.0, 0.25, 0.0625, 4.0)  # parts of scikit-learn's "scale"


@dataclass(frozen=True)
class Rival:
    """Features, and what learns from them.

    Attributes:
        name: What the table calls it.
        describe: From the scene to the features.
        fit: From features `(M, F)` and classes `(M,)` of labelled pixels to a fitted estimator of
            scikit-learn.
    """

    name: str
    describe: Describe
    fit: Callable[[Features, Classes], Any]


def spectra(bands: Cube, valid: Valid, seed: int) -> Features:
    """The bands themselves, with one mean and one deviation for all."""
    del seed
    scaled = np.zeros(bands.shape)
    values = bands[:, valid].astype(np.float64)
    scaled[:, valid] = (values - values.mean()) / values.std()
    return scaled


def morphological_profile(bands: Cube, valid: Valid, seed: int) -> Features:
    """Extended morphological profile (Benediktsson et al. 2005).

    Four principal components, each with its openings and closings by reconstruction.
    """
    from sklearn.decomposition import PCA

    components = np.zeros((_COMPONENTS, *valid.shape))
    found = PCA(_COMPONENTS, random_state=seed).fit_transform(bands[:, valid].T)
    # Zero is a component's mean: where no data are there is neither a peak nor a pit.
    components[:, valid] = found.T
    layers = [layer for component in components for layer in _profile(component)]
    return standardised(np.stack(layers), valid)


def _profile(component: Features) -> list[Features]:
    """A component, its openings and its closings, `(row, col)` each."""
    from skimage.morphology import dilation, disk, erosion, reconstruction

    layers = [component]
    for radius in _RADII:
        opened = reconstruction(erosion(component, disk(radius)), component, "dilation")
        closed = reconstruction(dilation(component, disk(radius)), component, "erosion")
        layers += [opened, closed]
    return layers


def standardised(layers: NDArray[np.floating], valid: Valid) -> Features:
    """Mean 0 and deviation 1 over the valid pixels; 0 elsewhere."""
    from sklearn.preprocessing import StandardScaler

    scaled = np.zeros(layers.shape)
    scaled[:, valid] = StandardScaler().fit_transform(layers[:, valid].T.astype(np.float64)).T
    return scaled


def machine(features: Features, classes: Classes) -> Any:
    """A support vector machine, its C and gamma chosen by stratified cross-validation.

    Args:
        features: `(M, F)` of the labelled pixels.
        classes: `(M,)`.

    Returns:
        A fitted estimator of scikit-learn.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.svm import SVC

    folds = int(min(_FOLDS, np.bincount(classes).max()))
    if folds < 2:
        return SVC(C=_COSTS[0]).fit(features, classes)
    scale = 1 / (features.shape[1] * features.var())
    grid = {"C": _COSTS, "gamma": [width * scale for width in _WIDTHS]}
    parts = StratifiedKFold(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # A class of fewer pixels than folds is missing from some.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return GridSearchCV(SVC(), grid, cv=parts).fit(features, classes)


def scale_space(bands: Cube, valid: Valid, seed: int) -> Features:
    """What ContrastDM's network sees: 24 whitened MNF components at deviations 0, 1, 2 and 4."""
    del seed
    import torch

    from hsiclust.models.scalespace import ScaleSpace
    from hsiclust.spectralfit import fit_transform

    transform = fit_transform([(bands, valid)], range(len(bands)), most_components=24, whiten=True)
    used = torch.from_numpy(np.ascontiguousarray(bands[list(transform.bands)]))
    space = ScaleSpace(transform.components, (0.0, 1.0, 2.0, 4.0))
    with torch.no_grad():
        components = transform.apply(used, torch.from_numpy(valid))[None]
        padded = torch.nn.functional.pad(components, [space.halo] * 4, mode="reflect")
        return standardised(space.raw(padded)[0].numpy(), valid)


def network(features: Features, classes: Classes) -> Any:
    """ContrastDM's network on the labels alone: no pre-training, no pixel without a label."""
    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stochastic Optimizer", UserWarning)
        return MLPClassifier((256, 256, 64), max_iter=300, random_state=0).fit(features, classes)


RIVALS: Final = (
    Rival("SVM on all bands", spectra, machine),
    Rival("extended morphological profile, SVM", morphological_profile, machine),
    Rival("the same network, labels alone", scale_space, network),
)
