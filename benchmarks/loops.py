"""Loops that people write to label a scene, each as a command of its own.

    python -m benchmarks.loops windows scene.tif --output map.tif
    python -m benchmarks.loops chips scene.tif --model model.safetensors --output map.tif

`windows`, `locked`: k-means of scikit-learn over windows of rasterio, as the documentation of
rasterio shows it: one window after the other, and with threads and locks. `spectral`: k-means of
Spectral Python on an array in memory. `chips`: a network over overlapping chips in the manner of
the tilers of geospatial deep learning: a PyTorch data loader, batches, float32.

Prints a JSON object with the seconds of the loop; learning and loading of libraries come before.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from benchmarks.make_scene import SOURCE

if TYPE_CHECKING:
    import torch

    from benchmarks.alone import Alone

_CLASSES: Final = 16
_STRIP: Final = 64  # rows of a window where the file has no tiles
_CHIP: Final = 256  # side of a chip
_BATCH: Final = 8
_ITERATIONS: Final = 3  # of Spectral Python's k-means

Facts = dict[str, object]
Classify = Callable[[NDArray[Any]], NDArray[np.uint8]]


def windows(options: argparse.Namespace) -> Facts:
    """scikit-learn, one window after the other."""
    classify = _kmeans()
    begin = perf_counter()
    with rasterio.open(options.scene) as scene, _map_of(scene, options.output) as out:
        for window in _windows(scene):
            out.write(classify(scene.read(window=window)), 1, window=window)
    return {"seconds": perf_counter() - begin, "pixels": _pixels(options.scene)}


def locked(options: argparse.Namespace) -> Facts:
    """scikit-learn in threads that share a dataset to read and one to write behind locks."""
    classify = _kmeans()
    reading, writing = threading.Lock(), threading.Lock()
    begin = perf_counter()
    with rasterio.open(options.scene) as scene, _map_of(scene, options.output) as out:

        def work(window: Window) -> None:
            with reading:
                block = scene.read(window=window)
            labels = classify(block)
            with writing:
                out.write(labels, 1, window=window)

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for _ in pool.map(work, _windows(scene)):
                pass
    return {"seconds": perf_counter() - begin, "pixels": _pixels(options.scene)}


def spectral(options: argparse.Namespace) -> Facts:
    """Spectral Python's k-means on the first rows of the scene, in memory: seconds an iteration."""
    import spectral as package

    package.settings.show_progress = False
    with rasterio.open(options.scene) as scene:
        rows = min(options.rows, scene.height)
        block = scene.read(window=Window(0, 0, scene.width, rows))
    image = np.ascontiguousarray(np.moveaxis(block, 0, -1))  # (row, col, band)
    begin = perf_counter()
    package.kmeans(image, _CLASSES, _ITERATIONS)
    seconds = (perf_counter() - begin) / _ITERATIONS
    return {"seconds": seconds, "pixels": rows * block.shape[2]}


def chips(options: argparse.Namespace) -> Facts:
    """A network over overlapping chips.

    Scores of all classes are added up in an array of the scene's size with `--accumulate`;
    otherwise each chip's classes are written to their window.
    """
    import torch
    from torch.utils.data import DataLoader

    from benchmarks.alone import Alone

    # One chip after the other: torch's own threads are the parallelism here.
    alone = Alone(options.model, 1)
    transform = alone.model.labelling_transform
    mean = torch.from_numpy(transform.mean).float()[:, None]
    projection = torch.from_numpy(transform.projection).float()
    begin = perf_counter()
    data = _Chips(options.scene, alone.halo)
    loader: Any = DataLoader(cast(Any, data), _BATCH, num_workers=options.loaders)
    with rasterio.open(options.scene) as scene, _map_of(scene, options.output) as out:
        sums = _Sums(alone, scene.height, scene.width) if options.accumulate else None
        for batch in loader:
            with torch.inference_mode():
                image = batch["image"]
                components = projection @ (image.flatten(2) - mean)
                components = components.unflatten(2, image.shape[2:])
                scores = alone.network(components)
            for index, score in zip(batch["index"].tolist(), scores, strict=True):
                window = data.core(index)
                if sums is not None:
                    sums.add(score, window)
                else:
                    out.write((score.argmax(dim=0) + 1).to(torch.uint8).numpy(), 1, window=window)
        if sums is not None:
            out.write(sums.labels(), 1)
    return {"seconds": perf_counter() - begin, "pixels": _pixels(options.scene)}


