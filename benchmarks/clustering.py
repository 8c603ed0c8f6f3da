"""How well the clusters fit the classes: SSCC, its parts, k-means and what other packages offer.

    python -m benchmarks.clustering
    python -m benchmarks.clustering --scene city.bsq --truth classes.shp --field level_2 --classes 6
    python -m benchmarks.clustering --only "SSCC, defaults" GaussianMixture --seeds 0 --no-record
    python -m benchmarks.clustering --only paper --paper --paper-epochs 8

Each run learns, labels the whole scene and scores the map on the labelled pixels: after the last
step, nothing chosen with the truth. "labelled pixels" learns from those only, as the papers do;
"all pixels" learns from every one, as users do. "left half" learns from a file of the left half of
the columns and is scored on a file of the right half, of which it has seen nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rasterio.errors import NotGeoreferencedWarning

from benchmarks.results import (
    Section,
    add_record_option,
    mean_and_deviation,
    report,
    table,
    use_cores,
)
from benchmarks.rivals import RIVALS, Rival, read
from benchmarks.subject import (
    LabelMap,
    Subject,
    Watch,
    add_subject_options,
    add_training_options,
    label,
    learn,
    teach,
)
from hsiclust.process import prepare_process

if TYPE_CHECKING:
    from hsiclust.scores import Scores
    from hsiclust.trainoptions import TrainOptions

Learns = Literal["all pixels", "labelled pixels", "left half"]
Work = Callable[[Subject, Subject, int, Path], LabelMap]
"""Learns from one subject, labels another; with a seed, in a folder."""


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What is run.
        learns: What it learns from.
        work: Does it.
        once: Whether it runs with the first seed only.
    """

    name: str
    learns: Learns
    work: Work
    once: bool = False

    def matches(self, parts: Sequence[str]) -> bool:
        """Whether one of these stands in the line's first two cells, in whatever case."""
        text = f"{self.name}, {self.learns}".casefold()
        return not parts or any(part.casefold() in text for part in parts)


@dataclass(frozen=True)
class Run:
    """One map and its scores."""

    map: LabelMap
    scores: Scores


def ours(name: str, learns: Learns, options: TrainOptions, once: bool = False) -> Case:
    """A line of hsiclust itself."""

    def work(source: Subject, target: Subject, seed: int, folder: Path) -> LabelMap:
        watch, model = Watch(), folder / "model.safetensors"
        mask = source.truth if learns == "labelled pixels" else None
        chosen = replace(options, mask=mask, seed=seed, overwrite=True)
        training = learn(source, model, chosen)
        labels, labelling = label(target, model, folder)
        return LabelMap(labels, training, labelling, watch.processors)

    return Case(name, learns, work, once)


def undistilled(learns: Learns, options: TrainOptions) -> Case:
    """SSCC's teacher labels the scene itself: shows what distilling it earns or costs."""

    def work(source: Subject, target: Subject, seed: int, folder: Path) -> LabelMap:
        watch, model = Watch(), folder / "model.safetensors"
        training = learn(source, model, replace(options, seed=seed, steps=1, overwrite=True))
        labels, labelling = teach(target, model)
        return LabelMap(labels, training, labelling, watch.processors)

    return Case("SSCC's teacher alone, not distilled", learns, work)


def theirs(rival: Rival, classes: int) -> Case:
    """A line of another package; it labels what it learns from."""

    def work(source: Subject, target: Subject, seed: int, folder: Path) -> LabelMap:
        del target, folder
        watch = Watch()
        cube, valid = read(rival.sees, source.scene, seed)
        labels = rival.cluster(cube, valid, classes, seed)
        return LabelMap(labels, watch.seconds, None, watch.processors)

    return Case(rival.name, "all pixels", work)


def _all_seen() -> type[TrainOptions]:
    """Options with which the network sees all components, as the command line has none."""
    from hsiclust.models.settings import SsccConfig
    from hsiclust.trainoptions import TrainOptions

    class AllSeen(TrainOptions):
        @property
        def settings(self) -> SsccConfig:
            return replace(super().settings, seen=4096)

    return AllSeen


