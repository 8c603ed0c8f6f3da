"""What a training is asked for: options, which method each belongs to, its defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hsiclust.engine import EngineOptions
from hsiclust.errors import UsageError
from hsiclust.grid import Bounds
from hsiclust.models.base import LARGEST_CLASSES, Method
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.kmeans import LARGEST_SMOOTHING
from hsiclust.models.settings import SsccConfig
from hsiclust.sample import TransformOptions
from hsiclust.spectra import Kind

SplitKind = Literal["separated", "random", "none"]

CLUSTERING = ("sscc", "kmeans")
SUPERVISED = ("contrastdm", "svm", "forest")
# What only some methods have.
_OF_METHODS: Mapping[str, tuple[str, ...]] = {
    "recipe": ("sscc",),
    "teacher": ("sscc",),
    "contrast": ("sscc",),
    "smoothing": ("kmeans",),
    "classes": CLUSTERING,
    "steps": CLUSTERING,
    "epochs": CLUSTERING,
    "match_to": CLUSTERING,
    "labels": SUPERVISED,
    "diffusion": ("contrastdm",),
    "pretraining": ("contrastdm",),
    "synthetic": ("contrastdm",),
    "contrastdm": ("contrastdm",),
}
# Components that each method learns from, unless the user asks for another number.
_COMPONENTS = {"kmeans": 20, "default": 30, "contrast": 12, "paper": 8, "supervised": 24}
# Most pixels that each method learns from: SSCC's teacher looks at every one of them, closely.
_BUDGETS = {"kmeans": 2**22}
_BUDGET = 2**18


@dataclass(frozen=True)
class TrainOptions:
    """How a model is fitted.

    Attributes:
        method: "sscc" (when None and there are no labels) or "kmeans"; "contrastdm" (when None
            and there are labels), "svm" or "forest".
        classes: Number of clusters K; 16 when None.
        labels: Raster or vectors of labelled pixels. ContrastDM without them only pre-trains.
        field: Of vectors: where the class stands.
        layer: Of vectors: which layer.
        split: How labels are parted into those that are learned from and those held out for the
            score: "separated" (when None) in space, "random", or "none": nothing is held out.
        per_class: Labels of each class that are learned from; all on that side when None.
        diffusion: Of ContrastDM: whether its diffusion model takes part; as its settings say when
            None.
        pretraining: Of ContrastDM: whether it pre-trains on unlabelled pixels; it does when None.
        synthetic: Of ContrastDM: synthetic features a class; its own number when None.
        contrastdm: Of ContrastDM: all its settings, which those above then change.
        recipe: Of SSCC: "default" (when None), or "paper": objective, encoder and schedule as
            published, patch by patch.
        teacher: Of SSCC: whether a consensus teacher takes part; it does when None.
        contrast: Of SSCC: whether the twin contrast takes part; it does when None.
        smoothing: Of k-means: deviation of the Gaussian in pixels; its default when None.
        steps: Training steps; the method's own number when None.
        epochs: Passes over the pixels instead.
        kind: Spectral transform; "mnf", or "pca" for the paper's recipe, when None.
        components: Components to keep; the method's own number when None.
        bands: Bands to use, such as "1,3..50", counted from 1.
        mask: Raster or vector file; only pixels > 0 or inside are learned from.
        bounds: West, south, east, north; only this part is learned from.
        nodata: Overrides the scenes' nodata value.
        init: Model to go on from.
        match_to: Map whose class numbers the clusters are to take over.
        budget: Most pixels that are learned from; the method's own number when None.
        seed: Of everything random.
        device: Where the network learns.
        overwrite: Replace an existing model.
        engine: Where tiles are staged.
    """

    method: str | None = None
    classes: int | None = None
    recipe: str | None = None
    teacher: bool | None = None
    contrast: bool | None = None
    smoothing: float | None = None
    steps: int | None = None
    epochs: float | None = None
    kind: Kind | None = None
    components: int | None = None
    bands: str | None = None
    labels: str | Path | None = None
    field: str | None = None
    layer: str | None = None
    split: SplitKind | None = None
    per_class: int | None = None
    diffusion: bool | None = None
    pretraining: bool | None = None
    synthetic: int | None = None
    contrastdm: ContrastDmConfig | None = None
    mask: str | Path | None = None
    bounds: Bounds | None = None
    nodata: float | None = None
    init: str | Path | None = None
    match_to: str | Path | None = None
    budget: int | None = None
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    engine: EngineOptions = EngineOptions()

    def __post_init__(self) -> None:
        if self.method not in (None, *CLUSTERING, *SUPERVISED):
            known = ", ".join((*CLUSTERING, *SUPERVISED))
            raise UsageError(f"method {self.method!r} is unknown; there are: {known}")
        if self.recipe not in (None, "default", "paper"):
            raise UsageError(f"recipe {self.recipe!r} is unknown: default or paper")
        if self.classes is not None and not 2 <= self.classes <= LARGEST_CLASSES:
            raise UsageError(f"{self.classes} classes: 2 to {LARGEST_CLASSES} can be told apart")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("give steps or epochs, not both")
        counts = (self.steps, self.budget, self.per_class)
        if min(1 if value is None else value for value in counts) < 1:
            raise UsageError("steps, budget and per_class must be positive")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise UsageError(f"{self.epochs} epochs: give a positive number")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed {self.seed} is not within 0..{2**32 - 1}")
        if self.smoothing is not None and not 0 <= self.smoothing <= LARGEST_SMOOTHING:
            raise UsageError(
                f"smoothing of {self.smoothing} pixels is not within 0..{LARGEST_SMOOTHING:g}"
            )
        self._check_labels()
        if self.init is None:
            self.check_method(self.chosen_method)

    @property
    def chosen_method(self) -> str:
        """The method that was asked for, or the one that fits what there is to learn from."""
        return self.method or ("sscc" if self.labels is None else "contrastdm")

    def _check_labels(self) -> None:
        """Refuse what says how to use labels where there are none."""
        of_labels = ("field", "layer", "split", "per_class")
        given = [name for name in of_labels if getattr(self, name) is not None]
        if self.labels is None and given:
            raise UsageError(f"--{_spelled(given[0])} says how to use --labels; name those too")
        if self.split not in (None, "separated", "random", "none"):
            raise UsageError(f"split {self.split!r} is unknown: separated, random or none")
        if self.synthetic is not None and self.synthetic < 0:
            raise UsageError(f"{self.synthetic} synthetic features a class: give 0 or more")
        if self.synthetic and self.diffusion is not True and self.contrastdm is None:
            raise UsageError("--synthetic says how many features --diffusion makes; give that too")

    def check_method(self, method: str) -> None:
        """Refuse what belongs to another method, or leaves nothing to learn.

        Raises:
            UsageError: There is such an option.
        """
        for name, methods in _OF_METHODS.items():
            if getattr(self, name) is not None and method not in methods:
                raise UsageError(
                    f"--{_spelled(name)} belongs to {', '.join(methods)}; {method} has none"
                )
        if method in ("svm", "forest") and self.labels is None:
            raise UsageError(f"{method} learns from labels; name them with --labels")
        if self.teacher is False and self.contrast is False:
            raise UsageError("without teacher and without contrast nothing can be learned")
        if self.recipe == "paper" and (self.teacher, self.contrast) != (None, None):
            raise UsageError("the paper's recipe has no teacher and is all contrast")
        if self.pretraining is False and self.labels is None:
            raise UsageError("without labels and without pre-training nothing can be learned")

    @property
    def transform(self) -> TransformOptions:
        """The spectral transform that the method wants, with what the user asked for."""
        paper = self.recipe == "paper"
        recipe = "paper" if paper else "contrast" if self.teacher is False else "default"
        if self.chosen_method != "sscc":
            recipe = "kmeans" if self.chosen_method == "kmeans" else "supervised"
        return TransformOptions(
            kind=self.kind or ("pca" if paper else "mnf"),
            components=self.components,
            most_components=_COMPONENTS[recipe],
            bands=self.bands,
            whiten=paper,
        )

    @property
    def settings(self) -> SsccConfig:
        """SSCC as it was asked for."""
        if self.recipe == "paper":
            return SsccConfig.paper()
        if self.teacher is False:
            return SsccConfig.contrast_only()
        if self.contrast is False:
            return SsccConfig(instance_weight=0.0, cluster_weight=0.0)
        return SsccConfig()

    @property
    def contrastdm_settings(self) -> ContrastDmConfig:
        """ContrastDM as it was asked for."""
        settings = self.contrastdm or ContrastDmConfig()
        if self.pretraining is False:
            settings = replace(settings, pretraining_steps=0)
        if self.diffusion is not None:
            settings = settings.with_diffusion() if self.diffusion else settings.without_diffusion()
        if self.synthetic is not None:
            settings = replace(settings, synthetic=self.synthetic)
        return replace(settings, labelled=self.labels is not None)

    def most_pixels(self, method: Method) -> int:
        """Most pixels that a method is to learn from."""
        return self.budget or _BUDGETS.get(method.name, _BUDGET)


def _spelled(option: str) -> str:
    """An option as the command line has it."""
    return {"bands": "bidx", "kind": "transform"}.get(option, option.replace("_", "-"))
