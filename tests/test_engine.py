import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from distributed import LocalCluster

from hsiclust import engine
from hsiclust.engine import EngineOptions, run_tiles
from hsiclust.errors import HsiclustError, InputError, UsageError

EVERYWHERE = [EngineOptions(threads=1), EngineOptions(threads=3), EngineOptions(2, threads=2)]


@dataclass(frozen=True)
class Job:
    folder: str
    bad: int = -1


def square(job: Job, index: int) -> int:
    return index * index


def where(job: Job, index: int) -> int:
    assert torch.get_num_threads() == 1
    return os.getpid()


def fail_twice(job: Job, index: int) -> int:
    """Fails on the first two tries of the bad tile."""
    tries = Path(job.folder) / str(index)
    with tries.open("a") as file:
        file.write("x")
    if index == job.bad and len(tries.read_text()) < 3:
        raise OSError("a hiccup")
    return index


def always_fail(job: Job, index: int) -> int:
    if index == job.bad:
        raise ZeroDivisionError("a bug")
    return index


def expected_failure(job: Job, index: int) -> int:
    if index == job.bad:
        raise InputError("scene.tif: rows 3 to 7 cannot be read")
    return index


@pytest.mark.parametrize("options", EVERYWHERE)
def test_every_tile_once(options: EngineOptions) -> None:
    found = dict(run_tiles(square, Job(""), range(17), options))
    assert found == {index: index * index for index in range(17)}


def test_nothing_to_do_starts_nothing() -> None:
    assert list(run_tiles(square, Job(""), [], EngineOptions(scheduler="tcp://127.0.0.1:1"))) == []


def test_threads_stay_here_and_workers_are_processes() -> None:
    here = {pid for _, pid in run_tiles(where, Job(""), range(4), EngineOptions(threads=2))}
    assert here == {os.getpid()}
    there = {pid for _, pid in run_tiles(where, Job(""), range(8), EngineOptions(2, threads=2))}
    assert os.getpid() not in there


def test_torch_keeps_its_threads() -> None:
    """In a process of its own: what matters is that torch was not used before."""
    script = (
        "import test_engine as t, torch\n"
        "if __name__ == '__main__':\n"
        "    list(t.run_tiles(t.where, t.Job(''), range(3), t.EngineOptions(threads=2)))\n"
        "    print(torch.get_num_threads())\n"
    )
    # Dask's nannies leave limits of their own in this process's environment.
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**clean, "OMP_NUM_THREADS": "3", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split()[-1] == "3"


def test_a_hiccup_is_tried_again(tmp_path: Path) -> None:
    job = Job(str(tmp_path), bad=2)
    assert dict(run_tiles(fail_twice, job, range(5), EVERYWHERE[1])) == {i: i for i in range(5)}
    assert (tmp_path / "2").read_text() == "xxx"


def test_a_failure_names_the_tile() -> None:
    with pytest.raises(HsiclustError, match=r"tile 3 failed 3 times: ZeroDivisionError: a bug"):
        list(run_tiles(always_fail, Job("", bad=3), range(5), EVERYWHERE[1]))


@pytest.mark.parametrize("options", EVERYWHERE[1:])
def test_an_expected_failure_keeps_its_class(options: EngineOptions) -> None:
    with pytest.raises(InputError, match=r"tile 1: scene\.tif: rows 3"):
        list(run_tiles(expected_failure, Job("", bad=1), range(5), options))


class Watch:
    """Counts how many tasks run at the same moment, in this process."""

    lock = threading.Lock()
    running = 0
    most = 0


def watched(job: Job, index: int) -> int:
    with Watch.lock:
        Watch.running += 1
        Watch.most = max(Watch.most, Watch.running)
    time.sleep(0.01)
    with Watch.lock:
        Watch.running -= 1
    return index


def test_a_bounded_number_is_in_flight() -> None:
    taken = [index for index, _ in run_tiles(watched, Job(""), range(30), EngineOptions(threads=2))]
    assert sorted(taken) == list(range(30))
    assert Watch.most == 2


def test_options_that_contradict() -> None:
    with pytest.raises(UsageError):
        EngineOptions(workers=0)
    with pytest.raises(UsageError):
        EngineOptions(workers=2, scheduler="tcp://x:1")


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_ANSWER_WITHIN", 1.0)
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9"):
        list(run_tiles(square, Job(""), [1], EngineOptions(scheduler="tcp://127.0.0.1:9")))


def test_limits() -> None:
    assert EngineOptions(4, threads=8).limited_to(2) == EngineOptions(2, threads=2)
    assert EngineOptions(threads=8).limited_to(3).parallel == 3


def test_a_standing_scheduler_is_used_and_left_standing() -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        options = EngineOptions(scheduler=cluster.scheduler_address)
        for _ in range(2):  # a second run meets a cluster that is still there
            found = dict(run_tiles(where, Job(""), range(6), options))
            assert set(found) == set(range(6))
            assert os.getpid() not in found.values()
