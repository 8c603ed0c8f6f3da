"""How well the clusters fit the classes: SSCC and k-means with their defaults, the whole way.

    python -m benchmarks.clustering
    python -m benchmarks.clustering --scene city.bsq --truth classes.shp --field level_2 --classes 6

Each run trains a model, labels the whole scene with it and scores the map on the labelled pixels:
the last step, nothing chosen with the truth. "labelled" learns from labelled pixels only, as the
papers do; "all" learns from every pixel, as users do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from benchmarks.make_scene import SOURCE
from benchmarks.results import Section, add_record_option, report, table, use_cores
from hsiclust.process import prepare_process

if TYPE_CHECKING:
    from hsiclust.recipe import TrainOptions
    from hsiclust.scores import Scores


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What is run.
        labelled: Whether only labelled pixels are learned from.
        options: Everything else.
    """

    name: str
    labelled: bool
    options: TrainOptions


@dataclass(frozen=True)
class Subject:
    """A scene with its truth.

    Attributes:
        scene: The raster.
        truth: Raster or vectors.
        field: Vectors: where the class stands.
    """

    scene: Path
    truth: Path
    field: str | None


@dataclass(frozen=True)
class Run:
    """One training, its map and its scores.

    Attributes:
        seed: Of the training.
        scores: Of the map.
        training: Seconds.
        labelling: Seconds.
        in_use: Clusters in use.
        processors: That the whole run had, on average.
    """

    seed: int
    scores: Scores
    training: float
    labelling: float
    in_use: int
    processors: float


def cases(classes: int) -> list[Case]:
    """The runs that are compared."""
    from hsiclust.recipe import TrainOptions

    sscc = TrainOptions(method="sscc", classes=classes)
    kmeans = TrainOptions(method="kmeans", classes=classes)
    plain = replace(kmeans, smoothing=0.0)
    return [
        Case("SSCC, defaults", True, sscc),
        Case("SSCC, defaults", False, sscc),
        Case("k-means, defaults (MNF 20, smoothing 2)", True, kmeans),
        Case("k-means, defaults (MNF 20, smoothing 2)", False, kmeans),
        Case("k-means, MNF 20, no smoothing", False, plain),
        Case("k-means, PCA 8, no smoothing", False, replace(plain, kind="pca", components=8)),
    ]


def run(case: Case, subject: Subject, seed: int, folder: Path) -> Run:
    """Train, label, score."""
    from hsiclust.api import PredictOptions, evaluate, predict, train

    start, used = perf_counter(), process_time()
    mask = subject.truth if case.labelled else None
    options = replace(case.options, mask=mask, seed=seed, overwrite=True)
    model, output = folder / "model.safetensors", folder / "map.tif"
    training = train([str(subject.scene)], model, options)
    prediction = predict(str(subject.scene), model, output, PredictOptions(overwrite=True))
    scores = evaluate(output, subject.truth, field=subject.field).scores
    had = (process_time() - used) / (perf_counter() - start)
    return Run(seed, scores, training.seconds, prediction.seconds, training.in_use, had)


def tell(case: Case, run: Run) -> None:
    """A line for those who wait; `processors` below --cores tells of a disturbed run."""
    print(
        f"{case.name}, seed {run.seed}: ACC {run.scores.accuracy:.4f}, "
        f"{run.training:.1f} s on {run.processors:.2f} processors",
        file=sys.stderr,
    )


def line(case: Case, runs: Sequence[Run]) -> list[str]:
    """A row of the table."""

    def each(values: Sequence[float]) -> str:
        several = " / ".join(f"{value:.3f}" for value in values)
        return f"**{sum(values) / len(values):.3f}** ({several})"

    return [
        case.name,
        "labelled" if case.labelled else "all",
        each([run.scores.accuracy for run in runs]),
        each([run.scores.nmi for run in runs]),
        each([run.scores.ari for run in runs]),
        each([run.scores.kappa for run in runs]),
        " / ".join(str(run.in_use) for run in runs),
        " / ".join(f"{run.training:.1f}" for run in runs),
        " / ".join(f"{run.labelling:.1f}" for run in runs),
    ]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    truth = SOURCE.with_name(f"{SOURCE.stem}_truth.tif")
    parser.add_argument("--scene", type=Path, default=SOURCE, help="the carried Indian Pines")
    parser.add_argument("--truth", type=Path, default=truth, help="raster or vectors")
    parser.add_argument("--field", help="vectors: field of the class")
    parser.add_argument("--classes", type=int, default=16, help="number of clusters, 16")
    parser.add_argument("--title", default="Indian Pines (carried)", help="name of the scene")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cores", type=int, default=2, help="processors to use, 2")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run every case with every seed and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    prepare_process()
    subject = Subject(arguments.scene, arguments.truth, arguments.field)
    rows, pixels = [], 0
    with tempfile.TemporaryDirectory() as name:
        for case in cases(arguments.classes):
            runs = []
            for seed in arguments.seeds:
                runs.append(run(case, subject, seed, Path(name)))
                pixels = runs[-1].scores.pixels
                tell(case, runs[-1])
            rows.append(line(case, runs))
    header = (
        *("run", "learns from", "ACC", "NMI", "ARI", "kappa", "clusters in use"),
        *("training, s", "labelling, s"),
    )
    seeds = ", ".join(map(str, arguments.seeds))
    body = (
        f"{arguments.title}, {arguments.classes} clusters, scored on {pixels} labelled pixels "
        f"after the last step. Mean and each of the seeds {seeds}.\n\n{table(header, rows)}"
    )
    key = f"clustering {arguments.scene.stem}"
    report(Section(key, f"Clustering: {arguments.title}", body), arguments.record)


if __name__ == "__main__":
    main()
