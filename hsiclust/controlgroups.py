"""What the control groups of a job allow: memory and processors (Linux)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def memory_limits() -> list[int]:
    """Bytes that each of the groups allows that this process is in."""
    limits = []
    for group, second_version in _groups_of("memory"):
        name = "memory.max" if second_version else "memory.limit_in_bytes"
        with suppress(OSError, ValueError):  # no limit, or "max"
            limits.append(int((group / name).read_text()))
    return limits


def processor_limits() -> list[int]:
    """Processors that each of the groups allows that this process is in; a part counts as one."""
    limits = []
    for group, second_version in _groups_of("cpu"):
        names = ("cpu.max",) if second_version else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with suppress(OSError, ValueError):  # no limit, "max", or a quota of -1
            texts = [(group / name).read_text() for name in names]
            quota, period = map(int, " ".join(texts).split())
            if quota > 0 and period > 0:
                limits.append(math.ceil(quota / period))
    return limits


def _groups_of(controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of this process's groups, from its own outwards, and whether they are of version 2.

    The group of a job lies within others. A container may see its own group as the outermost,
    whatever it is called outside.
    """
    try:
        own = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in own:
        _, controllers, name = line.split(":", 2)
        second_version = not controllers
        if not second_version and controller not in controllers.split(","):
            continue
        outermost = _GROUPS if second_version else _GROUPS / controller
        group = outermost / name.lstrip("/")
        for place in (group, *group.parents):
            if place.is_relative_to(outermost):
                yield place, second_version
