"""Labelling in threads and in worker processes: time, memory, and whether the map is the same.

python -m benchmarks.workers --folder /scratch
python -m benchmarks.workers --size 64MiB --rounds 1 --workers 1 2 --no-record
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rasterio

from benchmarks.command import hsiclust, train
from benchmarks.results import (
    Section,
    add_record_option,
    median_and_extremes,
    report,
    table,
    use_cores,
)
from benchmarks.scenes import LAYOUTS, add_scene_options, scene_of, workplace
from benchmarks.tree import Watched, watch


@dataclass
class Setting:
    """One way to spread the work.

    Attributes:
        name: For people.
        words: Of the command line.
        runs: One a round.
        files: Hashes of the maps.
        pixels: Hashes of their class numbers.
    """

    name: str
    words: tuple[str, ...]
    runs: list[Watched] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    pixels: set[str] = field(default_factory=set)


def label(setting: Setting, scene: Path, model: Path, output: Path) -> None:
    """One run."""
    words = ("predict", scene, "-m", model, "-o", output, "--json", "--overwrite")
    done = watch(hsiclust(*words, *setting.words))
    setting.runs.append(done)
    setting.files.add(hashlib.sha256(output.read_bytes()).hexdigest())
    with rasterio.open(output) as dataset:
        setting.pixels.add(hashlib.sha256(dataset.read(1).tobytes()).hexdigest())
    output.unlink()
    print(f"{setting.name}: {done}", file=sys.stderr)


def line(setting: Setting, first: Setting) -> list[str]:
    """A row of the table; maps are compared with those of the first setting."""
    runs = setting.runs
    labelling = [float(each.facts["seconds"]) for each in runs]
    pixels = runs[0].facts["pixels"]
    return [
        setting.name,
        median_and_extremes(labelling),
        median_and_extremes([each.seconds for each in runs]),
        f"{pixels / statistics.median(labelling) / 1e6:.2f}",
        f"{max(each.processes for each in runs)}",
        f"{max(each.peak for each in runs):.0f}",
        f"{max(each.together for each in runs):.0f}",
        f"{max(each.own for each in runs):.0f}",
        _same(setting.pixels | first.pixels),
        _same(setting.files | first.files),
    ]


def _same(hashes: set[str]) -> str:
    return "same" if len(hashes) == 1 else "**differ**"


def body(settings: Sequence[Setting], options: argparse.Namespace) -> str:
    """What the section says."""
    header = (
        *("engine", "labelling, s", "whole command, s", "Mpixel/s", "processes"),
        *("peak of the largest process, MiB", "peak of all together, MiB"),
        *("without files and shared memory, MiB", "class numbers", "bytes of the map"),
    )
    return (
        f"A made scene, {LAYOUTS[options.layout].name}, {options.size}, {options.cols} columns, "
        "200 bands of 16 bits; the default SSCC model, trained on Indian Pines. Median of "
        f"{options.rounds} rounds, the settings in turn, least and greatest in brackets; the scene "
        "is read from the page cache as far as that holds it. Memory of all processes together is "
        "sampled: a page that several of them share counts several times. Maps are compared by "
        f"SHA-256, in all rounds, with those of the first line.\n\n"
        f"{table(header, [line(each, settings[0]) for each in settings])}"
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_scene_options(parser, "1GiB")
    parser.add_argument("--layout", choices=LAYOUTS, default="bil")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4], help="1 2 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="trained on Indian Pines when not given")
    parser.add_argument("--cores", type=int, help="processors to use, all")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Label the scene with every setting and print the table."""
    options = parse_arguments(argv)
    use_cores(options.cores)
    settings = [Setting("threads", ())]
    settings += [Setting(f"-j {count}", ("-j", str(count))) for count in options.workers]
    with workplace(options.folder) as folder, workplace(None) as scratch:
        model = options.model or train(scratch)
        scene = scene_of(folder, options.layout, options.size, options.cols)
        for _ in range(options.rounds):
            for setting in settings:
                label(setting, scene, model, scratch / "map.tif")
    section = Section("workers", "Labelling in threads and in processes", body(settings, options))
    report(section, options.record)


if __name__ == "__main__":
    main()
