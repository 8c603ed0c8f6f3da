from collections.abc import Mapping

import pytest

from hsiclust.cluster import available_processors
from hsiclust.devices import total_memory
from hsiclust.slurm import memory_limits, processor_limits


@pytest.mark.parametrize(
    ("said", "megabytes"),
    [
        ({}, []),
        ({"SLURM_MEM_PER_NODE": "4096"}, [4096]),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "8"}, [4000]),
        ({"SLURM_MEM_PER_CPU": "500"}, []),  # of how many, nobody says
        ({"SLURM_MEM_PER_NODE": "0"}, []),  # the whole node
        ({"SLURM_MEM_PER_NODE": "4G"}, []),
        ({"SLURM_MEM_PER_NODE": "\u00b2"}, []),
    ],
)
def test_memory_of_a_job(said: Mapping[str, str], megabytes: list[int]) -> None:
    assert memory_limits(said) == [number * 2**20 for number in megabytes]


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ({}, None),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"SLURM_CPUS_PER_TASK": "two"}, None),
    ],
)
def test_processors_of_a_task(said: Mapping[str, str], count: int | None) -> None:
    assert min(processor_limits(said), default=None) == count


def test_a_job_that_nothing_holds_keeps_to_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert total_memory() == 100 * 2**20
    assert available_processors() == 1
