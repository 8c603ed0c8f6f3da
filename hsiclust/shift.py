"""One run of tasks at Dask's workers: what each was given, and what is done when one goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from hsiclust.crew import named_failure
from hsiclust.errors import GO_ON, ClusterError, HsiclustError
from hsiclust.runs import Runs

Submit = Callable[[int, str], Any]
"""Gives an index to a worker; returns the future of its result."""

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
_GONE = f"the Dask scheduler went away; {GO_ON}"


@dataclass(frozen=True, eq=False)
class _Given:
    """A task that a worker was given."""

    index: int
    worker: str
    future: Any


class Shift:
    """One run: who works, and what each was given.

    Args:
        client: The Dask client.
        submit: Gives an index to a worker.
        indices: What is to be done.
        unit: What an index counts.
        limit: Most tasks at work at once at a worker.
    """

    def __init__(
        self, client: Any, submit: Submit, indices: Sequence[int], unit: str, limit: int | None
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
            ClusterError: The scheduler went away.
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
        except OSError as error:  # the scheduler hands results on
            raise ClusterError(_GONE) from error
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
            raise ClusterError(f"no worker for {_WORKERS_WITHIN:.0f} s; {GO_ON}")
        limit = self._limit
        return {
            worker: own * _AHEAD if limit is None or own <= limit else limit
            for worker, own in threads.items()
        } or {_ANYBODY: 1}


def _failure(part: str, future: Any) -> HsiclustError:
    from distributed import KilledWorker

    if future.status == "cancelled":
        return ClusterError(_GONE)
    error = future.exception()
    if isinstance(error, KilledWorker):
        failure = HsiclustError(_killed(part))
        failure.__cause__ = error
        return failure
    return named_failure(part, error)


def _killed(part: str) -> str:
    return (
        f"{part}: {_DEATHS + 1} workers died that had it, killed or out of memory; with fewer "
        f"--workers each has more memory; {GO_ON}"
    )
