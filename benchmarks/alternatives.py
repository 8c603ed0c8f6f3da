"""Labelling a scene against what one would run instead, on the same scene and machine.

    python -m benchmarks.alternatives --folder /scratch
    python -m benchmarks.alternatives --size 64MiB --cols 512 --rounds 1 --no-record

Two models: k-means, by scikit-learn over windows of rasterio or by Spectral Python, and hsiclust's
default network, over overlapping chips in the manner of the tilers of geospatial deep learning.
Each runs as a program of its own; `benchmarks/loops.py` holds the loops.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from benchmarks.command import hsiclust, train
from benchmarks.results import (
    Section,
    add_record_option,
    median_and_extremes,
    report,
    table,
    use_cores,
)
from benchmarks.scenes import LAYOUTS, add_scene_options, remove_scene, scene_of, workplace
from benchmarks.tree import Watched, watch

_SPECTRAL = "Spectral Python `kmeans`, one iteration on the first rows"


@dataclass
class Way:
    """A way to label a scene.

    Attributes:
        name: For people.
        command: Without the output.
        writes: The option that names the output; None where nothing is written.
        same_as: The way whose map has to be the same.
        runs: One a round.
        agreement: Least part of the pixels with the same class as there; None without such.
    """

    name: str
    command: Sequence[str]
    writes: str | None
    same_as: str | None = None
    runs: list[Watched] = field(default_factory=list)
    agreement: float | None = None


def ways(scene: Path, network: Path, kmeans: Path, rows: int) -> list[Way]:
    """Everything that is compared on a scene."""

    def predict(model: Path) -> list[str]:
        return hsiclust("predict", scene, "-m", model, "--json", "--overwrite")

    def loop(name: str, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "benchmarks.loops", name, str(scene), *map(str, words)]

    net, ours = ("--model", network), "hsiclust predict, SSCC"
    return [
        Way("hsiclust predict, k-means", predict(kmeans), "-o"),
        Way("scikit-learn, window after window", loop("windows"), "--output"),
        Way("scikit-learn, threads and locks", loop("locked"), "--output"),
        Way(_SPECTRAL, loop("spectral", "--rows", str(rows)), None),
        Way(ours, predict(network), "-o"),
        Way("chips, written one by one", loop("chips", *net), "--output", ours),
        Way("chips, 2 reading processes", loop("chips", *net, "--loaders", "2"), "--output", ours),
        Way("chips, scores added up", loop("chips", *net, "--accumulate"), "--output", ours),
    ]


def measure(each: Sequence[Way], rounds: int, folder: Path) -> None:
    """Run all ways in turn, several times."""
    maps: dict[str, NDArray[np.uint8]] = {}
    output = folder / "map.tif"
    for _ in range(rounds):
        for way in each:
            written = [] if way.writes is None else [way.writes, str(output)]
            way.runs.append(watch([*way.command, *written]))
            print(f"{way.name}: {way.runs[-1]}", file=sys.stderr)
            if way.writes is None:
                continue
            with rasterio.open(output) as dataset:
                maps[way.name] = dataset.read(1)
            output.unlink()
            if way.same_as is not None:
                same = float((maps[way.name] == maps[way.same_as]).mean())
                way.agreement = min(same, 1.0 if way.agreement is None else way.agreement)


def line(layout: str, way: Way) -> list[str]:
    """A row of the table."""
    loop = [float(each.facts["seconds"]) for each in way.runs]
    rate = way.runs[0].facts["pixels"] / statistics.median(loop) / 1e6
    return [
        LAYOUTS[layout].name,
        way.name,
        median_and_extremes([each.seconds for each in way.runs]),
        median_and_extremes(loop),
        f"{rate:.3f}",
        f"{max(each.peak for each in way.runs):.0f}",
        f"{max(each.together for each in way.runs):.0f}",
        "-" if way.agreement is None else f"{way.agreement:.6f}",
    ]


def body(rows: Sequence[Sequence[str]], options: argparse.Namespace) -> str:
    """What the section says."""
    header = (
        *("layout", "way", "whole command, s", "labelling, s", "Mpixel/s"),
        *("peak of the largest process, MiB", "peak of all processes together, MiB"),
        "same class as hsiclust's SSCC map",
    )
    return (
        f"Made scenes of {options.size}, {options.cols} columns, 200 bands of 16 bits. Median of "
        f"{options.rounds} rounds, the ways in turn, least and greatest in brackets; the scene is "
        "read from the page cache as far as that holds it. Labelling is the time without the start "
        "of the program and, for scikit-learn, without the fit.\n\n"
        f"k-means with 16 clusters: `MiniBatchKMeans` of scikit-learn {version('scikit-learn')}, "
        "learned from the 21 025 spectra of Indian Pines, predicts from all 200 bands as float32, "
        "tile by tile of the file or in strips of 64 rows; hsiclust's own model, learned from the "
        "same scene, takes 20 MNF components and smooths them: the maps are not the same. "
        f"`kmeans` of Spectral Python {version('spectral')} has no way to label a second scene: it "
        "clusters an array in memory anew; the table gives one of its iterations, of which it "
        f"makes up to 20 by default, on {options.rows} rows.\n\n"
        "Chips: the network of hsiclust's SSCC model over windows of 256 x 256 pixels that overlap "
        "by its halo, by rasterio and a PyTorch `DataLoader` in batches of 8, as float32, in "
        "torch's own threads; no other package's code, but its way of working.\n\n"
        f"{table(header, rows)}"
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_scene_options(parser, "1GiB")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=["bil", "tif"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=80, help="for Spectral Python, 80")
    parser.add_argument("--model", type=Path, help="trained on Indian Pines when not given")
    parser.add_argument("--cores", type=int, help="processors to use, all")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run everything on every layout and print the table."""
    options = parse_arguments(argv)
    use_cores(options.cores)
    rows = []
    with workplace(options.folder) as folder, workplace(None) as scratch:
        for name in ("network", "kmeans"):
            (scratch / name).mkdir()
        kmeans = train(scratch / "kmeans", "--method", "kmeans")
        network = options.model or train(scratch / "network")
        for layout in options.layouts:
            scene = scene_of(folder, layout, options.size, options.cols)
            found = ways(scene, network, kmeans, options.rows)
            measure(found, options.rounds, scratch)
            rows += [line(layout, way) for way in found]
            if options.folder is None:
                remove_scene(scene)
    title = "Labelling against what one would run instead"
    report(Section("alternatives", title, body(rows, options)), options.record)


if __name__ == "__main__":
    main()
