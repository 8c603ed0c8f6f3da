"""Lines of the few-label table: what is trained, on which draw of labels, and how it scores."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from benchmarks.fewlabel_rivals import RIVALS, Rival
from benchmarks.rivals import read_bands
from benchmarks.subject import Subject, Watch
from hsiclust.accuracy import Accuracy, classification
from hsiclust.contingency import tabulated

Labels = NDArray[np.uint8]
SplitKind = Literal["separated", "random"]
DEFAULT: Final = "ContrastDM, defaults"
# Options that pre-training depends on.
_OF_PRETRAINING = ("method",)


@dataclass(frozen=True)
class Cell:
    """A draw of labels.

    Attributes:
        split: How what is learned from and what is held out lie to each other.
        per_class: Pixels of a class that are learned from.
        seed: Of the draw, and of everything random in the training.
    """

    split: SplitKind
    per_class: int
    seed: int

    def __str__(self) -> str:
        return f"{self.split}, {self.per_class} a class, draw {self.seed}"


@dataclass(frozen=True)
class Line:
    """One line of the table: hsiclust with these options, or a rival.

    Attributes:
        name: What is trained.
        options: Fields of `TrainOptions`; nothing for a rival.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def pretraining(self) -> Mapping[str, Any] | None:
        """Options of the pre-training, which knows no labels; None where there is none."""
        if self.options.get("method") != "contrastdm" or self.options.get("pretraining") is False:
            return None
        return {name: self.options[name] for name in _OF_PRETRAINING if name in self.options}


@dataclass(frozen=True)
class Pretrained:
    """A model that has seen no labels.

    Attributes:
        model: Its file.
        seconds: That it took.
    """

    model: Path
    seconds: float


@dataclass(frozen=True)
class Found:
    """What a line scored on the pixels that a draw holds out.

    Attributes:
        accuracy: Share of pixels.
        average_accuracy: Mean over the classes.
        kappa: Cohen's.
        seconds: Of the training, pre-training included.
        error_before: Expected calibration error without a temperature, and
        error_after: with it; None where there are no probabilities.
        learned: Pixels that were learned from.
        scored: Pixels that were scored.
        smallest: Scored pixels of the class that has fewest: each weighs most in the average.
        unscored: Classes that are learned from and not scored.
        division: Digest of which pixels are learned from and which are scored.
    """

    accuracy: float
    average_accuracy: float
    kappa: float
    seconds: float
    error_before: float | None
    error_after: float | None
    learned: int
    scored: int
    smallest: int
    unscored: int
    division: str


@dataclass(frozen=True, eq=False)
class Division:
    """Labels divided.

    Attributes:
        training: `(row, col)`, classes of the pixels that are learned from, 0 elsewhere.
        held_out: `(row, col)`, those of the pixels that are scored.
    """

    training: Labels
    held_out: Labels

    @classmethod
    def of_files(cls, files: Sequence[Path]) -> Division:
        """The one that `train` wrote."""
        layers = []
        for file in files:
            with rasterio.open(file) as dataset:
                layers.append(dataset.read(1))
        return cls(*layers)

    def found(self, score: Accuracy, seconds: float, errors: Sequence[float] = ()) -> Found:
        """A score on its pixels with what belongs to it."""
        if score.pixels != np.count_nonzero(self.held_out):
            raise ValueError(f"{score.pixels} of {np.count_nonzero(self.held_out)} pixels scored")
        before, after = errors or (None, None)
        learned = set(np.unique(self.training).tolist())
        scored = np.bincount(self.held_out[self.held_out > 0])
        return Found(
            accuracy=score.accuracy,
            average_accuracy=score.average_accuracy,
            kappa=score.kappa,
            seconds=seconds,
            error_before=before,
            error_after=after,
            learned=int(np.count_nonzero(self.training)),
            scored=score.pixels,
            smallest=int(scored[scored > 0].min()),
            unscored=len(learned - set(np.flatnonzero(scored).tolist()) - {0}),
            division=self._digest(),
        )

    def _digest(self) -> str:
        both = np.stack([self.training, self.held_out]).tobytes()
        return hashlib.sha256(both).hexdigest()[:16]


