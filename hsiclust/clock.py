"""Where the time of a run goes: reading, computing or writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Literal, TypeVar

Activity = Literal["reading", "computing", "writing"]
_Item = TypeVar("_Item")


@dataclass
class Clock:
    """Seconds that one thread, or many threads together, spent on each activity.

    Attributes:
        reading: Reading and decoding.
        computing: Spectral transform and network.
        writing: Into the label store.
    """

    reading: float = 0.0
    computing: float = 0.0
    writing: float = 0.0

    @contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """Count the time of a block."""
        start = perf_counter()
        try:
            yield
        finally:
            self._count(activity, start)

    def reading_each(self, items: Iterator[_Item]) -> Iterator[_Item]:
        """Count the time that an iterator takes to give its items as reading."""
        while True:
            start = perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._count("reading", start)
            yield item

    def add(self, other: Clock) -> None:
        """Add what another clock counted."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def bound(self) -> Activity:
        """The activity that took most of the time."""
        names: tuple[Activity, ...] = ("reading", "computing", "writing")
        return max(names, key=lambda name: float(getattr(self, name)))

    def _count(self, activity: Activity, start: float) -> None:
        setattr(self, activity, getattr(self, activity) + perf_counter() - start)
