"""Who runs the tiles: threads of this process, or Dask in workers here or on a standing cluster.

Tasks carry paths and tile numbers, never arrays. Neighbours go to one worker, a bounded number to
each; results come as they are done; a tile that fails is tried again and then named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar

from hsiclust.cluster import EngineOptions, available_processors, connected
from hsiclust.crew import RETRIES, Crew
from hsiclust.errors import HsiclustError
from hsiclust.shift import Shift, Submit
from hsiclust.threads import threads_kept, work_alone

__all__ = ["Engine", "EngineOptions", "available_processors", "opened", "run_tiles", "threads_here"]

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Engine:
    """Workers that are ready, for one run after the other.

    Attributes:
        client: The Dask client; None where threads of this process do the work.
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
    ) -> Generator[tuple[int, _Result]]:
        """Run `task(job, index)` for each index, as `run_tiles` does.

        Args:
            task: As there.
            job: As there.
            indices: As there.
            unit: What an index counts, for messages.
            threads: At most so many at once, over all workers of this machine, or at each worker
                of a standing cluster.
        """
        limit = self._limit(threads)
        if self.client is None:
            here = min(limit or self.options.parallel, self.options.parallel)
            work = Crew(partial(_alone, task, job), indices, unit, here).work()
        else:
            submit = _submitter(self.client, task, job)
            work = Shift(self.client, submit, indices, unit, limit).work()
        with closing(work) as done:
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
    with threads_kept():
        if options.in_process:
            yield Engine(None, options)
            return
        with connected(options) as client:
            yield Engine(client, options)


def run_tiles(
    task: Callable[[_Job, int], _Result],
    job: _Job,
    indices: Sequence[int],
    options: EngineOptions,
) -> Iterator[tuple[int, _Result]]:
    """Run `task(job, index)` for each index.

    Args:
        task: A module-level function; runs in a worker, so it must find all it needs through
            `job`.
        job: A small, frozen, picklable description of the work.
        indices: Tiles to work on, or strips of them; neighbours go to one worker.
        options: Where.

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
        yield from engine.run(task, job, indices, threads=options.threads)


def threads_here(most: int) -> int:
    """Tasks that are at work at once in this process, where `most` were planned."""
    if "distributed" not in sys.modules:  # whoever is Dask's worker has loaded it
        return most
    from distributed import get_worker

    try:
        return int(min(most, get_worker().state.nthreads))
    except ValueError:  # not in a worker
        return most


def _submitter(client: Any, task: Callable[[_Job, int], _Result], job: _Job) -> Submit:
    run = os.urandom(8).hex()  # keys of two runs on one cluster must never meet
    turns = count()  # nor those of an index that is given away again

    def submit(index: int, worker: str) -> Any:
        return client.submit(
            *(_alone, task, job, index),
            key=f"hsiclust-{run}-{index}-{next(turns)}",
            retries=RETRIES,
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
