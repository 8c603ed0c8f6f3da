"""Labelling speed of the dense SSCC network against the paper's patch-wise encoder.

    python -m benchmarks.dense_vs_original

Both label components of the same scene in one process, one after the other, several times; each
round gives one ratio. The dense network labels the whole scene again and again, the original one a
part of it that is large enough to be timed. The weights are random: they do not change the speed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.make_scene import SOURCE
from benchmarks.results import Section, add_record_option, report, table, use_cores
from hsiclust.process import prepare_process

if TYPE_CHECKING:
    from hsiclust.components import Components
    from hsiclust.labeller import TorchLabeller

_CLASSES = 16
_RECIPES = {"dense": "default", "original": "paper"}


@dataclass(frozen=True)
class Subject:
    """A network with what it labels.

    Attributes:
        labeller: The network, ready.
        components: What it labels, with its halo.
        pixels: Pixels of a pass.
        passes: Passes of a round.
        multiply_adds: Of one pixel.
    """

    labeller: TorchLabeller
    components: Components
    pixels: int
    passes: int
    multiply_adds: float

    def rate(self) -> float:
        """Pixels labelled a second over one round."""
        start = perf_counter()
        for _ in range(self.passes):
            self.labeller(self.components)
        return self.passes * self.pixels / (perf_counter() - start)


def subject(scene: Path, encoder: str, side: int, passes: int) -> Subject:
    """A fresh default network of this encoder and the middle `side x side` pixels of the scene."""
    import torch

    from hsiclust.components import SceneComponents
    from hsiclust.grid import Window
    from hsiclust.labeller import TorchLabeller
    from hsiclust.models.encoder import count_multiply_adds
    from hsiclust.recipe import initial_model
    from hsiclust.scene import Scene
    from hsiclust.tilegrid import TileGrid
    from hsiclust.trainoptions import TrainOptions

    cpu = torch.device("cpu")
    model = initial_model([str(scene)], TrainOptions(classes=_CLASSES, recipe=_RECIPES[encoder]))
    source = SceneComponents.of(Scene.open(scene), model.labelling_transform, model.sensor, cpu)
    rows, cols = min(side, source.grid.rows), min(side, source.grid.cols)
    area = Window((source.grid.rows - rows) // 2, (source.grid.cols - cols) // 2, rows, cols)
    tile = TileGrid(source.grid.window, area, rows, cols, model.method.halo)[0]
    settled = model.method.settled()
    # What a pixel costs inside a large tile; the original encoder takes each pixel by itself.
    counted = count_multiply_adds(settled, model.method.seen, 256 if passes > 1 else 16)
    return Subject(
        TorchLabeller(model.method, cpu), source.read(tile), area.pixels, passes, counted
    )


def line(name: str, subject: Subject, rates: Sequence[float]) -> list[str]:
    """A row of the table."""
    return [
        name,
        f"{subject.multiply_adds:,.0f}",
        f"{subject.passes} x {subject.pixels}",
        *(f"{rate:,.0f}" for rate in spread(rates)),
    ]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Least, median, greatest."""
    return min(values), statistics.median(values), max(values)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scene", type=Path, default=SOURCE, help="the carried Indian Pines")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--passes", type=int, default=40, help="dense passes of a round, 40")
    parser.add_argument("--side", type=int, default=48, help="side of the original's part, 48")
    parser.add_argument("--threads", type=int, default=2)
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Alternate the two networks and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.threads)
    prepare_process()
    import torch

    torch.set_num_threads(arguments.threads)
    dense = subject(arguments.scene, "dense", 2**30, arguments.passes)
    original = subject(arguments.scene, "original", arguments.side, 1)
    dense.rate()  # libraries choose their kernels in the first pass
    rates: dict[str, list[float]] = {"dense": [], "original": []}
    for number in range(arguments.rounds):
        rates["dense"].append(dense.rate())
        rates["original"].append(original.rate())
        print(f"round {number}: {rates['dense'][-1] / rates['original'][-1]:.0f}", file=sys.stderr)
    ratios = [fast / slow for fast, slow in zip(rates["dense"], rates["original"], strict=True)]
    header = (
        *("network", "multiply-adds a pixel", "pixels a round"),
        *("pixels/s, least", "median", "greatest"),
    )
    rows = [
        line("dense (default)", dense, rates["dense"]),
        line("original", original, rates["original"]),
    ]
    least, median, greatest = spread(ratios)
    work = original.multiply_adds / dense.multiply_adds
    body = (
        f"{arguments.threads} threads, float32, {arguments.rounds} rounds, the two in turn.\n\n"
        f"{table(header, rows)}\n\n"
        f"Dense over original, round by round: least {least:,.0f}, **median {median:,.0f}**, "
        f"greatest {greatest:,.0f} times as many pixels a second; {work:,.0f} times fewer "
        "multiply-adds a pixel."
    )
    title = "Dense network against the original encoder"
    report(Section("dense_vs_original", title, body), arguments.record)


if __name__ == "__main__":
    main()
