"""Shards: parts of a scene that are labelled by jobs that know nothing of each other.

All write into one label store beside the map to be, on a file system that they share. Whoever
comes first makes the store; the others read and cut the scene as it says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import cast

from hsiclust.clock import Clock
from hsiclust.engine import Engine
from hsiclust.errors import HsiclustError, OutputBusyError, OutputExistsError, UsageError
from hsiclust.labels import LabelStore
from hsiclust.location import store_location
from hsiclust.models.base import Precision
from hsiclust.output import all_locked, locked
from hsiclust.prediction import Prediction, Progress, forget_labels, label_strips, new_store
from hsiclust.prediction_plan import PredictPlan
from hsiclust.predictoptions import PredictOptions
from hsiclust.runmaps import drafts

# Seconds in which another shard has made the store, or a run that ends has let go of its lock.
_PATIENCE = 10.0
_BETWEEN = 0.1


@dataclass(frozen=True)
class Shard:
    """A contiguous part of the strips of a scene.

    Attributes:
        number: Which, from 1.
        count: Of how many.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"shard {self}: shards are counted from 1 to their number")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `i/n` names.

        Raises:
            UsageError: It names none.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text!r} is not i/n with i from 1 to n, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def facts(self, plan: Mapping[str, object]) -> dict[str, object]:
        """What is this shard's of a plan's facts."""
        strips = self.strips(int(str(plan["strips"])))
        return {"shard": str(self), "strips_of_shard": len(strips)}

    def strips(self, total: int) -> range:
        """Its strips of so many; none where there are more shards than strips."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


@dataclass(frozen=True)
class LabelledShard:
    """What a shard did.

    Attributes:
        store: The label store, which the shards share.
        shard: Which, as `i/n`.
        strips: Strips of the shard.
        tiles: Tiles of the shard.
        resumed: Those that an earlier run had done.
        labelled: Pixels that got a class now.
        seconds: Time of this run.
        clock: Seconds that its threads together spent reading, computing and writing.
    """

    store: str
    shard: str
    strips: int
    tiles: int
    resumed: int
    labelled: int
    seconds: float
    clock: Clock

    @property
    def summary(self) -> str:
        """The run in one line."""
        earlier = f", {self.resumed} of them from an earlier run" if self.resumed else ""
        return f"shard {self.shard}: {self.tiles} tiles{earlier} in {self.seconds:.1f} s"


def label_shard(
    plan: PredictPlan,
    options: PredictOptions,
    shard: Shard,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> LabelledShard:
    """Label a part of a scene; the map is left to `merge`.

    Args:
        plan: From `plan_prediction`.
        options: The same as there.
        shard: Which part.
        progress: Called with tiles done and tiles of the shard.
        engine: Workers that are ready; as the plan says when None.

    Raises:
        OutputExistsError: This shard, the whole scene or something else is being worked on.
        HsiclustError: A strip failed for good; finished tiles stay for the next start.
    """
    start = perf_counter()
    with ExitStack() as shared:
        store = _share_store(plan, options, shared)
        mark = plan.marks / f"{shard.number}-of-{shard.count}"
        plan.marks.mkdir(exist_ok=True)
        try:
            shared.enter_context(locked(mark))
        except OutputBusyError:  # it names the mark
            raise OutputBusyError(
                f"{plan.output}: another run is writing its shard {shard}; wait for it"
            ) from None
        mark.touch()
        strips = shard.strips(len(store.reading))
        done = label_strips(plan, store, strips, progress, engine)
    return LabelledShard(
        store=plan.job.labels,
        shard=str(shard),
        strips=len(strips),
        tiles=done.tiles,
        resumed=done.resumed,
        labelled=done.labelled,
        seconds=perf_counter() - start,
        clock=done.clock,
    )


def merge(
    plan: PredictPlan, options: PredictOptions, finishing: Callable[[], None] | None = None
) -> Prediction:
    """Write the map of a scene whose shards are all done.

    Args:
        plan: From `plan_prediction`, with what the shards were given.
        options: The same as there.
        finishing: As of `predict`.

    Raises:
        OutputBusyError: A shard is still at work.
        HsiclustError: Tiles are missing; the message names shards or strips.
    """
    start = perf_counter()
    output = plan.output
    with all_locked(plan.written):
        store = _store_there(plan)
        if store is None:
            raise HsiclustError(f"{output}: no shard of this scene and model was started")
        if missing := store.reading.strips_of(store.missing()):
            raise HsiclustError(f"{output}: {_missing(missing, len(store.reading), plan.marks)}")
        plan.refuse_maps(options.overwrite)
        with drafts(plan, store, options) as maps:
            maps.publish()
        forget_labels(plan, store, finishing)
    return Prediction(
        map=output,
        confidence=maps.confidence,
        pixels=store.tiles.area.pixels,
        labelled=0,
        tiles=len(store.tiles),
        resumed=len(store.tiles),
        seconds=perf_counter() - start,
        precision=cast(Precision, store.precision),
        bytes_read=0,
        clock=Clock(),
        bound="writing",
    )


def _share_store(plan: PredictPlan, options: PredictOptions, shared: ExitStack) -> LabelStore:
    """The label store of a run, shared with its other shards, made by whoever comes first.

    A store is made, and that of another run discarded, by one who is alone; the others wait.
    """
    limit = time.monotonic() + _PATIENCE
    while True:
        try:
            if _store_there(plan) is None:
                with all_locked(plan.written):
                    new_store(plan).open_or_create(plan.job.run, options.overwrite)
            shared.enter_context(all_locked(plan.written, shared=True))
        except OutputBusyError:
            if time.monotonic() > limit:
                raise
        else:
            store = _store_there(plan)
            if store is not None:
                _refuse_other_tiles(store.tiles.tile_rows, plan, options)
                return store
            shared.close()  # it was discarded or merged since
        time.sleep(_BETWEEN)


def _store_there(plan: PredictPlan) -> LabelStore | None:
    """The label store of a run, as whoever made it chose to cut the scene."""
    record = LabelStore.record_of_run(plan.job.labels, plan.job.run)
    if record is None:
        return None
    return LabelStore(store_location(plan.job.labels), record.reading, record.precision)


def _refuse_other_tiles(rows: int, plan: PredictPlan, options: PredictOptions) -> None:
    if options.tile is not None and plan.job.tiles.tile_rows != rows:
        raise OutputExistsError(
            f"{plan.output}: its shards were begun with tiles of {rows} rows; "
            f"--tile-size {options.tile} does not go with them"
        )


def _missing(strips: Sequence[int], total: int, marks: Path) -> str:
    """Who is to be started again, as far as that is known."""
    text = f"{len(strips)} of {total} strips are not labelled yet"
    counts = {int(mark.name.rpartition("-")[2]) for mark in marks.glob("[1-9]*-of-*[0-9]")}
    if len(counts) != 1:
        return f"{text}: {_numbers(strips)}; start the shards again that hold them"
    (count,) = counts
    # The shard that ends behind a strip, and the one before does not: the inverse of `strips`.
    unfinished = sorted({-(-(strip + 1) * count // total) for strip in strips})
    return f"{text}: start again shards {_numbers(unfinished)} of {count}"


def _numbers(values: Sequence[int]) -> str:
    """Numbers with their stretches drawn together: `3, 5 to 9`."""
    starts = [at for at in range(len(values)) if at == 0 or values[at] != values[at - 1] + 1]
    stretches = [values[a:b] for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]
    return ", ".join(str(s[0]) if len(s) == 1 else f"{s[0]} to {s[-1]}" for s in stretches)
