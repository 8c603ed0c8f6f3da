"""A command with the processes that it starts: time, and memory of the largest and of all."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, Final

import psutil

from benchmarks.command import facts, start

_EVERY: Final = 0.05  # seconds between samples
_RELATIVES: Final = 0.5  # seconds between looks for new processes, which are dear


@dataclass(frozen=True)
class Watched:
    """A command that has ended.

    Attributes:
        facts: The JSON object that it printed.
        seconds: Wall time, the start of the program included.
        peak: Peak resident memory of its own process or of the largest of its children, MiB: what
            the kernel says (`ru_maxrss`).
        together: Peak of the resident memory of all its processes, MiB; a page that several share
            counts several times.
        own: The same without pages of files and shared memory.
        processes: Most processes at a time.
    """

    facts: dict[str, Any]
    seconds: float
    peak: float
    together: float
    own: float
    processes: int


class _Sampler(threading.Thread):
    """Adds up the memory of a process and its descendants until it ends."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.root = process
        self.together = self.own = 0.0
        self.processes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Sample."""
        family: list[psutil.Process] = []
        looked = -_RELATIVES
        while not self._ended.wait(_EVERY):
            if monotonic() - looked >= _RELATIVES:
                family, looked = _family(self.root), monotonic()
            found = [memory for each in family if (memory := _memory(each))]
            self.together = max(self.together, sum(resident for resident, _ in found))
            self.own = max(self.own, sum(own for _, own in found))
            self.processes = max(self.processes, len(found))

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        self.join()


def watch(command: Sequence[str]) -> Watched:
    """Run a command to its end and watch what it and its children take.

    The peak that the kernel tells of a child is never below the memory of the process that starts
    it: call this from a small one.
    """
    begin = perf_counter()
    process = start(command)
    sampler = _Sampler(process.pid)
    sampler.start()
    # What it prints fits into a pipe. The kernel tells the peak of a child to who waits for it.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = perf_counter() - begin
    sampler.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    output, errors = process.communicate()
    found = facts(command, process.returncode, output, errors)
    peak = usage.ru_maxrss / 1024
    together, own = max(sampler.together, peak), sampler.own
    return Watched(found, seconds, peak, together, own, sampler.processes)


def _family(root: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _memory(process: psutil.Process) -> tuple[float, float] | None:
    """MiB resident, and of them its own; None when it has ended."""
    try:
        found = process.memory_info()
    except psutil.Error:
        return None
    return found.rss / 2**20, (found.rss - found.shared) / 2**20
