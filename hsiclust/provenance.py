"""Where a model comes from: what its file keeps of its training, for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from hsiclust import __version__
from hsiclust.heldout import HeldOutScore
from hsiclust.labelled import Labelled
from hsiclust.modelfile import FittedModel, file_digest
from hsiclust.ordering import Counts
from hsiclust.trained import Step
from hsiclust.trainoptions import TrainOptions


def provenance_of(
    sources: Sequence[str],
    options: TrainOptions,
    model: FittedModel,
    pixels: int,
    last: Step,
    counts: Counts,
) -> dict[str, object]:
    """Of every method.

    Args:
        sources: Scenes and tile stores.
        options: What was asked for.
        model: What it started from.
        pixels: Pixels learned from.
        last: The last step.
        counts: `(K,)`, pixels of each class.
    """
    before = model.provenance.get("scenes", []) if options.init is not None else []
    earlier = [str(name) for name in before] if isinstance(before, list) else []
    return {
        "version": __version__,
        "torch": torch.__version__,
        "seed": options.seed,
        "scenes": [*earlier, *(Path(source).name for source in sources)],
        "mask": None if options.mask is None else Path(options.mask).name,
        "init": None if options.init is None else file_digest(Path(options.init)),
        "pixels": pixels,
        "steps": last.steps,
        "loss": last.loss if math.isfinite(last.loss) else None,
        "cluster_pixels": [int(count) for count in counts],
    }


def provenance_of_labels(
    labelled: Labelled, options: TrainOptions, held_out: HeldOutScore | None
) -> dict[str, object]:
    """Of the labels that a model learned from, and its score on the others."""
    counts = labelled.split.counts
    labels = {
        "file": None if options.labels is None else Path(options.labels).name,
        "field": options.field,
        "split": options.split or "separated",
        "per_class": options.per_class,
        "numbers": list(labelled.numbering.numbers),
        "training": counts.training.tolist(),
        "held_out": counts.held_out.tolist(),
        "notes": list(labelled.split.notes),
    }
    return {"labels": labels, "held_out": None if held_out is None else held_out.summary()}
