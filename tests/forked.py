"""The command in a process of its own, forked from one that has imported what commands import.

To import torch takes seconds, and the suite runs some hundred commands.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    # The last is what the first optimiser of a process imports.
    ["hsiclust.batch", "hsiclust.evaluation", "hsiclust.training", "rasterio", "torch._dynamo"]
)


def run_forked(
    arguments: Sequence[str], folder: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """`hsiclust ARGUMENTS` in a folder, with this process's environment; what it said.

    Raises:
        subprocess.TimeoutExpired: It took longer than so many seconds.
    """
    said = [folder / f".{os.urandom(8).hex()}.{name}" for name in ("stdout", "stderr")]
    process = _SERVER.Process(target=_live, args=(arguments, folder, said, dict(os.environ)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(arguments, timeout)
    out, err = (path.read_text() for path in said)
    for path in said:
        path.unlink()
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def _live(
    arguments: Sequence[str], folder: Path, said: Sequence[Path], environment: dict[str, str]
) -> None:
    from hsiclust.cli import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["hsiclust", *arguments]
    main()
