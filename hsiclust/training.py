"""Training: one loop for every method.

Open scenes, fit the spectral transform, stage a spread sample of tiles, draw batches of crops
from them, step, save. What is learned from is bounded by a budget of pixels, whatever the size of
the scenes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from hsiclust import __version__
from hsiclust.checkpoint import load_checkpoint, save_checkpoint
from hsiclust.crops import Pixels, StoredTiles, StreamedPixels, TrainingPixels
from hsiclust.devices import resolve_device
from hsiclust.errors import HsiclustError, StoppedError
from hsiclust.heldout import HeldOutScore, score_held_out
from hsiclust.labelled import Labelled, divide_labels, number_labels
from hsiclust.lessons import lesson_tiles, staged_path
from hsiclust.marks import Marks
from hsiclust.modelfile import FittedModel, file_digest, save_model
from hsiclust.models.base import Method, Progress
from hsiclust.models.classifier import Classifier
from hsiclust.ordering import Counts, canonical_order, label_sample, order_like_map
from hsiclust.output import locked, refuse_existing, refuse_inputs, remove
from hsiclust.recipe import initial_model
from hsiclust.splitfile import split_files, write_split
from hsiclust.stages import Stage, Stopwatch
from hsiclust.trainoptions import TrainOptions
from hsiclust.truth import Truth

log = logging.getLogger(__name__)

# Seconds between checkpoints.
_CHECKPOINT_EVERY = 20.0
# A cluster counts as used from this part of the pixels on.
_IN_USE = 0.001


@dataclass(frozen=True)
class Step:
    """One step of training, for those who watch.

    Attributes:
        step: Steps taken, from 1.
        steps: Steps in all.
        loss: Objective.
        in_use: Clusters that hold at least 0.1 % of the batch's pixels.
        rate: Pixels learned from a second.
        stage: Which part of the method's training it belongs to, where there are several.
    """

    step: int
    steps: int
    loss: float
    in_use: int
    rate: float
    stage: str = ""


@dataclass(frozen=True)
class Run:
    """One training as it was asked for.

    Attributes:
        steps: Steps in all.
        seed: Of everything random.
        warm: Whether it goes on from a fitted model.
        hash: Of all that decides it.
        checkpoint: Where its checkpoint is.
    """

    steps: int
    seed: int
    warm: bool
    hash: str
    checkpoint: Path


@dataclass(frozen=True)
class Training:
    """What a training gave.

    Attributes:
        model: The model file.
        method: Name of the method.
        supervised: Whether it learned from labels.
        classes: Number of clusters, or of classes.
        in_use: Clusters that hold at least 0.1 % of the pixels learned from.
        pixels: Pixels learned from.
        steps: Steps taken.
        loss: Of the last step.
        seconds: Time of this run.
        choices: What the method chose without a truth, and the figures behind it.
        stages: Time and memory of each part of this run.
        held_out: The score on labels that it did not learn from, if any are held out.
        split: Files that say what was learned from and what was held out.
    """

    model: Path
    method: str
    supervised: bool
    classes: int
    in_use: int
    pixels: int
    steps: int
    loss: float
    seconds: float
    choices: Mapping[str, object]
    stages: Sequence[Stage]
    held_out: HeldOutScore | None = None
    split: Sequence[Path] = ()

    @property
    def collapsed(self) -> bool:
        """Whether fewer than half of the clusters are in use."""
        return not self.supervised and 2 * self.in_use < self.classes


def train(
    sources: Sequence[str],
    output: Path,
    options: TrainOptions,
    progress: Callable[[Step], None] | None = None,
) -> Training:
    """Fit a model to scenes and write its file.

    Args:
        sources: Scenes, or tile stores made by `tile`.
        output: The model file.
        options: How.
        progress: Called after each step.

    Raises:
        InputError: A scene, store or mask cannot be used.
        ModelError: `init` cannot be used, or not with these scenes.
        UsageError: The model exists, or an option is out of range.
    """
    unfinished = checkpoint_path(output).exists()  # then files of a split are what a kill left
    for written in (output, *_split_files(output, len(sources), options)):
        refuse_existing(written, options.overwrite or (unfinished and written != output))
        given = (options.mask, options.init, options.match_to, options.labels)
        refuse_inputs(written, *sources, *given)
    with locked(output):
        try:
            return _train(sources, output, options, progress)
        except HsiclustError as error:
            if not isinstance(error, StoppedError):
                _clean_up(output, len(sources))  # it would fail again
            raise


def _train(
    sources: Sequence[str],
    output: Path,
    options: TrainOptions,
    progress: Callable[[Step], None] | None,
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
    pixels: Pixels
    if method.crop_shape.count:
        pixels = TrainingPixels.load(tiles.learned, device)
    else:
        pixels = StreamedPixels(tiles.learned, device)
    run = _run(output, tiles.learned, model, options, pixels.count)
    watch.lap("staging")
    first = _begin(method, pixels, run)
    watch.lap("teacher")
    last = Step(first, run.steps, math.nan, 0, 0.0)
    for last in _learn(method, pixels, first, run):
        try:
            if progress is not None:
                progress(last)
        except StoppedError:
            save_checkpoint(run.checkpoint, method, run.hash, last.step)
            raise
    watch.lap("steps")
    counts = _finish(method, tiles.learned, options)
    watch.lap("order")
    held_out = None
    if labelled is not None and isinstance(method, Classifier):
        held_out = score_held_out(method, tiles.scored, labelled.numbering, options.seed)
        watch.lap("score")
    provenance = _provenance(sources, options, model, pixels.count, last, counts)
    provenance["choices"] = method.choices()
    if labelled is not None:
        provenance["labels"] = _of_labels(labelled, options)
        provenance["held_out"] = None if held_out is None else held_out.summary()
        write_split(labelled.split, labelled.sites, labelled.numbering, output)
    save_model(replace(model, provenance=provenance), output)
    _clean_up(output, len(sources))
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


def _split_files(output: Path, sources: int, options: TrainOptions) -> Sequence[Path]:
    """Where the division of the labels is written; nothing without labels."""
    if options.labels is None:
        return ()
    return split_files(output, sources, held_out=options.split != "none")


def _clean_up(output: Path, scenes: int) -> None:
    """Remove what only a training that goes on needs."""
    remove(checkpoint_path(output))
    for number in range(scenes):
        remove(staged_path(output, number))


def checkpoint_path(output: Path) -> Path:
    """Where a training of this model keeps its checkpoint."""
    return output.with_name(f".{output.name}.checkpoint")


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


def _steps(method: Method, options: TrainOptions, pixels: int) -> int:
    usual = method.default_steps if options.init is None else method.online_steps
    if usual == 0:
        return 0  # fitted when it studies the tiles
    epochs = options.epochs
    if epochs is None and options.steps is None and options.init is None:
        epochs = method.default_epochs
    if epochs is not None:
        return max(1, math.ceil(epochs * pixels / method.crop_shape.pixels))
    return options.steps or usual


def _run(
    output: Path,
    tiles: Sequence[StoredTiles],
    model: FittedModel,
    options: TrainOptions,
    pixels: int,
) -> Run:
    steps = _steps(model.method, options, pixels)
    identity = _run_hash(tiles, model, options, steps)
    warm = options.init is not None
    return Run(steps, options.seed, warm, identity, checkpoint_path(output))


def _run_hash(
    tiles: Sequence[StoredTiles], model: FittedModel, options: TrainOptions, steps: int
) -> str:
    """What decides a training; a checkpoint of anything else is not gone on with."""
    facts: list[object] = [[source.store.content, list(source.indices)] for source in tiles]
    facts += [None if path is None else _digest(path) for path in (options.mask, options.init)]
    facts += [_digest_of_labels(source.labels) for source in tiles]
    facts += [model.method.name, model.method.config(), model.method.classes, options.seed, steps]
    return hashlib.sha256(json.dumps([*facts, __version__]).encode()).hexdigest()


def _digest_of_labels(labels: Truth | None) -> str | None:
    if not isinstance(labels, Marks):
        return None
    columns = np.stack([labels.rows, labels.cols, labels.numbers.astype(np.int64)])
    return hashlib.sha256(columns.tobytes()).hexdigest()


def _of_labels(labelled: Labelled, options: TrainOptions) -> dict[str, object]:
    """What a model keeps of the labels that it learned from."""
    counts = labelled.split.counts
    return {
        "file": None if options.labels is None else options.labels.name,
        "field": options.field,
        "split": options.split or "separated",
        "per_class": options.per_class,
        "numbers": list(labelled.numbering.numbers),
        "training": counts.training.tolist(),
        "held_out": counts.held_out.tolist(),
        "notes": list(labelled.split.notes),
    }


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else str(path)


def _provenance(
    sources: Sequence[str],
    options: TrainOptions,
    model: FittedModel,
    pixels: int,
    last: Step,
    counts: Counts,
) -> dict[str, object]:
    before = model.provenance.get("scenes", []) if options.init is not None else []
    earlier = [str(name) for name in before] if isinstance(before, list) else []
    return {
        "version": __version__,
        "torch": torch.__version__,
        "seed": options.seed,
        "scenes": [*earlier, *(Path(source).name for source in sources)],
        "mask": None if options.mask is None else options.mask.name,
        "init": None if options.init is None else file_digest(options.init),
        "pixels": pixels,
        "steps": last.steps,
        "loss": last.loss if math.isfinite(last.loss) else None,
        "cluster_pixels": [int(count) for count in counts],
    }
