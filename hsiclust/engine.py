"""Dask runs the tiles: in this process, in workers of this machine, or on a standing cluster.

Tasks carry paths and tile numbers, never arrays. A bounded number is in flight; results come as
they are done; a tile that fails is tried again and then named.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from hsiclust.errors import HsiclustError, UsageError

log = logging.getLogger(__name__)
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_RETRIES = 2
# Tasks given to each thread: one to work on and one that waits, so that no thread is idle.
_AHEAD = 2
# Seconds that a standing scheduler has to answer.
_ANSWER_WITHIN = 15.0
_LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True)
class EngineOptions:
    """Where tiles are worked on.

    Attributes:
        workers: Worker processes on this machine; None works in threads of this process.
        scheduler: Address of a standing Dask scheduler instead.
        threads: Most threads at work, over all workers; the processors by default.
    """

    workers: int | None = None
    scheduler: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.workers} workers: at least one is needed")
        if self.workers is not None and self.scheduler is not None:
            raise UsageError("workers are made here or found behind a scheduler, not both")

    @property
    def parallel(self) -> int:
        """Threads at work on this machine."""
        wanted = self.threads or available_processors()
        if self.workers is None:
            return max(1, wanted)
        return self.workers * self.threads_per_worker

    @property
    def threads_per_worker(self) -> int:
        """Threads of one worker process."""
        wanted = self.threads or available_processors()
        return max(1, wanted // (self.workers or 1))

    def limited_to(self, threads: int) -> EngineOptions:
        """The same place with at most so many threads at work."""
        workers = None if self.workers is None else min(self.workers, threads)
        return replace(self, threads=threads, workers=workers)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tiles(
    task: Callable[[_Job, int], _Result],
    job: _Job,
    indices: Sequence[int],
    options: EngineOptions,
    unit: str = "tile",
) -> Iterator[tuple[int, _Result]]:
    """Run `task(job, index)` for each index.

    Args:
        task: A module-level function; runs in a worker, so it must find all it needs through
            `job`.
        job: A small, frozen, picklable description of the work.
        indices: Tiles to work on, or strips of them.
        options: Where.
        unit: What an index counts, for messages.

    Yields:
        `(index, result)` in the order in which they are done.

    Raises:
        HsiclustError: A tile failed for good; the message names it. An expected failure keeps
            its class.
    """
    if not indices:
        return
    from distributed import as_completed

    with _torch_threads_kept(), _client(options) as client:
        waiting = iter(indices)
        slots = max(1, sum(client.nthreads().values())) * _AHEAD
        submit = _submitter(client, task, job)
        first = [submit(index) for index in islice(waiting, slots)]
        running = as_completed(first, loop=client.loop)
        for future in running:
            index = _index_of(future.key)
            if future.status != "finished":
                raise _failure(f"{unit} {index}", future)
            yield index, future.result()
            future.release()
            following = next(waiting, None)
            if following is not None:
                running.add(submit(following))


def _submitter(
    client: Any, task: Callable[[_Job, int], _Result], job: _Job
) -> Callable[[int], Any]:
    run = os.urandom(8).hex()  # keys of two runs on one cluster must never meet

    def submit(index: int) -> Any:
        return client.submit(
            _alone, task, job, index, key=f"hsiclust-{run}-{index}", retries=_RETRIES, pure=False
        )

    return submit


def _alone(task: Callable[[_Job, int], _Result], job: _Job, index: int) -> _Result:
    """Run one tile on one thread: the tiles are the parallelism, and sums keep their order."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    try:
        return task(job, index)
    except HsiclustError as error:
        failure = type(error)(str(error))
    # Raised out here it has no context: GDAL's own exceptions do not survive the way back.
    raise failure


def _index_of(key: Any) -> int:
    return int(str(key).rsplit("-", 1)[1])


def _failure(part: str, future: Any) -> HsiclustError:
    error = future.exception()
    message = f"{part}: {error}"
    failed = type(error) if isinstance(error, HsiclustError) else HsiclustError
    if failed is HsiclustError:
        message = f"{part} failed {_RETRIES + 1} times: {type(error).__name__}: {error}"
    wrapped = failed(message)
    wrapped.__cause__ = error
    return wrapped


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """Give this process back the threads that its tiles did without.

    What a worker thread sets is also what any thread gets that has not used torch before.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _client(options: EngineOptions) -> Iterator[Any]:
    """A Dask client for one run; a cluster that was made here ends with it."""
    import dask
    from distributed import Client, LocalCluster

    quiet = {
        "distributed.admin.system-monitor.interval": "10s",
        # A run's memory is planned before it starts; workers must not stop to spill.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
    }
    with dask.config.set(quiet):
        if options.scheduler is not None:
            try:
                client = Client(options.scheduler, set_as_default=False, timeout=_ANSWER_WITHIN)
            except (OSError, ValueError) as error:
                raise UsageError(f"{options.scheduler}: no Dask scheduler answers there") from error
            with client:
                yield client
            return
        cluster = LocalCluster(
            n_workers=options.workers or 1,
            threads_per_worker=options.threads_per_worker,
            processes=options.workers is not None,
            # Dask serves HTTP in any case; only this machine may ask, on any free port.
            dashboard_address=_LOOPBACK,
            worker_dashboard_address=_LOOPBACK,
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client
