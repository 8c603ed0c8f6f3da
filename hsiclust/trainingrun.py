"""One training as it was asked for: how long, and what tells it from every other."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsiclust import __version__
from hsiclust.crops import StoredTiles
from hsiclust.marks import Marks
from hsiclust.modelfile import FittedModel, file_digest
from hsiclust.models.base import Method
from hsiclust.trainoptions import TrainOptions
from hsiclust.truth import Truth


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


def checkpoint_path(output: Path) -> Path:
    """Where a training of this model keeps its checkpoint."""
    return output.with_name(f".{output.name}.checkpoint")


def run_of(
    output: Path,
    tiles: Sequence[StoredTiles],
    model: FittedModel,
    options: TrainOptions,
    pixels: int,
) -> Run:
    """The run of a training.

    Args:
        output: The model file.
        tiles: What is learned from.
        model: What learns.
        options: What is asked for.
        pixels: How many may be learned from.
    """
    steps = _steps(model.method, options, pixels)
    identity = _run_hash(tiles, model, options, steps)
    warm = options.init is not None
    return Run(steps, options.seed, warm, identity, checkpoint_path(output))


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


def _run_hash(
    tiles: Sequence[StoredTiles], model: FittedModel, options: TrainOptions, steps: int
) -> str:
    """What decides a training; a checkpoint of anything else is not gone on with."""
    facts: list[object] = [[source.store.content, list(source.indices)] for source in tiles]
    facts += [
        None if path is None else _digest(Path(path)) for path in (options.mask, options.init)
    ]
    facts += [_digest_of_labels(source.labels) for source in tiles]
    facts += [model.method.name, model.method.config(), model.method.classes, options.seed, steps]
    return hashlib.sha256(json.dumps([*facts, __version__]).encode()).hexdigest()


def _digest_of_labels(labels: Truth | None) -> str | None:
    if not isinstance(labels, Marks):
        return None
    columns = np.stack([labels.rows, labels.cols, labels.numbers.astype(np.int64)])
    return hashlib.sha256(columns.tobytes()).hexdigest()


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else str(path)
