"""What going on with new pixels does to those that were learned before.

    python -m benchmarks.online
    python -m benchmarks.online --seeds 0 --steps 50 --no-record

A default SSCC model learns from a file of the left half of the columns, and both halves are
labelled and scored. Then it goes on (`train --init`) with a file of the right half alone, and both
are labelled and scored again: the right half should gain, the left one keep its scores and its
class numbers. The truth serves for the scores only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from benchmarks.results import (
    Section,
    add_record_option,
    mean_and_deviation,
    report,
    table,
    use_cores,
)
from benchmarks.subject import (
    Labels,
    Subject,
    add_steps_option,
    add_subject_options,
    add_training_options,
    label,
    learn,
)
from hsiclust.process import prepare_process
from hsiclust.scores import Scores

_SIDES = ("left", "right")


@dataclass(frozen=True)
class State:
    """A model at one time.

    Attributes:
        labels: Of each half.
        scores: Of each half.
        training: Seconds that led here.
    """

    labels: tuple[Labels, Labels]
    scores: tuple[Scores, Scores]
    training: float


def state(halves: Sequence[Subject], model: Path, training: float, folder: Path) -> State:
    """Label and score both halves."""
    left, right = (label(half, model, folder)[0] for half in halves)
    return State((left, right), (halves[0].score(left), halves[1].score(right)), training)


def run(
    halves: tuple[Subject, Subject], classes: int, seed: int, steps: int | None, folder: Path
) -> tuple[State, State]:
    """Learn from the left half, then go on with the right one; both states."""
    from hsiclust.trainoptions import TrainOptions

    first, second = folder / "first.safetensors", folder / "second.safetensors"
    fresh = TrainOptions(classes=classes, seed=seed, steps=steps, overwrite=True)
    before = state(halves, first, learn(halves[0], first, fresh), folder)
    onward = TrainOptions(init=first, seed=seed, steps=steps, overwrite=True)
    after = state(halves, second, learn(halves[1], second, onward), folder)
    for side in (0, 1):
        print(
            f"{_SIDES[side]} half, seed {seed}: ACC {before.scores[side].accuracy:.4f} before, "
            f"{after.scores[side].accuracy:.4f} after",
            file=sys.stderr,
        )
    return before, after


def kept(before: State, after: State, side: int) -> float:
    """Part of a half's pixels that keep their class number, in per cent."""
    return 100 * float(np.mean(before.labels[side] == after.labels[side]))


def lines(found: Sequence[tuple[State, State]]) -> list[list[str]]:
    """The rows of the table."""
    rows = []
    for side, name in enumerate(_SIDES):
        for time, learned in enumerate(("left half", "left half, then right half")):
            states = [pair[time] for pair in found]
            scores = [each.scores[side] for each in states]
            same = [kept(*pair, side) for pair in found] if time else []
            rows.append(
                [
                    name,
                    learned,
                    mean_and_deviation([each.accuracy for each in scores]),
                    mean_and_deviation([each.nmi for each in scores]),
                    mean_and_deviation([each.ari for each in scores]),
                    mean_and_deviation([each.kappa for each in scores]),
                    mean_and_deviation(same, 1),
                    mean_and_deviation([each.training for each in states], 1),
                    str(scores[0].pixels),
                ]
            )
    return rows


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_subject_options(parser)
    add_training_options(parser, seeds=(0, 1, 2, 3, 4))
    add_steps_option(parser)
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run every seed and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    prepare_process()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Indian Pines has no place
    subject = Subject.of(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        halves = subject.halves(folder)
        found = [
            run(halves, arguments.classes, seed, arguments.steps, folder)
            for seed in arguments.seeds
        ]
    header = (
        *("scored on", "learned from", "ACC", "NMI", "ARI", "kappa"),
        *("labels kept, %", "training, s", "labelled pixels"),
    )
    body = (
        f"{arguments.title}, {arguments.classes} clusters, default SSCC: first from the left half "
        "of the columns, then on with the right half alone (`--init`). Mean ± standard deviation "
        f"over the seeds {', '.join(map(str, arguments.seeds))}. Labels kept: pixels of the half "
        f"whose class number the second training leaves as it was.\n\n{table(header, lines(found))}"
    )
    key = f"online {arguments.scene.stem}"
    report(Section(key, f"Going on with new pixels: {arguments.title}", body), arguments.record)


if __name__ == "__main__":
    main()
