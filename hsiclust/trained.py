"""What a training says while it runs, and what it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsiclust.heldout import HeldOutScore
from hsiclust.stages import Stage


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
