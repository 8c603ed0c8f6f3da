"""Training: one loop for every method.

Open scenes, fit the spectral transform, stage a spread sample of tiles, draw batches of crops
from them, step, save. What is learned from is bounded by a budget of pixels, whatever the size of
the scenes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from hsiclust.checkpoint import load_checkpoint, loss_of, save_checkpoint
from hsiclust.crops import Pixels, StoredTiles, StreamedPixels, TrainingPixels
from hsiclust.datafile import files_of
from hsiclust.devices import resolve_device
from hsiclust.errors import (
    InputError,
    ModelError,
    OutputExistsError,
    StoppedError,
    UsageError,
)
from hsiclust.heldout import score_held_out
from hsiclust.labelled import divide_labels, number_labels
from hsiclust.legend import split_owner
from hsiclust.lessons import lesson_tiles, staged_paths
from hsiclust.modelfile import save_model
from hsiclust.models.base import Method, Progress
from hsiclust.models.classifier import Classifier
from hsiclust.ordering import Counts, canonical_order, label_sample, order_like_map
from hsiclust.output import locked, refuse_existing, refuse_inputs, remove
from hsiclust.provenance import provenance_of, provenance_of_labels
from hsiclust.recipe import initial_model
from hsiclust.splitfile import earlier_files, split_files, write_split
from hsiclust.stages import Stopwatch
from hsiclust.trained import Step, Training
from hsiclust.trainingrun import Run, checkpoint_path, run_of
from hsiclust.trainoptions import TrainOptions

log = logging.getLogger(__name__)

# Seconds between checkpoints.
_CHECKPOINT_EVERY = 20.0
# A cluster counts as used from this part of the pixels on.
_IN_USE = 0.001


def train(
    sources: Sequence[str],
    output: str | Path,
    options: TrainOptions,
    progress: Callable[[Step], None] | None = None,
    finishing: Callable[[], None] | None = None,
) -> Training:
    """Fit a model to scenes and write its file.

    Args:
        sources: Scenes, or tile stores made by `tile`.
        output: The model file.
        options: How.
        progress: Called after each step.
        finishing: Called once, before the model gets its name: who is stopped later is done, and
            would be refused if started again.

    Raises:
        InputError: A scene, store or mask cannot be used.
        ModelError: `init` cannot be used, or not with these scenes.
        UsageError: The model exists, no source is given, or an option is out of range.
    """
    output = Path(output)
    if not sources:
        raise UsageError("no scene is named; give at least one to learn from")
    split = _split_files(output, len(sources), options)
    _refuse_existing(output, split, options.overwrite)
    for written in split:
        if (owner := split_owner(written)) not in (None, output.name):
            raise OutputExistsError(
                f"{written}: holds labels of the training of {owner}; name another output"
            )
    inputs = files_of(*sources, options.mask, options.init, options.match_to, options.labels)
    for replaced in (output, *split, *_earlier_files(output, len(sources), options)):
        refuse_inputs(replaced, *inputs)
    with locked(output):
        _refuse_existing(output, split, options.overwrite)  # another may have ended just now
        earlier = any(path.exists() for path in _kept(output))
        try:
            return _train(sources, output, options, progress, finishing)
        except (InputError, ModelError, UsageError):
            if not earlier:  # it would fail again
                _clean_up(output)
            raise


def _train(
    sources: Sequence[str],
    output: Path,
    options: TrainOptions,
    progress: Callable[[Step], None] | None,
    finishing: Callable[[], None] | None,
) -> Training:
    start = perf_counter()
    watch = Stopwatch()
    device = resolve_device(options.device)
    numbering = number_labels(sources, options)
    model = initial_model(sources, options, numbering)
    watch.lap("transform")
    method = model.method.to(device)
    labelled = None
    if numbering is not None:
        labelled = divide_labels(sources, numbering, model, options)
        watch.lap("labels")
    tiles = lesson_tiles(sources, model, output, options, labelled)
    pixels = _pixels(method, tiles.learned, device)
    run = run_of(output, tiles.learned, model, options, pixels.count)
    watch.lap("staging")
    first = _begin(method, pixels, run)
    watch.lap("teacher")
    last = _watched(method, pixels, first, run, progress)
    watch.lap("steps")
    counts = _finish(method, tiles.learned, options)
    watch.lap("order")
    held_out = None
    if labelled is not None and isinstance(method, Classifier):
        held_out = score_held_out(method, tiles.scored, labelled.numbering, options.seed)
        watch.lap("score")
    provenance = provenance_of(sources, options, model, pixels.count, last, counts)
    provenance["choices"] = method.choices()
    if labelled is not None:
        provenance |= provenance_of_labels(labelled, options, held_out)
        run.checkpoint.touch()  # a training without steps has none, and one that goes on needs it
        write_split(labelled.split, labelled.sites, labelled.numbering, output)
    _remove_earlier(_earlier_files(output, len(sources), options))
    # Before there is a model: whoever is stopped meanwhile starts again, and is not refused.
    for store in staged_paths(output):
        remove(store)
    if finishing is not None:
        finishing()
    save_model(replace(model, provenance=provenance), output)
    remove(run.checkpoint)
    return Training(
        model=output,
        method=method.name,
        supervised=method.supervised,
        classes=method.classes,
        in_use=int((counts >= _IN_USE * counts.sum()).sum()),
        pixels=pixels.count,
        steps=run.steps,
        loss=last.loss,
        seconds=perf_counter() - start,
        choices=method.choices(),
        stages=watch.stages,
        held_out=held_out,
        split=_split_files(output, len(sources), options),
    )


def _refuse_existing(output: Path, split: Sequence[Path], overwrite: bool) -> None:
    """Check that the model and the files of its split may be written."""
    refuse_existing(output, overwrite)
    unfinished = checkpoint_path(output).exists()  # then files of a split are what a kill left
    for written in split:
        refuse_existing(written, overwrite or unfinished)


def _split_files(output: Path, sources: int, options: TrainOptions) -> Sequence[Path]:
    """Where the division of the labels is written; nothing without labels."""
    if options.labels is None:
        return ()
    return split_files(output, sources, held_out=options.split != "none")


def _earlier_files(output: Path, sources: int, options: TrainOptions) -> Sequence[Path]:
    """Labels of the model that is replaced which are not replaced with it."""
    if not options.overwrite:
        return ()
    return earlier_files(output, _split_files(output, sources, options))


def _remove_earlier(files: Sequence[Path]) -> None:
    """Remove labels of another training: maps of this model would be scored on what it learned."""
    for file in files:
        remove(file)
        remove(file.with_name(f"{file.name}.aux.xml"))
    if files:
        names = ", ".join(map(str, files))
        log.info("%s: removed, of the training of the model that is replaced", names)


def _kept(output: Path) -> list[Path]:
    """What only a training that goes on needs, also one of more scenes than this."""
    return [checkpoint_path(output), *staged_paths(output)]


def _clean_up(output: Path) -> None:
    """Remove what only a training that goes on needs."""
    for path in _kept(output):
        remove(path)


def _begin(method: Method, pixels: Pixels, run: Run) -> int:
    """Go on with an earlier training, or let the method study the tiles; gives the first step."""
    first = load_checkpoint(run.checkpoint, method, run.hash)
    if first is None:
        first = 0
        tiles = pixels.tiles(method.crop_shape.context)
        with torch.no_grad():
            method.study(tiles, run.warm, torch.Generator().manual_seed(run.seed))
        if run.steps:
            save_checkpoint(run.checkpoint, method, run.hash, first)
    else:
        log.info("going on with an earlier training at step %d of %d", first, run.steps)
    pixels.heed(method)
    with torch.no_grad():
        gathering = torch.Generator().manual_seed(run.seed)
        method.gather(pixels.tiles(method.crop_shape.context), gathering)
    return first


def _pixels(method: Method, tiles: Sequence[StoredTiles], device: torch.device) -> Pixels:
    """What is learned from: in memory where crops are drawn from it, else read as it is needed."""
    if method.crop_shape.count:
        return TrainingPixels.load(tiles, device)
    return StreamedPixels(tiles, device)


def _watched(
    method: Method,
    pixels: Pixels,
    first: int,
    run: Run,
    progress: Callable[[Step], None] | None,
) -> Step:
    """Take all steps, and tell of each; who stops finds a checkpoint. Gives the last one."""
    # No step may be left to tell the loss.
    last = Step(first, run.steps, loss_of(run.checkpoint) if first else math.nan, 0, 0.0)
    for last in _learn(method, pixels, first, run):
        if last.step == run.steps:  # what comes after it may be stopped at any moment
            save_checkpoint(run.checkpoint, method, run.hash, last.step, last.loss)
        try:
            if progress is not None:
                progress(last)
        except StoppedError:
            save_checkpoint(run.checkpoint, method, run.hash, last.step, last.loss)
            raise
    return last


def _learn(method: Method, pixels: Pixels, first: int, run: Run) -> Iterator[Step]:
    """The loop: draw, step, report, and a checkpoint now and then."""
    saved = reported = perf_counter()
    for step in range(first, run.steps):
        # A generator of its own for each step: a resumed training draws what it would have drawn.
        generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
        batch = pixels.draw(method.crop_shape, generator)
        epoch = step * method.crop_shape.pixels / pixels.count
        learned = method.learn(batch, Progress(step, run.steps, run.warm, epoch), generator)
        now = perf_counter()
        total = int(learned.counts.sum())
        used = int((learned.counts >= max(1.0, _IN_USE * total)).sum())
        rate = total / max(now - reported, 1e-9)
        yield Step(step + 1, run.steps, learned.loss, used, rate, learned.stage)
        reported = now
        if now - saved > _CHECKPOINT_EVERY and step + 1 < run.steps:
            save_checkpoint(run.checkpoint, method, run.hash, step + 1)
            saved = perf_counter()


def _finish(method: Method, tiles: Sequence[StoredTiles], options: TrainOptions) -> Counts:
    """Put the clusters into their final order; returns how many pixels each holds."""
    method.eval()
    if not method.knows_classes:
        return np.zeros(method.classes, np.int64)
    sample = label_sample(method, tiles)
    if method.supervised:
        return sample.counts  # the classes are the user's
    if options.match_to is not None:
        order = order_like_map(sample, options.match_to)
    elif options.init is not None:
        order = list(range(method.classes))  # an online training keeps every identity
    else:
        order = canonical_order(sample)
    method.reorder(torch.tensor(order))
    return sample.counts[order]
