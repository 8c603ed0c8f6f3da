"""What SLURM has given to a job, as its variables say.

Most clusters hold a job to it, by the processors that it is bound to and by control groups. Where
one does not, whatever takes more takes it from other jobs, or is killed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_MEGABYTE = 2**20


def memory_limits(environment: Mapping[str, str] = os.environ) -> list[int]:
    """Bytes on this node; none outside of a job, and where it has the whole node.

    Args:
        environment: Where the variables may stand.
    """
    node = _number(environment, "SLURM_MEM_PER_NODE")
    each = _number(environment, "SLURM_MEM_PER_CPU")
    of_all = each * _number(environment, "SLURM_CPUS_ON_NODE")
    return [megabytes * _MEGABYTE for megabytes in (node, of_all) if megabytes]


def processor_limits(environment: Mapping[str, str] = os.environ) -> list[int]:
    """Processors of this task; where it was not said how many a task has, those of the node.

    Args:
        environment: Where the variables may stand.
    """
    names = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
    return [count for count in (_number(environment, name) for name in names) if count]


def _number(environment: Mapping[str, str], name: str) -> int:
    """A variable as a number; 0 where it is none."""
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else 0
