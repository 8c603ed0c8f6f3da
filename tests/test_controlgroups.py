import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hsiclust.cluster import available_processors
from hsiclust.devices import total_memory

Allow = Callable[[str | None, Mapping[str, str]], None]

USER = "slurm/uid_7"
JOB = f"{USER}/job_9"


@pytest.fixture
def allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Allow:
    """Makes a system that says which groups a process is in, and what each allows."""
    own, groups = tmp_path / "own", tmp_path / "groups"
    monkeypatch.setattr("hsiclust.controlgroups._OWN_GROUPS", own)
    monkeypatch.setattr("hsiclust.controlgroups._GROUPS", groups)

    def allowing(said: str | None, limits: Mapping[str, str]) -> None:
        if said is not None:
            own.write_text(said)
        for name, limit in limits.items():
            file = groups / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{limit}\n")

    return allowing


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        (
            f"0::/{JOB}\n",
            {f"{JOB}/memory.max": "max", f"{USER}/memory.max": "5000"},
            5000,
        ),
        (f"0::/{JOB}\n", {f"{JOB}/memory.max": "4000", "slurm/memory.max": "5000"}, 4000),
        (
            f"9:cpu:/\n4:cpu,memory:/{JOB}\n0::/\n",
            {
                f"memory/{JOB}/memory.limit_in_bytes": str(2**63 - 4096),
                f"memory/{USER}/memory.limit_in_bytes": "3000",
                f"cpu/{JOB}/memory.limit_in_bytes": "1",
            },
            3000,
        ),
        # A container with the names of the machine, and its own group in their place.
        ("4:memory:/docker/77\n", {"memory/memory.limit_in_bytes": "2000"}, 2000),
        ("0::/\n", {"memory.max": "1000"}, 1000),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/../../other\n", {}, None),
        (None, {"memory.max": "1000"}, None),
    ],
)
def test_memory_of_a_control_group_within_others(
    allow: Allow, own: str | None, limits: dict[str, str], expected: int | None
) -> None:
    allow(own, limits)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert total_memory() == (machine if expected is None else expected)


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        (f"0::/{JOB}\n", {f"{JOB}/cpu.max": "max 100000", f"{USER}/cpu.max": "300000 100000"}, 3),
        (f"0::/{JOB}\n", {f"{JOB}/cpu.max": "150000 100000"}, 2),
        (f"0::/{JOB}\n", {f"{JOB}/cpu.max": "1000 100000"}, 1),
        (f"0::/{JOB}\n", {f"{JOB}/cpu.max": "9900000 100000"}, 8),
        (
            f"4:cpu,cpuacct:/{JOB}\n5:memory:/{JOB}\n",
            {f"cpu/{JOB}/cpu.cfs_quota_us": "200000", f"cpu/{JOB}/cpu.cfs_period_us": "50000"},
            4,
        ),
        (
            f"4:cpu,cpuacct:/{JOB}\n",
            {f"cpu/{JOB}/cpu.cfs_quota_us": "-1", f"cpu/{JOB}/cpu.cfs_period_us": "100000"},
            8,
        ),
        (f"4:memory:/{JOB}\n", {f"cpu/{JOB}/cpu.cfs_quota_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
        (None, {"cpu.max": "100000 100000"}, 8),
    ],
)
def test_processors_of_a_control_group_within_others(
    monkeypatch: pytest.MonkeyPatch,
    allow: Allow,
    own: str | None,
    limits: dict[str, str],
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    allow(own, limits)
    assert available_processors() == expected