def cases(classes: int, paper_epochs: float | None) -> list[Case]:
    """The lines of the table."""
    from hsiclust.trainoptions import TrainOptions

    sscc = TrainOptions(method="sscc", classes=classes)
    kmeans = TrainOptions(method="kmeans", classes=classes)
    pca = replace(kmeans, kind="pca", components=8, smoothing=0.0)
    seeing_all = _all_seen()(method="sscc", classes=classes)
    lines = [
        ours("SSCC, defaults", "all pixels", sscc),
        ours("SSCC, defaults", "labelled pixels", sscc),
        ours("SSCC without contrast", "all pixels", replace(sscc, contrast=False)),
        ours("SSCC, the network sees all components", "all pixels", seeing_all),
        undistilled("all pixels", sscc),
        ours("SSCC without teacher", "all pixels", replace(sscc, teacher=False)),
        ours("SSCC, PCA in place of MNF", "all pixels", replace(sscc, kind="pca")),
        ours("k-means, defaults (MNF 20, smoothing 2)", "all pixels", kmeans),
        ours("k-means, PCA 8, no smoothing", "all pixels", pca),
        *(theirs(rival, classes) for rival in RIVALS),
        ours("SSCC, defaults", "left half", sscc),
        ours("SSCC, the network sees all components", "left half", seeing_all),
        undistilled("left half", sscc),
        ours("k-means, defaults (MNF 20, smoothing 2)", "left half", kmeans),
        ours("k-means, PCA 8, no smoothing", "left half", pca),
    ]
    if paper_epochs is not None:
        paper = TrainOptions(method="sscc", classes=classes, recipe="paper", epochs=paper_epochs)
        name = f"SSCC, the paper's recipe, {paper_epochs:g} epochs"
        everywhere: tuple[Learns, ...] = ("labelled pixels", "all pixels", "left half")
        lines += [ours(name, learns, paper, once=True) for learns in everywhere]
    return lines


def run(case: Case, subjects: dict[str, tuple[Subject, Subject]], seed: int, folder: Path) -> Run:
    """Learn, label, score."""
    source, target = subjects["halves" if case.learns == "left half" else "whole"]
    made = case.work(source, target, seed, folder)
    found = Run(made, target.score(made.labels))
    print(
        f"{case.name}, {case.learns}, seed {seed}: ACC {found.scores.accuracy:.4f}, NMI "
        f"{found.scores.nmi:.4f}, {made.training:.1f} s on {made.processors:.2f} processors",
        file=sys.stderr,
    )
    return found


def line(case: Case, runs: Sequence[Run]) -> list[str]:
    """A row of the table."""
    scores = [found.scores for found in runs]
    maps = [found.map for found in runs]
    labelling = [made.labelling for made in maps if made.labelling is not None]
    return [
        case.name,
        case.learns,
        mean_and_deviation([each.accuracy for each in scores]),
        mean_and_deviation([each.nmi for each in scores]),
        mean_and_deviation([each.ari for each in scores]),
        mean_and_deviation([each.kappa for each in scores]),
        mean_and_deviation([made.in_use for made in maps], 1),
        mean_and_deviation([made.training for made in maps], 1),
        mean_and_deviation(labelling, 2),
        str(scores[0].pixels),
        str(len(runs)),
    ]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_subject_options(parser)
    add_training_options(parser, seeds=(0, 1, 2, 3, 4))
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="lines in whose name or source one of these stands; recorded as a section of its own",
    )
    parser.add_argument(
        "--paper", action="store_true", help="also the paper's recipe: some minutes an epoch"
    )
    parser.add_argument("--paper-epochs", type=float, default=8.0, help="of 200, 8")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run every case with every seed and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    prepare_process()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Indian Pines has no place
    epochs = arguments.paper_epochs if arguments.paper else None
    chosen = [case for case in cases(arguments.classes, epochs) if case.matches(arguments.only)]
    if not chosen:
        sys.exit(f"no line holds any of: {', '.join(arguments.only)}")
    whole = Subject.of(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subjects = {"whole": (whole, whole), "halves": whole.halves(folder)}
        for case in chosen:
            seeds = arguments.seeds[:1] if case.once else arguments.seeds
            rows.append(line(case, [run(case, subjects, seed, folder) for seed in seeds]))
    report(_section(arguments, rows), arguments.record)


def _section(arguments: argparse.Namespace, rows: Sequence[Sequence[str]]) -> Section:
    header = (
        *("run", "learns from", "ACC", "NMI", "ARI", "kappa", "clusters in use"),
        *("training, s", "labelling, s", "scored on", "seeds"),
    )
    body = (
        f"{arguments.title}, {arguments.classes} clusters, scored on labelled pixels after the "
        f"last step. Mean ± standard deviation over the seeds "
        f"{', '.join(map(str, arguments.seeds))}; a cluster is in use from 0.1 % of the map on. "
        "Where learning gives the labels there is no labelling. Lines that learn from the left "
        "half are scored on the right half, which they have not seen: compare them with each "
        f"other only.\n\n{table(header, rows)}"
    )
    key, title = f"clustering {arguments.scene.stem}", f"Clustering: {arguments.title}"
    if arguments.only:
        only = ", ".join(arguments.only)
        return Section(f"{key}, only {only}", f"{title}, only {only}", body)
    return Section(key, title, body)


if __name__ == "__main__":
    main()
