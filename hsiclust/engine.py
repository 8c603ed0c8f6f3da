"""Dask runs the tiles: in this process, in workers of this machine, or on a standing cluster.

Tasks carry paths and tile numbers, never arrays. Neighbours go to one worker, a bounded number to
each; results come as they are done; a tile that fails is tried again and then named.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from hsiclust.cluster import EngineOptions, available_processors, connected
from hsiclust.errors import ClusterError, HsiclustError
from hsiclust.runs import Runs
from hsiclust.threads import threads_kept, work_alone

__all__ = ["Engine", "EngineOptions", "available_processors", "opened", "run_tiles", "threads_here"]

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_Submit = Callable[[int, str], Any]
_RETRIES = 2
# Tasks given to each thread: one to work on and one that waits, so that no thread is idle.
_AHEAD = 2
# Seconds between two looks at who works.
_LOOK = 1.0
# Seconds that a run waits while nobody works.
_WORKERS_WITHIN = 300.0
# Seconds in which a scheduler says who works, however busy it is.
_ANSWER_WITHIN = 60.0
# Stands for a worker while there is none: whoever comes. A cluster may grow by what waits.
_ANYBODY = ""
# Workers that may die with the same task.
_DEATHS = 3
# Seconds for a result, which is small, to come from the worker that has it.
_RESULT_WITHIN = 10.0
_GO_ON = "what is done is kept, the same command goes on"
_GONE = f"the Dask scheduler went away; {_GO_ON}"


@dataclass(frozen=True)
class Engine:
    """Workers that are ready, for one run after the other.

    Attributes:
        client: The Dask client.
        options: How it was opened.
    """

    client: Any
    options: EngineOptions

    def run(
        self,
        task: Callable[[_Job, int], _Result],
        job: _Job,
        indices: Sequence[int],
        unit: str = "tile",
        threads: int | None = None,
    ) -> Iterator[tuple[int, _Result]]:
        """Run `task(job, index)` for each index, as `run_tiles` does.

        Args:
            task: As there.
            job: As there.
            indices: As there.
            unit: As there.
            threads: At most so many at once, over all workers of this machine, or at each worker
                of a standing cluster.
        """
        submit = _submitter(self.client, task, job)
        shift = _Shift(self.client, submit, indices, unit, self._limit(threads))
        with closing(shift.work()) as done:
            yield from done

    def _limit(self, threads: int | None) -> int | None:
        if threads is None or self.options.standing:
            return threads
        return max(1, threads // (self.options.workers or 1))


@contextmanager
def opened(options: EngineOptions) -> Iterator[Engine]:
    """Start workers, or find those of a standing cluster.

    Raises:
        UsageError: No standing scheduler answers.
    """
    with threads_kept(), connected(options) as client:
        yield Engine(client, options)


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
        indices: Tiles to work on, or strips of them; neighbours go to one worker.
        options: Where.
        unit: What an index counts, for messages.

    Yields:
        `(index, result)` in the order in which they are done.

    Raises:
        HsiclustError: A tile failed for good; the message names it. An expected failure keeps
            its class.
        ClusterError: The scheduler went away, or all workers did.
        UsageError: No standing scheduler answers.
    """
    if not indices:
        return
    with opened(options) as engine:
        yield from engine.run(task, job, indices, unit, options.threads)


def threads_here(most: int) -> int:
    """Tasks that are at work at once in this process, where `most` were planned."""
    from distributed import get_worker

    try:
        return int(min(most, get_worker().state.nthreads))
    except ValueError:  # not in a worker
        return most


@dataclass(frozen=True, eq=False)
class _Given:
    """A task that a worker was given."""

    index: int
    worker: str
    future: Any


