"""Rate and labels of ONNX Runtime against torch.

    python -m benchmarks.onnx_rate
    python -m benchmarks.onnx_rate --more EnMAP_BerlinUrbanGradient.bsq 6

A default SSCC model is trained on each scene and exported. Both label the whole scene, and their
labels are compared. With the first scene's model both label blocks of several sizes, one thread,
in turn: from components, from bands in float32, and from bands in int16 as scenes have them, with
what has to be done to these first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.make_scene import SOURCE
from benchmarks.results import Section, add_record_option, report, table, use_cores
from hsiclust.process import prepare_process

if TYPE_CHECKING:
    from hsiclust.labeller import Labels
    from hsiclust.modelfile import FittedModel
    from hsiclust.onnxfile import OnnxModel

SIDES: Final = (64, 128, 256)
_CLASSES = 16
_PIXELS = 200_000  # of a timing, at least

Runs = dict[str, tuple[Callable[[], object], Callable[[], object]]]
"""What is timed: by torch, by ONNX Runtime."""


@dataclass(frozen=True)
class Pair:
    """A model both ways, and the scene that it was trained on.

    Attributes:
        scene: The scene.
        torch: The model.
        onnx: Its ONNX file.
    """

    scene: Path
    torch: FittedModel
    onnx: OnnxModel


def pair(scene: Path, classes: int, folder: Path) -> Pair:
    """Train a default model on a scene and export it."""
    from hsiclust.api import TrainOptions, export, train
    from hsiclust.modelfile import load_model
    from hsiclust.onnxfile import load_onnx

    model, graph = folder / f"{scene.stem}.safetensors", folder / f"{scene.stem}.onnx"
    train([str(scene)], model, TrainOptions(classes=classes))
    export(model, graph)
    return Pair(scene, load_model(model), load_onnx(graph))


def both_labels(pair: Pair) -> tuple[Labels, Labels]:
    """Labels of the whole scene in one piece: by torch, by ONNX Runtime."""
    import torch

    from hsiclust.components import SceneComponents
    from hsiclust.labeller import TorchLabeller
    from hsiclust.onnxlabeller import OnnxLabeller, RawBands
    from hsiclust.scene import Scene
    from hsiclust.tilegrid import TileGrid

    cpu = torch.device("cpu")
    scene = Scene.open(pair.scene)
    area = scene.grid.window
    tile = TileGrid(area, area, area.rows, area.cols, pair.onnx.halo)[0]
    components = SceneComponents.of(scene, pair.torch.labelling_transform, pair.torch.sensor, cpu)
    bands = SceneComponents(scene, RawBands.of(pair.onnx), components.bands, cpu)
    return (
        TorchLabeller(pair.torch.method, cpu, confidence=True)(components.read(tile)),
        OnnxLabeller(pair.onnx, "cpu")(bands.read(tile)),
    )


def agreement(pair: Pair) -> list[str]:
    """A row of the table of labels."""
    import numpy as np

    one, other = both_labels(pair)
    differ = int((one.classes != other.classes).sum())
    confidence = np.abs(one.percent - other.percent).max()
    return [
        pair.scene.stem,
        str(pair.onnx.depth),
        str(pair.onnx.components),
        str(one.classes.size),
        str(differ),
        f"{1 - differ / one.classes.size:.6f}",
        str(confidence),
    ]


def runs(pair: Pair, side: int) -> Runs:
    """What both do with a block of `side x side` pixels and its halo."""
    import onnxruntime
    import torch
    from torch import Tensor

    from hsiclust.components import Components
    from hsiclust.labeller import TorchLabeller
    from hsiclust.onnxexport import Graph, traced
    from hsiclust.onnxlabeller import OnnxLabeller, RawBands

    class Network(Graph):
        """What comes after the transform."""

        def forward(self, bands: Tensor) -> tuple[Tensor, Tensor]:
            return self.labels_of(bands[None])

    transform, full = pair.torch.labelling_transform, side + 2 * pair.onnx.halo
    generator = torch.Generator().manual_seed(0)
    shape = (pair.onnx.depth, full, full)
    whole = torch.randint(0, 8000, shape, dtype=torch.int16, generator=generator)
    bands, valid = whole.float(), torch.ones(full, full, dtype=torch.bool)
    components = Components(transform.apply(bands, valid), valid)
    by_torch = TorchLabeller(pair.torch.method, torch.device("cpu"), confidence=True)
    by_onnx, raw = OnnxLabeller(pair.onnx, "cpu"), RawBands.of(pair.onnx)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    network = onnxruntime.InferenceSession(
        traced(Network(pair.torch), transform.components, pair.onnx.halo).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    values = {"bands": components.values.numpy()}

    def torch_whole(block: Tensor) -> Labels:
        return by_torch(Components(transform.apply(block, valid), valid))

    return {
        "components": (lambda: by_torch(components), lambda: network.run(None, values)),
        "float32 bands": (lambda: torch_whole(bands), lambda: by_onnx(Components(bands, valid))),
        "int16 bands": (
            lambda: torch_whole(whole),
            lambda: by_onnx(Components(raw.apply(whole, valid), valid)),
        ),
    }


def rates(pair: Pair, side: int, rounds: int) -> list[list[str]]:
    """Rows of the table of rates."""
    rows = []
    for name, each in runs(pair, side).items():
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 1):
            for found, function in zip(times, each, strict=True):
                taken = microseconds(function, side)
                if number:  # libraries choose their kernels in the first round
                    found.append(taken)
        by_torch, by_onnx = (statistics.median(found) for found in times)
        ratio = f"{by_torch / by_onnx:.2f}"
        rows.append([name, f"{side} x {side}", f"{by_torch:.3f}", f"{by_onnx:.3f}", ratio])
    return rows


def microseconds(function: Callable[[], object], side: int) -> float:
    """Time of a pixel."""
    count = max(1, _PIXELS // side**2)
    start = perf_counter()
    for _ in range(count):
        function()
    return (perf_counter() - start) / (count * side**2) * 1e6


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--more",
        nargs=2,
        action="append",
        default=[],
        metavar=("SCENE", "CLASSES"),
        help="compare labels on this scene too; repeatable",
    )
    parser.add_argument("--rounds", type=int, default=7)
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, export, compare labels and rates, print the tables."""
    arguments = parse_arguments(argv)
    use_cores(1)
    prepare_process()
    import onnxruntime
    import torch

    torch.set_num_threads(1)
    scenes = [(SOURCE, _CLASSES), *((Path(scene), int(count)) for scene, count in arguments.more)]
    with tempfile.TemporaryDirectory() as folder:
        pairs = [pair(scene, classes, Path(folder)) for scene, classes in scenes]
        labels = [agreement(each) for each in pairs]
        times = [row for side in SIDES for row in rates(pairs[0], side, arguments.rounds)]
    one = pairs[0]
    body = (
        f"ONNX Runtime {onnxruntime.__version__} on the CPU, default SSCC models.\n\n"
        "Labels of a whole scene, in one piece:\n\n"
        + table(
            (
                *("scene", "bands", "components", "pixels", "other class", "agreement"),
                "largest difference of confidence, per cent",
            ),
            labels,
        )
        + f"\n\nMicroseconds a pixel of {one.scene.stem}'s model ({one.onnx.depth} bands, "
        f"{one.onnx.components} components), one thread, float32, median of {arguments.rounds} "
        "rounds, the two in turn; a pixel is one that is labelled, the halo comes on top:\n\n"
        + table(("from", "block", "torch", "ONNX Runtime", "torch / ONNX Runtime"), times)
    )
    report(Section("onnx_rate", "ONNX Runtime against torch", body), arguments.record)


if __name__ == "__main__":
    main()
