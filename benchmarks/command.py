"""The real command, as the benchmarks start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.make_scene import SOURCE


def hsiclust(*words: str | Path) -> list[str]:
    """Words of a command line of this Python's hsiclust."""
    return [sys.executable, "-m", "hsiclust", *map(str, words)]


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command; its results and its messages can be read when it has ended."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def facts(command: Sequence[str], code: int, output: str, errors: str) -> dict[str, Any]:
    """The JSON object that a command printed, when it went well.

    Raises:
        SystemExit: It failed.
    """
    if code != 0:
        sys.exit(f"{' '.join(command)}\nexit code {code}: {errors.strip()}")
    found: dict[str, Any] = json.loads(output)
    return found


def run(command: Sequence[str]) -> dict[str, Any]:
    """Run a command to its end; returns the JSON object that it printed."""
    process = start(command)
    output, errors = process.communicate()
    return facts(command, process.returncode, output, errors)


@dataclass(frozen=True)
class Measured:
    """A command that has ended.

    Attributes:
        facts: The JSON object that it printed.
        seconds: Wall time, the start of the program included.
        peak: Peak resident memory of its process, MiB, pages of mapped files included.
    """

    facts: dict[str, Any]
    seconds: float
    peak: float


def measure(command: Sequence[str]) -> Measured:
    """Run a command to its end and watch what it takes."""
    begin = perf_counter()
    process = start(command)
    # What it prints fits into a pipe. The kernel tells the peak of a child to who waits for it.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    output, errors = process.communicate()
    found = facts(command, process.returncode, output, errors)
    return Measured(found, seconds, usage.ru_maxrss / 1024)


def make_scene(path: Path, size: str, *options: str) -> Path:
    """Make a scene of this size by `make_scene`."""
    words = ["--output", str(path), "--size", size, *options]
    command = [sys.executable, "-m", "benchmarks.make_scene", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    return path


def train(folder: Path, *options: str) -> Path:
    """Train a model on the carried scene, of whose spectra made scenes consist."""
    model = folder / "model.safetensors"
    run(hsiclust("train", SOURCE, "-o", model, "--json", "--overwrite", *options))
    return model