class _Shift:
    """One run: who works, and what each was given.

    Args:
        client: The Dask client.
        submit: Gives an index to a worker.
        indices: What is to be done.
        unit: What an index counts.
        limit: Most tasks at work at once at a worker.
    """

    def __init__(
        self, client: Any, submit: _Submit, indices: Sequence[int], unit: str, limit: int | None
    ) -> None:
        self._client = client
        self._submit = submit
        self._unit = unit
        self._limit = limit
        self._seen = monotonic()
        self._slots = self._look()
        self._runs = Runs(indices, sorted(self._slots))
        self._given: dict[int, _Given] = {}
        self._lost: Counter[int] = Counter()
        self._done: SimpleQueue[_Given] = SimpleQueue()

    def work(self) -> Generator[tuple[int, Any]]:
        """Indices and results in the order in which they are done."""
        looked = monotonic()
        try:
            while len(self._runs) or self._given:
                self._feed()
                yield from self._wait()
                if monotonic() - looked >= _LOOK:
                    self._meet(self._look())
                    looked = monotonic()
        finally:
            for given in self._given.values():
                given.future.release()

    def _feed(self) -> None:
        """Give each worker as much as it may have, in turn: a short run is for all."""
        has = Counter(given.worker for given in self._given.values())
        hungry = list(self._slots)
        while hungry and len(self._runs):
            hungry = [worker for worker in hungry if has[worker] < self._slots[worker]]
            for worker in hungry:
                self._give(worker)
                has[worker] += 1

    def _give(self, worker: str) -> None:
        index = self._runs.take(worker)
        if index is not None:
            given = _Given(index, worker, self._submit(index, worker))
            self._given[index] = given
            given.future.add_done_callback(lambda _: self._done.put(given))

    def _wait(self) -> Iterator[tuple[int, Any]]:
        """What is done next; nothing when that takes long.

        Raises:
            HsiclustError: It failed for good.
        """
        from distributed import KilledWorker

        try:
            given = self._done.get(timeout=_LOOK)
        except Empty:
            return
        if self._given.get(given.index) is not given:
            return  # given to another since
        if given.future.status != "finished":
            raise _failure(f"{self._unit} {given.index}", given.future)
        try:
            result = given.future.result(timeout=_RESULT_WITHIN)
        except (TimeoutError, CancelledError, KilledWorker):  # lost with the worker that had it
            self._give_back(given)
            return
        del self._given[given.index]
        given.future.release()
        yield given.index, result

    def _meet(self, slots: dict[str, int]) -> None:
        """Part from the workers that are gone, and give what they had to others.

        Dask would do the latter itself, but not where for a moment there was no worker at all: a
        task that prefers a worker then waits for this one.
        """
        gone = self._slots.keys() - slots.keys()
        for worker in gone:
            self._runs.leave(worker)
        for given in list(self._given.values()):
            if given.worker in gone - {_ANYBODY} and given.future.status == "pending":
                self._give_back(given)
        self._slots = slots

    def _give_back(self, given: _Given) -> None:
        self._lost[given.index] += 1
        if self._lost[given.index] > _DEATHS:
            raise HsiclustError(_killed(f"{self._unit} {given.index}"))
        del self._given[given.index]
        given.future.release()
        self._runs.give_back(given.index)

    def _look(self) -> dict[str, int]:
        """How many tasks each worker may have.

        Raises:
            ClusterError: The scheduler went away, or nobody has worked for too long.
        """
        try:
            threads = self._client.nthreads(callback_timeout=_ANSWER_WITHIN)
        except (OSError, RuntimeError) as error:  # a closed client is a RuntimeError
            raise ClusterError(_GONE) from error
        if threads:
            self._seen = monotonic()
        elif monotonic() - self._seen > _WORKERS_WITHIN:
            raise ClusterError(f"no worker for {_WORKERS_WITHIN:.0f} s; {_GO_ON}")
        limit = self._limit
        return {
            worker: own * _AHEAD if limit is None or own <= limit else limit
            for worker, own in threads.items()
        } or {_ANYBODY: 1}


def _submitter(client: Any, task: Callable[[_Job, int], _Result], job: _Job) -> _Submit:
    run = os.urandom(8).hex()  # keys of two runs on one cluster must never meet
    turns = count()  # nor those of an index that is given away again

    def submit(index: int, worker: str) -> Any:
        return client.submit(
            *(_alone, task, job, index),
            key=f"hsiclust-{run}-{index}-{next(turns)}",
            retries=_RETRIES,
            pure=False,
            # In their order: neighbours that are worked on together share what was read.
            priority=-index,
            workers=[worker] if worker else None,
            allow_other_workers=bool(worker),  # should this one be gone, or another idle
        )

    return submit


def _alone(task: Callable[[_Job, int], _Result], job: _Job, index: int) -> _Result:
    """Run one tile on one thread."""
    work_alone()
    try:
        return task(job, index)
    except HsiclustError as error:
        failure = type(error)(str(error))
    # Raised out here it has no context: GDAL's own exceptions do not survive the way back.
    raise failure


def _failure(part: str, future: Any) -> HsiclustError:
    from distributed import KilledWorker

    if future.status == "cancelled":
        return ClusterError(_GONE)
    error = future.exception()
    message = f"{part}: {error}"
    failed = type(error) if isinstance(error, HsiclustError) else HsiclustError
    if isinstance(error, KilledWorker):
        message = _killed(part)
    elif not isinstance(error, HsiclustError):
        message = f"{part} failed {_RETRIES + 1} times: {type(error).__name__}: {error}"
    wrapped = failed(message)
    wrapped.__cause__ = error
    return wrapped


def _killed(part: str) -> str:
    return (
        f"{part}: {_DEATHS + 1} workers died that had it, killed or out of memory; with fewer "
        f"--workers each has more memory; {_GO_ON}"
    )
