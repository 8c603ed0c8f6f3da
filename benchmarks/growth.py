"""Memory and time of labelling as the scene grows.

    python -m benchmarks.growth --folder /scratch
    python -m benchmarks.growth --sizes 256MiB 1GiB --layouts bil --memory 2GiB

`hsiclust predict` with a default SSCC model labels made scenes of each layout and size; each scene
is deleted after its run. Peak memory is what the kernel says of the process when it has ended
(`ru_maxrss`), pages of mapped files included; a sampler splits it into memory of its own
(`RssAnon`) and mapped files (`RssFile`). It is set against what the command promises before it
reads a pixel (`--dry-run`). The scene was written just before, so it is read from the
page cache as far as that holds it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.command import facts, hsiclust, run, start, train
from benchmarks.make_scene import parse_size
from benchmarks.results import Section, add_record_option, report, table, use_cores
from benchmarks.scenes import COLS, LAYOUTS, scene_of

_SIZES: Final = ("0.25GiB", "1GiB", "4GiB", "16GiB")
_DEFAULT: Final = ("bsq", "bil", "bip", "tif", "deflate")
_EVERY = 0.02  # seconds between samples of /proc


@dataclass(frozen=True)
class Run:
    """One run of the command.

    Attributes:
        size: Bytes of the scene's pixels.
        pixels: Pixels of the scene.
        wall: Seconds of the whole command.
        labelling: Seconds of the run itself, without the start of the program.
        peak: Peak resident memory of the process, MiB.
        own: Peak of its own memory, MiB.
        mapped: Peak of its mapped files, MiB.
        promised: Peak that the command's plan foresees, MiB.
    """

    size: int
    pixels: int
    wall: float
    labelling: float
    peak: float
    own: float
    mapped: float
    promised: float


class Sampler(threading.Thread):
    """Watches what memory of a process is made of until the process ends."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.status = Path(f"/proc/{process}/status")
        self.peaks = {"RssAnon": 0.0, "RssFile": 0.0}

    def run(self) -> None:
        """Sample until the process is gone or a zombie."""
        while found := self._sample():
            for name, value in found.items():
                self.peaks[name] = max(self.peaks[name], value)
            time.sleep(_EVERY)

    def _sample(self) -> dict[str, float]:
        try:
            text = self.status.read_text("ascii")
        except OSError:
            return {}
        pairs = re.findall(r"^(RssAnon|RssFile):\s*(\d+) kB", text, re.MULTILINE)
        return {name: int(kib) / 1024 for name, kib in pairs}


def measure(scene: Path, size: int, model: Path, words: Sequence[str]) -> Run:
    """Label a scene and watch."""
    output = scene.with_name("map.tif")
    command = hsiclust("predict", scene, "-m", model, "-o", output, "--json", "--overwrite", *words)
    promised = run([*command, "--dry-run"])["bytes_peak"] / 2**20
    begin = time.perf_counter()
    process = start(command)
    sampler = Sampler(process.pid)
    sampler.start()
    # What it prints fits into a pipe. The kernel tells the peak of a child to who waits for it.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    sampler.join()
    printed, errors = process.communicate()
    done = facts(command, process.returncode, printed, errors)
    peak = usage.ru_maxrss / 1024
    own, mapped = sampler.peaks["RssAnon"], sampler.peaks["RssFile"]
    return Run(size, done["pixels"], wall, done["seconds"], peak, own, mapped, promised)


def runs(layout: str, sizes: Sequence[str], model: Path, options: argparse.Namespace) -> list[Run]:
    """The runs of one layout, from the smallest scene to the largest."""
    done = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for size in sizes:
            scene = scene_of(Path(name), layout, size, options.cols)
            done += [_measured(scene, size, model, options) for _ in range(options.repeats)]
            for path in Path(name).iterdir():
                path.unlink()
    return done


def _measured(scene: Path, size: str, model: Path, options: argparse.Namespace) -> Run:
    words = ["--memory", options.memory] if options.memory else []
    found = measure(scene, parse_size(size), model, words)
    print(f"{scene.name} {size}: {found}", file=sys.stderr)
    return found


def line(layout: str, run_: Run, first: float) -> list[str]:
    """A row of the table; `first` is the largest peak of the smallest scene."""
    return [
        LAYOUTS[layout].name,
        f"{run_.size / 2**30:.2f}",
        f"{run_.wall:.1f}",
        f"{run_.labelling:.1f}",
        f"{1e6 * run_.labelling / run_.pixels:.3f}",
        f"{run_.pixels / run_.labelling / 1e6:.2f}",
        f"{run_.size / run_.labelling / 1e9:.2f}",
        f"{run_.peak:.0f}",
        f"{run_.own:.0f}",
        f"{run_.mapped:.0f}",
        f"{run_.peak / first:.3f}",
        f"{run_.promised:.0f}",
        f"{run_.peak / run_.promised:.2f}",
    ]


def kept(every: Sequence[Run]) -> str:
    """Whether the promise was kept, as a sentence."""
    over = sum(run_.peak > run_.promised for run_ in every)
    if not over:
        return f"All {len(every)} runs stayed within that promise."
    return f"**{over} of {len(every)} runs took more than was promised.**"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="for scenes: room for the largest and 1 GB")
    parser.add_argument("--sizes", nargs="+", default=list(_SIZES), help=" ".join(_SIZES))
    parser.add_argument("--cols", type=int, default=COLS, help=f"of a scene, {COLS}")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(_DEFAULT))
    parser.add_argument("--repeats", type=int, default=2, help="runs of each scene, 2")
    parser.add_argument("--memory", help="limit handed on to the command, such as 2GiB")
    parser.add_argument("--model", type=Path, help="trained on Indian Pines when not given")
    parser.add_argument("--cores", type=int, help="processors to use, all")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Make, label and delete every scene and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    rows, every = [], []
    with tempfile.TemporaryDirectory() as name:
        model = arguments.model or train(Path(name))
        for layout in arguments.layouts:
            done = runs(layout, arguments.sizes, model, arguments)
            first = [run_.peak for run_ in done[: arguments.repeats]]
            rows += [line(layout, run_, max(first)) for run_ in done]
            every += done
    header = (
        *("layout", "size, GiB", "command, s", "labelling, s", "µs a pixel"),
        *("Mpixel/s", "GB/s"),
        *("peak, MiB", "own, MiB", "mapped files, MiB", "peak over the smallest scene's"),
        *("promised, MiB", "peak over promised"),
    )
    limit = f" with --memory {arguments.memory}" if arguments.memory else ""
    body = (
        "The default SSCC model, trained on Indian Pines, on made scenes of 200 bands of 16 bits, "
        f"{arguments.cols} pixels wide, each labelled {arguments.repeats} times{limit}; times a "
        "pixel and rates are those of the "
        "labelling, without the start of the program. The peak of a process holds pages of "
        "mapped files, shared libraries among them; it is divided by the largest peak of the "
        "smallest scene, and by the peak that the command's own plan promises before it reads a "
        f"pixel. {kept(every)}\n\n{table(header, rows)}"
    )
    report(Section("growth", "Memory and time as the scene grows", body), arguments.record)


if __name__ == "__main__":
    main()