def lines() -> list[Line]:
    """Rivals, the methods, and ContrastDM without its parts."""
    from hsiclust.models.contrastdm_settings import ContrastDmConfig

    whole = {"method": "contrastdm"}
    plain = ContrastDmConfig().without_diffusion()
    paper = plain.with_diffusion()

    def with_settings(name: str, settings: ContrastDmConfig) -> Line:
        return Line(name, {**whole, "contrastdm": settings})

    return [
        *(Line(rival.name) for rival in RIVALS),
        Line("scale space, SVM (svm)", {"method": "svm"}),
        Line("scale space, forest (forest)", {"method": "forest"}),
        Line(DEFAULT, whole),
        Line("ContrastDM without pre-training", {**whole, "pretraining": False}),
        with_settings("ContrastDM, three networks", replace(plain, nets=3)),
        with_settings("ContrastDM with diffusion: refined and synthetic codes", paper),
        with_settings("ContrastDM, refined codes alone", replace(paper, synthetic=0)),
        with_settings("ContrastDM, 50 synthetic codes a class", replace(paper, refined=False)),
        with_settings(
            "ContrastDM, 50 codes a class from Gaussians",
            replace(plain, synthetic=50, synthesis="gaussians"),
        ),
    ]


def measure(subject: Subject, line: Line, cell: Cell, pretrained: Pretrained | None) -> Found:
    """Train a line on a draw and score it."""
    for rival in RIVALS:
        if rival.name == line.name:
            return _theirs(subject, rival, cell)
    return _ours(subject, line, cell, pretrained)


def pretrain(subject: Subject, options: Mapping[str, Any], seed: int, model: Path) -> Pretrained:
    """Train a model without labels."""
    from hsiclust.api import TrainOptions, train

    done = train([str(subject.scene)], model, TrainOptions(**options, seed=seed))
    return Pretrained(model, done.seconds)


def _ours(subject: Subject, line: Line, cell: Cell, pretrained: Pretrained | None) -> Found:
    from hsiclust.api import TrainOptions, train

    options = TrainOptions(
        **line.options,
        labels=subject.truth,
        field=subject.field,
        split=cell.split,
        per_class=cell.per_class,
        seed=cell.seed,
        init=None if pretrained is None else pretrained.model,
    )
    with tempfile.TemporaryDirectory() as folder:
        done = train([str(subject.scene)], Path(folder) / "model.safetensors", options)
        if done.held_out is None:
            raise ValueError(f"{line.name}: nothing was scored")
        division = Division.of_files(done.split)
    seconds = done.seconds + (0.0 if pretrained is None else pretrained.seconds)
    errors = (done.held_out.error_before, done.held_out.error_after)
    return division.found(done.held_out.accuracy, seconds, errors)


def _theirs(subject: Subject, rival: Rival, cell: Cell) -> Found:
    division, names = _divide(subject, cell)
    cube, valid = read_bands(subject.scene)
    watch = Watch()
    features = rival.describe(cube, valid, cell.seed)
    learned, scored = division.training > 0, division.held_out > 0
    fitted = rival.fit(features[:, learned].T, division.training[learned].astype(np.int64))
    seconds = watch.seconds
    predicted = fitted.predict(features[:, scored].T)
    table = tabulated([(division.held_out[scored], predicted)])
    pairs = {number: number for number in table.classes}
    return division.found(classification(table, pairs, names, names), seconds)


def _divide(subject: Subject, cell: Cell) -> tuple[Division, Mapping[int, str]]:
    """The draw as `train` makes it, and the names of its classes."""
    from hsiclust.api import TrainOptions
    from hsiclust.labelled import divide_labels, number_labels
    from hsiclust.recipe import initial_model

    sources = [str(subject.scene)]
    options = TrainOptions(
        method="svm",  # any will do that sees as far
        labels=subject.truth,
        field=subject.field,
        split=cell.split,
        per_class=cell.per_class,
        seed=cell.seed,
    )
    numbering = number_labels(sources, options)
    if numbering is None:
        raise ValueError(f"{subject.truth}: no labels")
    model = initial_model(sources, options, numbering)
    labelled = divide_labels(sources, numbering, model, options)
    area, split = labelled.sites[0].area, labelled.split
    if split.held_out is None:
        raise ValueError(f"{cell}: nothing is held out")
    layers = (split.training[0].read(area), split.held_out[0].read(area))
    return Division(*(layer.astype(np.uint8) for layer in layers)), numbering.names
