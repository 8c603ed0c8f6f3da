"""Labelling on a GPU: the network alone, the whole command, and how much of it the GPU computes.

    python -m benchmarks.gpu --folder /scratch
    python -m benchmarks.gpu --device cpu --size 64MiB --cols 512 --no-record

Without a CUDA device it says so and measures nothing; `--device cpu` is for trying it.
"""

from __future__ import annotations

import argparse
import copy
import csv
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from benchmarks.command import hsiclust, measure, run, train
from benchmarks.results import (
    Section,
    add_record_option,
    median_and_extremes,
    report,
    table,
    use_cores,
)
from benchmarks.scenes import add_scene_options, scene_of, workplace
from hsiclust.process import prepare_process

if TYPE_CHECKING:
    import torch
    from torch import nn

_CLASSES: Final = 16
_SIDE: Final = 256  # of a tile's core
_TILES: Final = (1, 8)  # that the network gets at once
_SAMPLES: Final = 100  # milliseconds between samples of nvidia-smi


@dataclass(frozen=True)
class Encoder:
    """A network whose speed is measured.

    Attributes:
        name: For people.
        network: As it labels, float32.
        components: Of its input.
        edge: Pixels that a tile has beside its core, both sides together.
        side: Of a tile's core.
    """

    name: str
    network: nn.Module
    components: int
    edge: int
    side: int


@dataclass(frozen=True)
class Format:
    """How numbers are kept while a network computes.

    Attributes:
        name: For people.
        dtype: Name of the type in torch.
        channels_last: Whether weights and input have the channels of a pixel side by side.
        tf32: Whether float32 products may be rounded to the 19 bits of TF32; CUDA only.
    """

    name: str
    dtype: str
    channels_last: bool
    tf32: bool = False


FORMATS: Final = (
    Format("float32", "float32", False),
    Format("float32, channels last", "float32", True),
    Format("TF32, channels last", "float32", True, tf32=True),
    Format("bfloat16", "bfloat16", False),
    Format("bfloat16, channels last", "bfloat16", True),
)


@dataclass
class Labelling:
    """What the whole command took.

    Attributes:
        pixels: Of the scene.
        labelling: Seconds of the command's own report, a round each.
        command: Seconds with the start of the program.
        busy: Share of that report's time in which nvidia-smi saw the GPU at work; may be empty.
        network: Share in which the network was at work, by a clock around it.
    """

    pixels: int = 0
    labelling: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)


def encoders(device: torch.device) -> list[Encoder]:
    """The networks; the patch-wise one gets smaller tiles, which take it long enough."""
    from benchmarks.alone import fresh_network
    from hsiclust.models.settings import SsccConfig

    def encoder(name: str, settings: SsccConfig, components: int, edge: int, side: int) -> Encoder:
        return Encoder(name, fresh_network(settings, components, _CLASSES), components, edge, side)

    small = 64 if device.type == "cuda" else 8
    return [
        encoder("dense, 48 channels (default)", SsccConfig(), 16, 14, _SIDE),
        encoder("dense, 64 channels", SsccConfig(width=64), 16, 14, _SIDE),
        encoder("original", SsccConfig.paper(), 8, 10, small),
    ]


def rate(encoder: Encoder, form: Format, tiles: int, device: torch.device, least: float) -> float:
    """Pixels a second: components on the device to class numbers on the device."""
    import torch

    from benchmarks.alone import Clock

    order = torch.channels_last if form.channels_last else torch.contiguous_format
    dtype = getattr(torch, form.dtype)
    network: Any = copy.deepcopy(encoder.network).to(device, dtype)
    network = network.to(memory_format=order)
    side = encoder.side + encoder.edge
    values = torch.randn(tiles, encoder.components, side, side, device=device, dtype=dtype)
    values = values.contiguous(memory_format=order)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = form.tf32

    def seconds(passes: int) -> float:
        clock = Clock(device)
        begin = clock.now()
        with torch.inference_mode():
            for _ in range(passes):
                (network(values).argmax(dim=1) + 1).to(torch.uint8)
        clock.add(begin, clock.now())
        return clock.seconds

    seconds(2)  # libraries choose their kernels in the first passes
    passes = max(1, round(least / seconds(1)))
    return passes * tiles * encoder.side**2 / seconds(passes)


def network_rows(device: torch.device, options: argparse.Namespace) -> list[list[str]]:
    """Rows of the table of networks, Mpixel/s."""
    rows = []
    for encoder in encoders(device):
        for form in FORMATS:
            if form.tf32 and device.type != "cuda":
                continue
            rates = [
                [rate(encoder, form, tiles, device, options.seconds) for _ in range(options.rounds)]
                for tiles in _TILES
            ]
            texts = [median_and_extremes([each / 1e6 for each in found], 4) for found in rates]
            rows.append([encoder.name, form.name, str(encoder.side), *texts])
            print(f"{encoder.name}, {form.name}: {texts}", file=sys.stderr)
    return rows


