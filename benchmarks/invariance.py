"""Whether a map depends on tile size, threads or worker processes.

    python -m benchmarks.invariance
    python -m benchmarks.invariance --scene indian_pines.tif city.bsq

A default model of each method labels the scene with several tile sizes, each on several engines.
Of one tile size every map must have the same bytes; of another size, labels may differ from those
of the scene as one tile in ties of floating-point sums only.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from benchmarks.make_scene import SOURCE
from benchmarks.results import Section, add_record_option, report, table
from hsiclust.engine import EngineOptions
from hsiclust.process import prepare_process

METHODS = ("kmeans", "sscc")
ENGINES: Mapping[str, EngineOptions] = {
    "1 thread": EngineOptions(threads=1),
    "4 threads": EngineOptions(threads=4),
    "2 processes of 1 thread": EngineOptions(workers=2, threads=2),
    "2 processes of 2 threads": EngineOptions(workers=2, threads=4),
    "4 processes of 1 thread": EngineOptions(workers=4, threads=4),
}


@dataclass(frozen=True)
class Maps:
    """Maps of one tile size.

    Attributes:
        tiles: Tiles of a map.
        digests: SHA-256 of both files of each engine, labels and confidence.
        labels: Class numbers, `(row, col)`, of the first engine.
    """

    tiles: int
    digests: Sequence[str]
    labels: NDArray[np.uint8]

    @property
    def same(self) -> int:
        """Maps with the bytes of the first."""
        return sum(digest == self.digests[0] for digest in self.digests)


def label(scene: Path, model: Path, tile: int, folder: Path) -> Maps:
    """Label a scene with one tile size on every engine."""
    from hsiclust.api import PredictOptions, predict
    from hsiclust.prediction_plan import confidence_path

    output = folder / "map.tif"
    files = [output, confidence_path(output)]
    digests, labels, tiles = [], [], 0
    for name, engine in ENGINES.items():
        options = PredictOptions(tile=tile, confidence=True, overwrite=True, engine=engine)
        tiles = predict(str(scene), model, output, options).tiles
        labels.append(_labels(output))
        content = b"".join(file.read_bytes() for file in files)
        digests.append(hashlib.sha256(content).hexdigest())
        print(f"{scene.name}, tile {tile}, {name}: {digests[-1][:12]}", file=sys.stderr)
    return Maps(tiles, digests, labels[0])


def _labels(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        labels: NDArray[np.uint8] = dataset.read(1)
    return labels


def lines(scene: Path, method: str, sizes: Sequence[int], folder: Path) -> list[list[str]]:
    """The rows of one scene and method."""
    from hsiclust.api import TrainOptions, train

    model = folder / "model.safetensors"
    train([str(scene)], model, TrainOptions(method=method, overwrite=True))
    with rasterio.open(scene) as dataset:
        whole = max(dataset.shape)
    first = label(scene, model, whole, folder)
    found = {size: label(scene, model, size, folder) for size in sizes if size < whole}
    return [
        [
            scene.stem,
            method,
            "whole scene" if maps is first else f"{size} x {size}",
            str(maps.tiles),
            f"{maps.same} of {len(maps.digests)}",
            f"{int((maps.labels != first.labels).sum())} of {first.labels.size}",
            f"{float((maps.labels == first.labels).mean()):.6f}",
        ]
        for size, maps in {whole: first, **found}.items()
    ]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scene", type=Path, nargs="+", default=[SOURCE], help="Indian Pines")
    parser.add_argument("--tiles", type=int, nargs="+", default=[100, 64, 32])
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Label every scene in every way and print the table."""
    arguments = parse_arguments(argv)
    prepare_process()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Indian Pines has no place
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for scene in arguments.scene:
            for method in METHODS:
                rows += lines(scene, method, arguments.tiles, Path(name))
    header = (
        *("scene", "method", "tile", "tiles", "maps with the same bytes"),
        *("pixels unlike one tile", "agreement"),
    )
    body = (
        f"Models trained with the defaults. Each tile size on {len(ENGINES)} engines "
        f"({', '.join(ENGINES)}); the bytes are those of map and confidence map together. "
        f"Agreement is the share of pixels with the label that the scene has as one tile.\n\n"
        f"{table(header, rows)}"
    )
    title = "Maps whatever the tiles and workers"
    report(Section("invariance", title, body), arguments.record)


if __name__ == "__main__":
    main()
