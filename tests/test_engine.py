import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import LocalCluster, SpecCluster
from distributed.comm import CommClosedError
from threadpoolctl import threadpool_info

from hsiclust import cluster, shift, threads
from hsiclust.cluster import survey, visible_devices
from hsiclust.engine import EngineOptions, run_tiles
from hsiclust.errors import ClusterError, HsiclustError, InputError, UsageError

EVERYWHERE = [EngineOptions(threads=1), EngineOptions(threads=3), EngineOptions(2, threads=2)]


@dataclass(frozen=True)
class Job:
    folder: str
    bad: int = -1


def square(job: Job, index: int) -> int:
    return index * index


def where(job: Job, index: int) -> int:
    assert torch.get_num_threads() == 1
    assert [library["num_threads"] for library in blas()] == [1]
    return os.getpid()


def blas() -> list[dict[str, Any]]:
    """What multiplies matrices for NumPy; SciPy brings another."""
    return [library for library in threadpool_info() if "numpy" in library["filepath"]]


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


def test_torch_and_blas_keep_their_threads() -> None:
    """In processes of their own: what matters is that torch was not used before."""
    run = "    list(t.run_tiles(t.where, t.Job(''), range(3), t.EngineOptions(threads=2)))\n"
    # Libraries take no more threads than there are processors, or cores: they are asked.
    assert _threads_after(run) == _threads_after("")


def _threads_after(work: str) -> list[str]:
    """The threads that torch and BLAS have, of two asked for, in a new process after some work."""
    script = (
        "import test_engine as t, torch\n"
        "if __name__ == '__main__':\n"
        f"{work}"
        "    print(torch.get_num_threads(), *(each['num_threads'] for each in t.blas()))\n"
    )
    # Dask's nannies leave limits of their own in this process's environment.
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **clean,
            "OMP_NUM_THREADS": "2",
            "OPENBLAS_NUM_THREADS": "2",
            "PYTHONPATH": str(Path(__file__).parent),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("last", [0, 1])
