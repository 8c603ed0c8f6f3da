"""Threads of this process: each takes the next tile as soon as it is done with one.

Where there is one process there is nothing to schedule, and whatever computes beside the threads
keeps them from Python's interpreter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Generic, TypeVar

from hsiclust.errors import HsiclustError

RETRIES = 2
# Seconds for what is at work to come to its end when a run is stopped. A thread that takes longer
# ends with what it is at.
_END_WITHIN = 5.0

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Failed:
    """A tile that failed for good."""

    error: BaseException


class _Hand(threading.Thread):
    """A thread of a crew. Python waits for it: one that ends within torch aborts the process."""


def still_at_work() -> bool:
    """Whether a thread of a run that was stopped has not come to its end yet."""
    return any(isinstance(thread, _Hand) for thread in threading.enumerate())


class Crew(Generic[_Result]):
    """Threads at work on one run.

    Args:
        task: Gives the result of an index.
        indices: What is to be done, in this order.
        unit: What an index counts, for messages.
        threads: How many are at work at once.
    """

    def __init__(
        self, task: Callable[[int], _Result], indices: Sequence[int], unit: str, threads: int
    ) -> None:
        self._task = task
        self._unit = unit
        self._todo = deque(indices)
        self._count = len(indices)
        self._done: SimpleQueue[tuple[int, _Result | _Failed]] = SimpleQueue()
        self._over = False
        self._threads = [_Hand(target=self._follow) for _ in range(min(threads, len(indices)))]

    def work(self) -> Generator[tuple[int, _Result]]:
        """Indices and results in the order in which they are done.

        Raises:
            HsiclustError: One failed for good; the message names it. An expected failure keeps
                its class.
        """
        try:
            for thread in self._threads:
                thread.start()
            for _ in range(self._count):
                index, found = self._done.get()
                if isinstance(found, _Failed):
                    raise named_failure(f"{self._unit} {index}", found.error)
                yield index, found
        finally:
            self._stop()

    def _stop(self) -> None:
        """Begin nothing more, and nothing again; wait a little for what is at work."""
        self._over = True
        self._todo.clear()
        limit = monotonic() + _END_WITHIN
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, limit - monotonic()))

    def _follow(self) -> None:
        while True:
            try:
                index = self._todo.popleft()
            except IndexError:
                return
            found = self._tried(index)
            if isinstance(found, _Failed):
                self._todo.clear()
            self._done.put((index, found))

    def _tried(self, index: int) -> _Result | _Failed:
        tries = RETRIES
        while True:
            try:
                return self._task(index)
            except BaseException as error:  # noqa: BLE001 - raised where the results are awaited
                if not tries or self._over:
                    return _Failed(error)
                tries -= 1


def named_failure(part: str, error: BaseException) -> HsiclustError:
    """What is raised for a tile that failed for good; an expected failure keeps its class.

    Args:
        part: Its name.
        error: The last failure.
    """
    if isinstance(error, HsiclustError):
        failure = type(error)(f"{part}: {error}")
    else:
        failure = HsiclustError(
            f"{part} failed {RETRIES + 1} times: {type(error).__name__}: {error}"
        )
    failure.__cause__ = error
    return failure
