"""Labelling a scene: tiles through a model into the label store, then the map.

A run that was killed goes on where it was when it is started again, and gives the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import cast

from hsiclust import pagecache
from hsiclust.clock import Activity, Clock
from hsiclust.components import SceneComponents
from hsiclust.devices import resolve_device, total_memory
from hsiclust.engine import Engine, opened
from hsiclust.grid import Window
from hsiclust.labeller import Labeller
from hsiclust.labels import LabelStore
from hsiclust.location import store_location
from hsiclust.models.base import Precision
from hsiclust.output import all_locked, remove
from hsiclust.prediction_plan import PredictPlan
from hsiclust.predictoptions import PredictOptions
from hsiclust.readplan import ReadPlan
from hsiclust.runmaps import drafts
from hsiclust.scene import Scene
from hsiclust.tilegrid import RowsDone, Tile, TileGrid
from hsiclust.trial import fastest
from hsiclust.workbench import label_strip

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_TRIAL_BLOCKS = 4
# Most that the system is asked to read before anyone needs it; it has to fit into its memory.
_FIRST_BYTES = 2**29
# A file that takes more than this part of the memory, 1 / _KEPT_PART, is not worth keeping in it.
_KEPT_PART = 16


@dataclass(frozen=True)
class Prediction:
    """What a run did.

    Attributes:
        map: The label map.
        confidence: The confidence map, if it was asked for.
        pixels: Pixels of the map.
        labelled: Pixels that this run gave a class; resumed tiles are not counted again.
        tiles: Tiles in all.
        resumed: Tiles that an earlier run had done.
        seconds: Time of this run.
        precision: What the network computed in.
        bytes_read: Bytes of pixels that this run read, uncompressed.
        clock: Seconds that its threads together spent reading, computing and writing.
        bound: Which of the three took most of them.
    """

    map: Path
    confidence: Path | None
    pixels: int
    labelled: int
    tiles: int
    resumed: int
    seconds: float
    precision: Precision
    bytes_read: int
    clock: Clock
    bound: Activity

    @property
    def summary(self) -> str:
        """The run in one line: how much, how fast, and what bound it."""
        if self.resumed == self.tiles:
            return f"{self.pixels} pixels, {self.tiles} tiles, all from earlier runs"
        new = self.pixels * (self.tiles - self.resumed) / self.tiles
        busy = sum(astuple(self.clock)) or 1
        shares = ", ".join(
            f"{name} {seconds / busy:.0%}" for name, seconds in asdict(self.clock).items()
        )
        earlier = f", {self.resumed} of them from an earlier run" if self.resumed else ""
        return (
            f"{self.pixels} pixels, {self.tiles} tiles{earlier} in {self.seconds:.1f} s: "
            f"{new / self.seconds / 1e6:.3f} Mpixel/s, {self.bytes_read / self.seconds / 1e9:.3f} "
            f"GB/s, bound by {self.bound} ({shares} of the threads' time)"
        )


@dataclass(frozen=True)
class Labelling:
    """What was done to the labels of some strips.

    Attributes:
        tiles: Tiles of these strips.
        resumed: Those that an earlier run had done.
        labelled: Pixels that got a class now.
        clock: Seconds that all threads together spent reading, computing and writing.
    """

    tiles: int
    resumed: int
    labelled: int
    clock: Clock


def predict(
    plan: PredictPlan,
    options: PredictOptions,
    progress: Progress | None = None,
    engine: Engine | None = None,
    finishing: Callable[[], None] | None = None,
) -> Prediction:
    """Label a scene and write its map.

    Args:
        plan: From `plan_prediction`.
        options: The same as there.
        progress: Called with tiles done and tiles in all.
        engine: Workers that are ready; as the plan says when None.
        finishing: Called once, when the map is there and what the run kept is to be removed: who is
            stopped later is done, and would be refused if started again.

    Raises:
        OutputExistsError: An unfinished run of something else is in the way.
        HsiclustError: A tile failed for good; finished tiles stay for the next start.
    """
    start = perf_counter()
    job, output = plan.job, plan.output
    store = new_store(plan)
    with all_locked(plan.written):
        plan.refuse_maps(options.overwrite)
        store.open_or_create(job.run, options.overwrite)
        with drafts(plan, store, options) as maps:
            strips = range(len(job.reading))
            done = label_strips(plan, store, strips, progress, engine, maps.advance)
            maps.publish()
        forget_labels(plan, store, finishing)
    if done.labelled == 0 and not done.resumed:
        log.warning(
            "%s: not one pixel got a class: each is nodata or not finite in a band that the model "
            "needs",
            output,
        )
    return Prediction(
        map=output,
        confidence=maps.confidence,
        pixels=job.tiles.area.pixels,
        labelled=done.labelled,
        tiles=done.tiles,
        resumed=done.resumed,
        seconds=perf_counter() - start,
        precision=cast(Precision, store.precision),
        bytes_read=plan.bytes_read * (done.tiles - done.resumed) // done.tiles,
        clock=done.clock,
        bound=done.clock.bound,
    )


def forget_labels(
    plan: PredictPlan, store: LabelStore, finishing: Callable[[], None] | None
) -> None:
    """Remove what a run kept while it worked; arguments as of `predict`."""
    if finishing is not None:
        finishing()
    store.remove()
    remove(plan.marks)


def new_store(plan: PredictPlan) -> LabelStore:
    """The label store of a plan, not made yet; where a trial is to be made, it is made here."""
    precision = _tried(plan) if plan.trial else plan.job.precision
    return LabelStore(store_location(plan.job.labels), plan.job.reading, precision)


def label_strips(
    plan: PredictPlan,
    store: LabelStore,
    strips: range,
    progress: Progress | None = None,
    engine: Engine | None = None,
    advance: Callable[[int], None] | None = None,
) -> Labelling:
    """Label what is missing of some strips, into the store.

    Args:
        plan: From `plan_prediction`.
        store: The label store of the run; the scene is cut, and labels are computed, as it says.
        strips: Neighbouring strips.
        progress: Called with tiles done and tiles in all.
        engine: Workers that are ready; as the plan says when None.
        advance: Called with the rows of the area that are labelled without a gap.

    Raises:
        HsiclustError: A strip failed for good.
        InputError: The scene is another by now.
    """
    missing = set(store.missing())
    job = replace(
        plan.job,
        reading=store.reading,
        precision=cast(Precision, store.precision),
        passing=_is_passing(plan),
        begun=len(missing) < len(store.tiles),
    )
    tiles = {strip: job.reading.tiles_of(strip) for strip in strips}
    todo = {strip: len(missing.intersection(of)) for strip, of in tiles.items()}
    todo = {strip: count for strip, count in todo.items() if count}
    count = sum(map(len, tiles.values()))
    done = resumed = count - sum(todo.values())
    if resumed:
        log.info("going on with an earlier run: %d of %d tiles done", resumed, count)
    labelled, clock, rows = 0, Clock(), RowsDone(job.tiles, missing)
    if todo:
        _read_ahead(plan, job.reading, list(todo)[: plan.run.in_flight])
        with ExitStack() as stack:
            ready = stack.enter_context(_engine_of(plan, engine))
            work = ready.run(label_strip, job, list(todo), "strip", plan.run.in_flight)
            # Whatever ends this, the work ends before what it works on is gone.
            for strip, found in stack.enter_context(closing(work)):
                done, labelled = done + todo[strip], labelled + found.labelled
                clock.add(found.clock)
                if progress is not None:
                    progress(done, count)
                if advance is not None:
                    advance(rows.after(tiles[strip]))
    job.check_source(plan.source.identity)
    return Labelling(count, resumed, labelled, clock)


def _is_passing(plan: PredictPlan) -> bool:
    """Whether the system need not keep what is read of a scene.

    It may keep what it had before, or what takes a small part of the memory alone: another run may
    read that again.
    """
    file = plan.source.scene.file if isinstance(plan.source, SceneComponents) else None
    if file is None:
        return False
    with suppress(OSError):  # whoever reads says what is wrong
        large = Path(file).stat().st_size * _KEPT_PART > total_memory()
        return large and not pagecache.holds(file)
    return False


def _read_ahead(plan: PredictPlan, reading: ReadPlan, strips: list[int]) -> None:
    """Tell the system what the first strips need, while workers start; later ones are told by them.

    It would be told step by step otherwise, and all threads would wait for the disk.
    """
    if not isinstance(plan.source, SceneComponents) or plan.engine.standing:
        return
    scene, steps, left = plan.source.scene, [], _FIRST_BYTES
    for number in sorted({number for strip in strips for number in reading.steps_of(strip)}):
        step = reading.step(number)
        left -= scene.nbytes // scene.grid.window.pixels * step.pixels
        if left < 0:
            break
        steps.append(step)
    Thread(target=_prefetch, args=(scene, steps), daemon=True).start()


def _prefetch(scene: Scene, steps: list[Window]) -> None:
    for step in steps:
        scene.prefetch(step)


def _engine_of(plan: PredictPlan, engine: Engine | None) -> AbstractContextManager[Engine]:
    if engine is not None:
        return nullcontext(engine)
    return opened(plan.engine.limited_to(plan.run.in_flight))


def _tried(plan: PredictPlan) -> Precision:
    """The precision that a trial on the scene shows to be best, on one thread."""
    source = plan.source
    if not isinstance(source, SceneComponents):
        return plan.job.precision
    device = resolve_device(plan.job.device)
    ways: dict[str, Labeller] = {
        name: plan.model.labeller(device, name) for name in plan.model.precisions
    }
    trial = fastest(ways, [source.read(tile) for tile in _trial_tiles(plan)])
    log.info("%s", trial)
    return next(name for name in plan.model.precisions if name == trial.chosen)


def _trial_tiles(plan: PredictPlan) -> list[Tile]:
    """Blocks of the area's middle, which is seldom its nodata."""
    area, side = plan.job.tiles.area, plan.job.block
    rows, cols = min(_TRIAL_BLOCKS * side, area.rows), min(side, area.cols)
    middle = Window(
        area.row + (area.rows - rows) // 2, area.col + (area.cols - cols) // 2, rows, cols
    )
    return list(TileGrid(plan.source.grid.window, middle, side, side, plan.model.halo))
