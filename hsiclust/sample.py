"""A bounded, spread sample of one or many scenes, and the transform fitted to it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsiclust.bands import Bands, match_bands, parse_bands
from hsiclust.errors import InputError
from hsiclust.grid import Window, spread_windows
from hsiclust.scene import Scene
from hsiclust.spectra import Kind, Sample, SpectralTransform, fit_transform

log = logging.getLogger(__name__)

# Enough pixels for the covariance of some hundred bands, and a bound on the memory they take.
_SAMPLE_PIXELS = 2**18
_SAMPLE_BYTES = 256 * 2**20
_WINDOW_SIDE = 64
# A scene that is mostly nodata is drawn from again, until this many rounds have passed.
_ROUNDS = 4


@dataclass(frozen=True)
class Region:
    """A scene, and the part of it that counts."""

    scene: Scene
    area: Window


@dataclass(frozen=True)
class TransformOptions:
    """How the spectral transform is to be fitted.

    Attributes:
        kind: "mnf" or "pca".
        components: How many components; as many as there are, up to `most_components`, when None.
        most_components: See `components`.
        bands: Bands to use, such as "1,3..50", counted from 1; all good ones when None.
        whiten: Leave every component at unit variance.
    """

    kind: Kind = "mnf"
    components: int | None = None
    most_components: int = 30
    bands: str | None = None
    whiten: bool = False


def fit_to_scenes(
    regions: Sequence[Region], options: TransformOptions, seed: int
) -> SpectralTransform:
    """Fit the spectral transform to a sample of all scenes.

    The bands are those of the first scene; the others are matched to it.

    Raises:
        InputError: A scene cannot be read, or holds too few valid pixels.
        ModelError: The scenes' bands cannot be matched.
        UsageError: Bands or components out of range.
    """
    sensor = regions[0].scene.bands
    asked = _asked_bands(sensor, options.bands)
    generator = np.random.default_rng(seed)
    sample: list[tuple[NDArray[np.generic], NDArray[np.bool_]]] = []
    blocks: list[list[NDArray[np.generic]]] = []
    for region in regions:
        bands = match_bands(asked, sensor, region.scene.bands, region.scene.path)
        blocks.append(_sample_blocks(region, bands, len(regions), generator))
    present = _present_bands(regions, blocks)
    if not present.any():
        names = ", ".join(region.scene.path for region in regions)
        raise InputError(f"{names}: no band holds data in the sampled pixels")
    if not present.all():
        log.warning("%d bands hold no data and are dropped", int((~present).sum()))
    for region, scene_blocks in zip(regions, blocks, strict=True):
        for block in scene_blocks:
            kept = block if present.all() else block[present]
            sample.append((kept, region.scene.valid(kept)))
    _check_pixels(sample, regions)
    used = [band for band, here in zip(asked, present, strict=True) if here]
    transform = fit_transform(
        sample,
        used,
        options.kind,
        options.components,
        most_components=options.most_components,
        whiten=options.whiten,
    )
    if len(transform.bands) < len(used):
        log.warning("%d constant bands are dropped", len(used) - len(transform.bands))
    return transform


def _asked_bands(sensor: Bands, text: str | None) -> tuple[int, ...]:
    if text is not None:
        return parse_bands(text, sensor.count)
    usable = sensor.usable()
    if not usable:
        raise InputError("the bad-bands list excludes every band; name bands with --bidx")
    return usable


def _sample_blocks(
    region: Region, bands: Sequence[int], scenes: int, generator: np.random.Generator
) -> list[NDArray[np.generic]]:
    """Windows of a scene, drawn again elsewhere while few of their pixels hold data."""
    scene = region.scene
    pixel_bytes = len(bands) * np.dtype(scene.dtype).itemsize
    pixels = max(_WINDOW_SIDE**2, min(_SAMPLE_PIXELS, _SAMPLE_BYTES // pixel_bytes) // scenes)
    blocks: list[NDArray[np.generic]] = []
    held = 0
    for _ in range(_ROUNDS):
        for window in spread_windows(region.area, pixels, _WINDOW_SIDE, generator):
            block = scene.read(window, bands)
            data = int(_any_data(scene, block).sum())
            if data and held < pixels:
                blocks.append(block)
                held += data
        if held >= pixels // 2 or region.area.pixels <= pixels:
            break
    return blocks


def _any_data(scene: Scene, block: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Pixels in which at least one band holds data, `(row, col)`."""
    here = [scene.valid(block[index : index + 1]) for index in range(len(block))]
    return np.asarray(np.any(here, axis=0), bool)


def _present_bands(
    regions: Sequence[Region], blocks: Sequence[Sequence[NDArray[np.generic]]]
) -> NDArray[np.bool_]:
    """Bands that hold data somewhere in the sample, `(band,)`."""
    here = [
        [bool(region.scene.valid(band[None]).any()) for band in block]
        for region, scene_blocks in zip(regions, blocks, strict=True)
        for block in scene_blocks
    ]
    return np.any(here, axis=0) if here else np.zeros(1, bool)


def _check_pixels(sample: Sample, regions: Sequence[Region]) -> None:
    valid = sum(int(mask.sum()) for _, mask in sample)
    bands = len(sample[0][0])
    if valid <= bands:
        names = ", ".join(region.scene.path for region in regions)
        raise InputError(
            f"{names}: {valid} valid pixels in the sample are too few for {bands} bands "
            "(is the nodata value right, are bad bands marked?)"
        )
