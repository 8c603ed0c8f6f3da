"""A bounded, spread sample of one or many scenes, and the transform fitted to it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hsiclust.bands import match_bands, parse_bands
from hsiclust.errors import InputError, UsageError
from hsiclust.grid import Window
from hsiclust.scene import Scene
from hsiclust.spectra import Kind, SpectralTransform
from hsiclust.spectralfit import Sample, fit_transform
from hsiclust.spread import spread_windows
from hsiclust.tilegrid import TileGrid

log = logging.getLogger(__name__)

# Enough pixels for the covariance of some hundred bands, and a bound on the memory they take.
_SAMPLE_PIXELS = 2**18
_SAMPLE_BYTES = 256 * 2**20
_WINDOW_SIDE = 64
# A scene that is mostly nodata is drawn from again, until this many rounds have passed.
_ROUNDS = 4


class PixelMask(Protocol):
    """Says which pixels of a scene count."""

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Whether the pixels of a window count, `(row, col)`."""
        ...


@dataclass(frozen=True)
class Region:
    """A scene, and the part of it that counts.

    Attributes:
        scene: The scene.
        area: Pixels beyond it do not count.
        mask: Of the pixels in it, those outside the mask do not count either.
    """

    scene: Scene
    area: Window
    mask: PixelMask | None = None


@dataclass(frozen=True)
class _Sampled:
    """A window of a region: pixels `(band, row, col)`, and which of them count `(row, col)`."""

    region: Region
    block: NDArray[np.generic]
    counts: NDArray[np.bool_]


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

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            known = " or ".join(get_args(Kind))
            raise UsageError(f"transform {self.kind!r} is unknown: {known}")


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
    asked = _asked_bands(regions[0].scene, options.bands)
    generator = np.random.default_rng(seed)
    windows: list[_Sampled] = []
    most = max(1, _most_pixels(regions[0], asked) // _WINDOW_SIDE**2)
    giving = 0
    for region in _in_turn(regions, most, generator):
        bands = match_bands(asked, sensor, region.scene.bands, region.scene.path)
        found = _sample_windows(region, bands, len(regions), generator)
        windows += found
        giving += bool(found)
        if giving == most:  # a window of each of more scenes would know no bound
            break
    if not windows:
        raise InputError(f"{_names(regions)}: no pixel with data lies within mask and bounds")
    present = _present_bands(windows)
    if not present.all():
        log.warning("%d bands hold no data and are dropped", int((~present).sum()))
    sample = [_kept(window, present) for window in windows]
    _check_pixels(sample, regions)
    used = [band for band, here in zip(asked, present, strict=True) if here]
    # On one thread, so that the sums, and with them the model, are the same on every machine.
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            transform = fit_transform(
                sample,
                used,
                options.kind,
                options.components,
                most_components=options.most_components,
                whiten=options.whiten,
            )
    except InputError as error:
        raise InputError(f"{_names(regions)}: {error}") from error
    if len(transform.bands) < len(used):
        log.warning("%d constant bands are dropped", len(used) - len(transform.bands))
    return transform


def _asked_bands(scene: Scene, text: str | None) -> tuple[int, ...]:
    if text is not None:
        return parse_bands(text, scene.bands.count)
    usable = scene.bands.usable()
    if not usable:
        raise InputError(
            f"{scene.path}: the bad-bands list excludes every band; name bands with --bidx"
        )
    return usable


def _most_pixels(region: Region, bands: Sequence[int]) -> int:
    """Pixels of a whole sample, of scenes like this one."""
    pixel_bytes = len(bands) * np.dtype(region.scene.dtype).itemsize
    return min(_SAMPLE_PIXELS, _SAMPLE_BYTES // pixel_bytes)


def _in_turn(
    regions: Sequence[Region], most: int, generator: np.random.Generator
) -> Sequence[Region]:
    """Regions in the order in which they are sampled: at random where not all can be."""
    if len(regions) <= most:
        return regions
    return [regions[int(number)] for number in generator.permutation(len(regions))]


def _sample_windows(
    region: Region, bands: Sequence[int], scenes: int, generator: np.random.Generator
) -> list[_Sampled]:
    """Windows of a scene, drawn again elsewhere while few of their pixels count."""
    pixels = max(_WINDOW_SIDE**2, _most_pixels(region, bands) // scenes)
    sampled: list[_Sampled] = []
    held = 0
    for _ in range(_ROUNDS):
        for window in _windows(region, pixels, generator):
            block = region.scene.read(window, bands)
            counts = _any_data(region.scene, block, window)
            if region.mask is not None:
                counts &= region.mask.read(window)
            if counts.any() and held < pixels:
                sampled.append(_Sampled(region, block, counts))
                held += int(counts.sum())
        if held >= pixels // 2 or region.area.pixels <= pixels:
            break
    return sampled


def _windows(region: Region, pixels: int, generator: np.random.Generator) -> list[Window]:
    """Windows to sample: spread over the area, or over the tiles that the mask reaches into."""
    if region.mask is None or region.area.pixels <= pixels:
        return spread_windows(region.area, pixels, _WINDOW_SIDE, generator)
    cells = TileGrid(region.area, region.area, _WINDOW_SIDE, _WINDOW_SIDE, 0)
    reached = [tile.core for tile in cells if region.mask.read(tile.core).any()]
    count = min(len(reached), max(1, pixels // _WINDOW_SIDE**2))
    return [reached[int(index)] for index in generator.permutation(len(reached))[:count]]


def _any_data(scene: Scene, block: NDArray[np.generic], window: Window) -> NDArray[np.bool_]:
    """Pixels of a window in which at least one band holds data, `(row, col)`."""
    here = np.any([scene.holds_data(band[None]) for band in block], axis=0)
    return np.asarray(here, bool) & scene.valid(block[:0], window)


def _present_bands(windows: Sequence[_Sampled]) -> NDArray[np.bool_]:
    """Bands that hold data somewhere in the sample, `(band,)`."""
    here = [
        [bool(window.region.scene.holds_data(band[None]).any()) for band in window.block]
        for window in windows
    ]
    return np.asarray(np.any(here, axis=0), bool)


def _kept(
    window: _Sampled, present: NDArray[np.bool_]
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """A window's bands that hold data, and the pixels in which all of them do and that count."""
    block = window.block if present.all() else window.block[present]
    return block, window.region.scene.holds_data(block) & window.counts


def _names(regions: Sequence[Region]) -> str:
    return ", ".join(region.scene.path for region in regions)


def _check_pixels(sample: Sample, regions: Sequence[Region]) -> None:
    valid = sum(int(mask.sum()) for _, mask in sample)
    bands = len(sample[0][0])
    if valid <= bands:
        raise InputError(
            f"{_names(regions)}: {valid} valid pixels in the sample are too few for {bands} bands "
            "(is the nodata value right, are bad bands marked, does the mask reach enough?)"
        )
