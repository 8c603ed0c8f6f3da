"""Memory and time of labelling as the scene grows.

    python -m benchmarks.growth --folder /scratch
    python -m benchmarks.growth --sizes 256MiB 1GiB --layouts bil

`hsiclust predict` with a default SSCC model labels made scenes of each layout and size; each scene
is deleted after its run. Peak memory is what the kernel says of the process when it has ended
(`ru_maxrss`), pages of mapped files included; a sampler splits it into memory of its own
(`RssAnon`) and mapped files (`RssFile`). The scene was written just before, so it is read from the
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.command import facts, hsiclust, make_scene, start
from benchmarks.make_scene import parse_size

# What `make_scene` is told for each layout, and the suffix of the scene.
LAYOUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "bsq": ("--layout", "bsq"),
    "bil": ("--layout", "bil"),
    "bip": ("--layout", "bip"),
    "tif": ("--layout", "tiled-tif"),
    "deflate": ("--layout", "tiled-tif", "--compress", "deflate"),
}
NAMES: Final[Mapping[str, str]] = {
    "bsq": "ENVI BSQ",
    "bil": "ENVI BIL",
    "bip": "ENVI BIP",
    "tif": "GeoTIFF, tiles of 256, uncompressed",
    "deflate": "GeoTIFF, tiles of 256, deflate",
}
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
    """

    size: int
    pixels: int
    wall: float
    labelling: float
    peak: float
    own: float
    mapped: float


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
    begin = time.perf_counter()
    process = start(command)
    sampler = Sampler(process.pid)
    sampler.start()
    # What it prints fits into a pipe. The kernel tells the peak of a child to who waits for it.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    sampler.join()
    assert process.stdout is not None and process.stderr is not None
    done = facts(command, process.returncode, process.stdout.read(), process.stderr.read())
    process.stdout.close()
    process.stderr.close()
    peak = usage.ru_maxrss / 1024
    own, mapped = sampler.peaks["RssAnon"], sampler.peaks["RssFile"]
    return Run(size, done["pixels"], wall, done["seconds"], peak, own, mapped)


def runs(layout: str, sizes: Sequence[str], model: Path, options: argparse.Namespace) -> list[Run]:
    """The runs of one layout, from the smallest scene to the largest."""
    done = []
    suffix = layout if layout in ("bsq", "bil", "bip") else "tif"
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for size in sizes:
            scene = make_scene(Path(name) / f"scene.{suffix}", size, *LAYOUTS[layout])
            repeats = [
                measure(scene, parse_size(size), model, options.predict)
                for _ in range(options.repeats)
            ]
            for run_ in repeats:
                print(f"{layout} {size}: {run_}", file=sys.stderr)
            # Memory: the most of all repeats. Time: the least, the one that was disturbed least.
            fastest = min(repeats, key=lambda run_: run_.wall)
            done.append(fastest)
            for path in Path(name).iterdir():
                path.unlink()
    return done
