import time
from pathlib import Path

import pytest

from hsiclust.stages import Stopwatch

STATUS = Path("/proc/self/status")


def test_each_lap_has_its_own_time() -> None:
    start = time.perf_counter()
    watch = Stopwatch()
    time.sleep(0.06)
    watch.lap("first")
    watch.lap("second")
    time.sleep(0.03)
    watch.lap("third")
    whole = time.perf_counter() - start
    assert [stage.name for stage in watch.stages] == ["first", "second", "third"]
    first, second, third = (stage.seconds for stage in watch.stages)
    assert first >= 0.059
    assert second < 0.03
    assert third >= 0.029
    assert first + second + third == pytest.approx(whole, abs=0.01)


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
