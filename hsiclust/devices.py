"""Which device computes, and how much memory there is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hsiclust import controlgroups, slurm
from hsiclust.errors import DeviceError, UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def resolve_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" stands for.

    Raises:
        DeviceError: It is not there.
        UsageError: The name is not understood.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"device {name!r} is not auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(f"device {name}: there are {count} CUDA devices; try --device cpu")
    return device


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "4GiB", "500 MB" or "1073741824".

    Raises:
        UsageError: It is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise UsageError(f"size {text!r} is not a number with a unit such as 4GiB")
    return int(float(match[1]) * unit)


def total_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or what its job allows."""
    return min([_machine_memory(), *controlgroups.memory_limits(), *slurm.memory_limits()])


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work of this thread in a CUDA stream of its own, done when the block ends.

    What one thread copies then overlaps with what another one computes. The processor has none.
    """
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        yield
        stream.synchronize()


def free_memory(device: torch.device) -> int | None:
    """Bytes of a CUDA device that are free; None for the processor."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