class _Chips:
    """Squares of a scene with a fixed overlap; the last ones are shifted back to its edge.

    At the edge of the scene a chip is completed by reflection, as hsiclust does it.

    Args:
        scene: The file.
        halo: Pixels on each side of a chip that get no label.
    """

    def __init__(self, scene: Path, halo: int) -> None:
        self.scene, self.halo = scene, halo
        self.dataset: Any = None  # opened in the process that reads
        with rasterio.open(scene) as dataset:
            starts = (self._starts(length) for length in (dataset.height, dataset.width))
        self.places = list(product(*starts))

    def _starts(self, length: int) -> list[int]:
        core = _CHIP - 2 * self.halo
        if length < core:
            raise SystemExit(f"{self.scene}: smaller than a chip of {core} pixels; give more")
        return [*range(0, length - core, core), length - core]

    def __len__(self) -> int:
        return len(self.places)

    def core(self, index: int) -> Window:
        """Pixels that a chip labels."""
        row, col = self.places[index]
        return Window(col, row, _CHIP - 2 * self.halo, _CHIP - 2 * self.halo)

    def __getitem__(self, index: int) -> Mapping[str, torch.Tensor | int]:
        import torch

        self.dataset = self.dataset or rasterio.open(self.scene)
        spans, pads = [], []
        sizes = (self.dataset.height, self.dataset.width)
        for start, length in zip(self.places[index], sizes, strict=True):
            first, last = start - self.halo, start - self.halo + _CHIP
            spans.append((max(first, 0), min(last, length)))
            pads.append((max(-first, 0), max(last - length, 0)))
        block = self.dataset.read(window=tuple(spans))
        image = np.pad(block, ((0, 0), *pads), mode="reflect")
        return {"image": torch.from_numpy(image.astype(np.float32)), "index": index}


class _Sums:
    """Scores of a whole scene, added up chip by chip, and how many each pixel got."""

    def __init__(self, alone: Alone, rows: int, cols: int) -> None:
        import torch

        self.scores = torch.zeros(alone.model.method.classes, rows, cols)
        self.counts = torch.zeros(rows, cols)

    def add(self, scores: torch.Tensor, window: Window) -> None:
        """Scores of a chip, `(K, row, col)`."""
        at = (..., *window.toslices())
        self.scores[at] += scores
        self.counts[at] += 1

    def labels(self) -> NDArray[np.uint8]:
        """Class numbers, `(row, col)`."""
        labels: NDArray[np.uint8] = (self.scores / self.counts).argmax(dim=0).numpy() + 1
        return labels.astype(np.uint8)


def _kmeans() -> Classify:
    """k-means of the carried scene's spectra, of which made scenes consist."""
    from sklearn.cluster import MiniBatchKMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(SOURCE) as dataset:
            spectra = dataset.read().astype(np.float32)
    fitted = MiniBatchKMeans(_CLASSES, random_state=0, n_init=3)
    fitted.fit(spectra.reshape(len(spectra), -1).T)

    def classify(block: NDArray[Any]) -> NDArray[np.uint8]:
        pixels = block.reshape(len(block), -1).T.astype(np.float32)
        labels: NDArray[np.uint8] = (fitted.predict(pixels) + 1).astype(np.uint8)
        return labels.reshape(block.shape[1:])

    return classify


def _windows(scene: Any) -> Iterator[Window]:
    """The file's own blocks, or strips of full rows where they are no tiles."""
    if scene.block_shapes[0][1] < scene.width:
        yield from (window for _, window in scene.block_windows(1))
        return
    for row in range(0, scene.height, _STRIP):
        yield Window(0, row, scene.width, min(_STRIP, scene.height - row))


def _map_of(scene: Any, path: Path) -> Any:
    profile = {"driver": "GTiff", "height": scene.height, "width": scene.width, "count": 1}
    place = {"crs": scene.crs, "transform": scene.transform}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    return rasterio.open(path, "w", dtype="uint8", nodata=0, **profile, **place, **tiles)


def _pixels(scene: Path) -> int:
    with rasterio.open(scene) as dataset:
        return int(dataset.height * dataset.width)


LOOPS: Final[Mapping[str, Callable[[argparse.Namespace], Facts]]] = {
    "windows": windows,
    "locked": locked,
    "spectral": spectral,
    "chips": chips,
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--output", type=Path, help="map to write")
    parser.add_argument("--model", type=Path, help="chips: the network")
    parser.add_argument("--accumulate", action="store_true", help="chips: add up all scores")
    parser.add_argument("--loaders", type=int, default=0, help="chips: processes that read, 0")
    parser.add_argument("--rows", type=int, default=80, help="spectral: of the scene, 80")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run one loop and print its figures."""
    options = parse_arguments(argv)
    print(json.dumps(LOOPS[options.loop](options)))


if __name__ == "__main__":
    main()