def label(scene: Path, model: Path, output: Path, options: argparse.Namespace) -> Labelling:
    """The whole command, several times: left alone, watched, and with a clock."""
    found = Labelling()
    words = ("-m", str(model), "-o", str(output), "--json", "--overwrite")
    command = hsiclust("predict", scene, *words, "--device", options.device)
    clocked = [sys.executable, "-m", "benchmarks.occupancy", str(scene), "--model", str(model)]
    clocked += ["--output", str(output), "--device", options.device]
    for _ in range(options.rounds):
        with _utilisation(options.device) as samples:
            done = measure(command)
            end = perf_counter()
        spent = float(done.facts["seconds"])
        found.pixels = done.facts["pixels"]
        found.labelling.append(spent)
        found.command.append(done.seconds)
        # The map is ready a moment before the program has ended.
        during = [share for at, share in samples if end - spent <= at <= end]
        if during:
            found.busy.append(statistics.fmean(during))
        clock = run(clocked)
        found.network.append(clock["network"] / clock["seconds"])
        print(f"{scene.name}: {found}", file=sys.stderr)
    return found


@contextmanager
def _utilisation(device: str) -> Iterator[list[tuple[float, float]]]:
    """Samples of what nvidia-smi calls utilisation, (moment, 0 to 1), while the context lasts."""
    samples: list[tuple[float, float]] = []
    program = shutil.which("nvidia-smi")
    if program is None or not device.startswith("cuda"):
        yield samples
        return
    number = device.partition(":")[2] or "0"
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", str(_SAMPLES)]
    process = subprocess.Popen([program, "-i", number, *query], stdout=subprocess.PIPE, text=True)

    def collect() -> None:
        for row in csv.reader(process.stdout or ()):
            if row and row[0].strip().isdigit():
                samples.append((perf_counter(), int(row[0]) / 100))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield samples
    finally:
        process.terminate()
        process.wait()
        thread.join()


def body(
    name: str, networks: Sequence[Sequence[str]], done: Labelling, options: argparse.Namespace
) -> str:
    """What the section says."""
    header = (
        *("encoder", "numbers", "side of a tile"),
        *(f"{tiles} tile{'s' if tiles > 1 else ''} at once, Mpixel/s" for tiles in _TILES),
    )
    rates = [done.pixels / spent / 1e6 for spent in done.labelling]
    labelling_header = (
        *("labelling, s", "whole command, s", "Mpixel/s"),
        *("network at work", "GPU in use (nvidia-smi)"),
    )
    row = [
        median_and_extremes(done.labelling),
        median_and_extremes(done.command),
        median_and_extremes(rates),
        median_and_extremes([100 * share for share in done.network], 1) + " %",
        median_and_extremes([100 * share for share in done.busy], 1) + " %" if done.busy else "-",
    ]
    return (
        f"On {name}. Median of {options.rounds} rounds, least and greatest in brackets.\n\n"
        "The network alone, components on the device to class numbers on the device; 16 components "
        "for the dense encoders, which put the channels last themselves, 8 for the original one; "
        "random weights. Products of float32 are not rounded unless TF32 is named.\n\n"
        f"{table(header, networks)}\n\n"
        f"`hsiclust predict --device {options.device}` with the default SSCC model, trained on "
        f"Indian Pines, on a made scene, ENVI BIL, {options.size}, {options.cols} columns, 200 "
        "bands of 16 bits, from the page cache as far as that holds it. Network at work: the share "
        "of the labelling between begin and end of the network's calls on the device's own clock, "
        "in a run of its own. GPU in use: samples of the driver's utilisation meanwhile.\n\n"
        f"{table(labelling_header, [row])}"
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_scene_options(parser, "4GiB")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1, help="of a measurement at least, 1")
    parser.add_argument("--model", type=Path, help="trained on Indian Pines when not given")
    parser.add_argument("--cores", type=int, help="processors to use, all")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure networks and command and print the tables."""
    options = parse_arguments(argv)
    use_cores(options.cores)
    prepare_process()
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured (--device cpu to try)", file=sys.stderr)
        return
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    networks = network_rows(device, options)
    with workplace(options.folder) as folder, workplace(None) as scratch:
        model = options.model or train(scratch)
        scene = scene_of(folder, "bil", options.size, options.cols)
        done = label(scene, model, scratch / "map.tif", options)
    # The section is that of a GPU: a trial elsewhere must not take its place.
    record = options.record and device.type == "cuda"
    section = Section("gpu", f"Labelling on {name}", body(name, networks, done, options))
    report(section, record)


if __name__ == "__main__":
    main()
