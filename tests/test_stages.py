from pathlib import Path

import pytest

from hsiclust import stages
from hsiclust.stages import Stopwatch

STATUS = Path("/proc/self/status")


def test_each_lap_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.5, 10.5, 12.0])
    monkeypatch.setattr(stages, "perf_counter", lambda: next(times))
    watch = Stopwatch()
    for name in ("first", "second", "third"):
        watch.lap(name)
    assert [(stage.name, stage.seconds) for stage in watch.stages] == [
        ("first", 0.5),
        ("second", 0.0),
        ("third", 1.5),
    ]


@pytest.mark.skipif(not STATUS.exists(), reason="memory is compared with what Linux says")
def test_memory_is_the_largest_so_far_in_bytes() -> None:
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    largest = int(fields["VmHWM"].split()[0]) * 1024
    watch = Stopwatch()
    watch.lap("before")
    ballast = bytearray(64 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    watch.lap("after")
    before, after = (stage.peak_bytes for stage in watch.stages)
    # the system counts pages in portions, and a process keeps the peak of what started it
    assert 0.9 * largest <= before <= after
    assert after < 2**40