def test_runs_side_by_side_keep_the_threads_of_their_process(
    last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        count = 3

        def get_num_threads(self) -> int:
            return self.count

        def set_num_threads(self, count: int) -> None:
            self.count = count

    library, before = Library(), torch.get_num_threads()
    monkeypatch.setattr(threads, "_blas", lambda: (library,))
    runs = [threads.threads_kept(), threads.threads_kept()]
    try:
        torch.set_num_threads(3)
        for run in runs:
            run.__enter__()
            threads.work_alone()
        runs[1 - last].__exit__(None, None, None)
        assert library.count == 1  # the other is still at work
        runs[last].__exit__(None, None, None)
        assert (library.count, torch.get_num_threads()) == (3, 3)
    finally:
        torch.set_num_threads(before)


def test_dask_is_silent_after_its_cluster_has_gone() -> None:
    """Its connections end when they do: what they say then must not stand below the last line."""
    script = (
        "import logging\n"
        "from hsiclust.cluster import EngineOptions, connected\n"
        "from hsiclust.console import log_to_stderr\n"
        "def late(name):\n"
        "    logging.getLogger(f'distributed.{name}').error('too late')\n"
        "    return logging.getLogger('distributed').level\n"
        "log_to_stderr(quiet=False, verbose=False)\n"
        "with connected(EngineOptions(workers=1)) as client:\n"
        "    print(client.submit(late, 'batched').result())\n"
        "print(late('batched'), late('client'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["50", "50", "50"]


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
    with pytest.raises(UsageError):
        EngineOptions(workers=2, scheduler_file=Path("s.json"))
    with pytest.raises(UsageError):
        EngineOptions(scheduler="tcp://x:1", scheduler_file=Path("s.json"))


def test_a_scheduler_file_that_is_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.json")
    with pytest.raises(UsageError, match=r"s\.json: is no file"):
        list(run_tiles(square, Job(""), [1], EngineOptions(scheduler_file=tmp_path / "s.json")))


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_WITHIN", 1.0)
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


def slowly_where(job: Job, index: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def test_neighbours_go_to_one_worker() -> None:
    of: defaultdict[int, list[int]] = defaultdict(list)
    for index, pid in run_tiles(slowly_where, Job(""), range(60), EngineOptions(2, threads=2)):
        of[pid].append(index)
    assert len(of) == 2
    breaks = sum(after != before + 1 for own in of.values() for before, after in pairwise(own))
    assert breaks <= 8  # each half is one run; at the end who is done takes over


def die_once(job: Job, index: int) -> int:
    """The process of the bad tile is killed, the first time."""
    mark = Path(job.folder) / "died"
    if index == job.bad and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return index


def test_a_worker_that_dies_loses_nothing(tmp_path: Path) -> None:
    job = Job(str(tmp_path), bad=7)
    done = [index for index, _ in run_tiles(die_once, job, range(40), EngineOptions(2, threads=2))]
    assert (tmp_path / "died").exists()
    assert sorted(done) == list(range(40))


def always_die(job: Job, index: int) -> int:
    if index == job.bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def test_a_tile_that_kills_its_workers_is_named() -> None:
    job = Job("", bad=1)
    with pytest.raises(HsiclustError, match=r"tile \d: 4 workers died .* the same command goes on"):
        list(run_tiles(always_die, job, range(2), EngineOptions(2, threads=2)))


# Scheduler and workers both find this module.
THERE = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A scheduler without workers: the file that it wrote, and its process."""
    file = tmp_path / "scheduler.json"
    process = subprocess.Popen(
        [*dask("scheduler"), "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file],
        stderr=subprocess.DEVNULL,
        env=THERE,
    )
    limit = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    yield file, process
    process.kill()
    process.wait()


def dask(role: str) -> list[str]:
    """`dask scheduler` or `dask worker` of this Python."""
    module = f"distributed.cli.dask_{role}"
    return [sys.executable, "-m", module, "--no-dashboard"]


def worker(file: Path) -> subprocess.Popen[bytes]:
    """A worker of a standing cluster, without a nanny, that finds this module."""
    return subprocess.Popen(
        [*dask("worker"), "--scheduler-file", file, "--no-nanny", "--nthreads", "1"],
        stderr=subprocess.DEVNULL,
        cwd=file.parent,
        env=THERE,
    )


def test_workers_that_come_late_and_go_early(
    standing: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    options = EngineOptions(scheduler_file=standing[0])
    assert survey(options) is None
    first = worker(standing[0])
    processes, pids = [first], []
    try:
        for _, pid in run_tiles(slowly_where, Job(""), range(150), options):
            pids.append(pid)
            if len(pids) == 10:
                assert survey(options).threads == 1
                processes.append(worker(standing[0]))
            if len(set(pids)) == 2:
                first.kill()
        assert len(pids) == 150
        assert len(set(pids)) == 2
    finally:
        for process in processes:
            process.kill()
            process.wait()


def kill_scheduler(job: Job, index: int) -> int:
    if index == 3:
        os.kill(int(job.folder), signal.SIGKILL)
    return index


def test_a_scheduler_that_vanishes_is_said(
    standing: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_WITHIN", 2.0)
    options = EngineOptions(scheduler_file=standing[0])
    helper = worker(standing[0])
    start = time.monotonic()
    try:
        with pytest.raises(ClusterError, match=r"went away.*the same command goes on"):
            list(run_tiles(kill_scheduler, Job(str(standing[1].pid)), range(999), options))
    finally:
        helper.kill()
        helper.wait()
    assert time.monotonic() - start < 20
    with pytest.raises(UsageError, match=r"scheduler\.json: tcp://127.*no Dask scheduler answers"):
        list(run_tiles(square, Job(""), [1], EngineOptions(scheduler_file=standing[0])))


class Unheard:
    """A client, and the future of a result that is there when the scheduler goes away."""

    status = "finished"

    def nthreads(self, callback_timeout: float) -> dict[str, int]:
        return {"worker": 1}

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        callback(self)

    def result(self, timeout: float) -> None:
        raise CommClosedError("Stream is closed")

    def release(self) -> None:
        pass


def test_a_scheduler_that_vanishes_with_a_result_is_said() -> None:
    client = Unheard()
    with pytest.raises(ClusterError, match=r"went away.*the same command goes on"):
        list(shift.Shift(client, lambda *_: client, [0], "tile", None).work())


def test_workers_that_never_come_are_not_waited_for_forever(
    standing: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "_WORKERS_WITHIN", 1.5)
    with pytest.raises(ClusterError, match="no worker for 2 s"):
        list(run_tiles(square, Job(""), [1], EngineOptions(scheduler_file=standing[0])))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"address": 3}', "\0"])
def test_what_is_no_scheduler_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.json"
    with pytest.raises(UsageError, match=r"s\.json: No such file"):
        list(run_tiles(square, Job(""), [1], EngineOptions(scheduler_file=str(file))))
    file.write_text(text)
    with pytest.raises(UsageError, match=r"s\.json: is no scheduler file"):
        list(run_tiles(square, Job(""), [1], EngineOptions(scheduler_file=file)))


def visible(job: Job, index: int) -> str:
    time.sleep(0.02)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_each_worker_sees_a_device_of_its_own() -> None:
    options = EngineOptions(threads=2).one_process_a_device(["2", "GPU-5"])
    assert options.workers == 2
    seen = {device for _, device in run_tiles(visible, Job(""), range(8), options)}
    assert seen == {"2", "GPU-5"}


def test_who_gets_a_device() -> None:
    assert EngineOptions().one_process_a_device(["0"]) == EngineOptions()
    assert EngineOptions(3).one_process_a_device(["0", "1"]) == EngineOptions(3, devices=("0", "1"))
    standing = EngineOptions(scheduler="tcp://x:1")
    assert standing.one_process_a_device(["0", "1"]) == standing
    assert visible_devices(3, {}) == ("0", "1", "2")
    assert visible_devices(2, {"CUDA_VISIBLE_DEVICES": "4, GPU-ab"}) == ("4", "GPU-ab")
    assert visible_devices(1, {"CUDA_VISIBLE_DEVICES": "4,7"}) == ("4",)
    assert visible_devices(0, {"CUDA_VISIBLE_DEVICES": ""}) == ()


def test_workers_that_die_before_they_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Cluster(SpecCluster):
        def __init__(self, *arguments: object, **more: object) -> None:
            started.append(arguments)
            if len(started) != 2:
                raise RuntimeError("Nanny failed to start.")
            super().__init__(*arguments, **more)

    monkeypatch.setattr("distributed.SpecCluster", Cluster)
    assert dict(run_tiles(square, Job(""), [3], EngineOptions(1, threads=1))) == {3: 9}
    with pytest.raises(ClusterError, match="2 worker processes could not be started, 3 times"):
        list(run_tiles(square, Job(""), [3], EngineOptions(2, threads=2)))
    assert len(started) == 5
