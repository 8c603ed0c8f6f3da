"""The maps of a run: drafted while its strips are labelled, published at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsiclust import __version__
from hsiclust.errors import GO_ON, HsiclustError
from hsiclust.grid import Window
from hsiclust.labelmap import MapDraft, confidence_draft, label_draft
from hsiclust.labels import LabelStore
from hsiclust.legend import LABELS_TAG, MODEL_TAG, SCENE_TAG
from hsiclust.mapformat import MapFormat, driver_for
from hsiclust.modelfile import METHODS
from hsiclust.prediction_plan import PredictPlan, confidence_path
from hsiclust.predictoptions import PredictOptions


@dataclass(frozen=True)
class Drafts:
    """The maps of a run, in the making.

    Attributes:
        maps: The label map last.
        confidence: File of the confidence map, if there is to be one.
    """

    maps: Sequence[MapDraft]
    confidence: Path | None

    def advance(self, rows: int) -> None:
        """Go on with what the label store holds: so many rows of the area without a gap."""
        for draft in self.maps:
            with _what_goes_on():
                draft.advance(rows)

    def publish(self) -> None:
        """Give the maps their names, when the store holds the whole area."""
        for draft in self.maps:
            with _what_goes_on():
                draft.publish()


@contextmanager
def _what_goes_on() -> Iterator[None]:
    """Say with a failure what becomes of the run."""
    try:
        yield
    except HsiclustError as error:
        if type(error) is not HsiclustError or "the same command" in str(error):
            raise
        raise HsiclustError(f"{error}; {GO_ON}") from error


@contextmanager
def drafts(plan: PredictPlan, store: LabelStore, options: PredictOptions) -> Iterator[Drafts]:
    """Begin the maps of a run; what is not published is gone at the end.

    Args:
        plan: From `plan_prediction`.
        store: Holds the labels, sooner or later.
        options: The same as for the plan.

    Raises:
        HsiclustError: They cannot be written.
    """
    tags = {
        "TIFFTAG_SOFTWARE": f"hsiclust {__version__}",
        "HSICLUST_VERSION": __version__,
        "HSICLUST_METHOD": plan.model.method,
        LABELS_TAG: "classes" if METHODS[plan.model.method].supervised else "clusters",
        "HSICLUST_CLASSES": str(len(plan.model.classes)),
        MODEL_TAG: plan.job.digest,
        SCENE_TAG: Path(plan.job.source).name,
    }
    form = MapFormat(driver_for(plan.output, options.driver), 512, options.creation, tags)
    labels = label_draft(store, plan.grid, plan.output, plan.model.classes, form)
    confidence = confidence_path(plan.output) if options.confidence else None
    with ExitStack() as begun:
        maps = [labels]
        if confidence is not None:
            maps.insert(0, confidence_draft(_ConfidenceOf(store), plan.grid, confidence, form))
        for draft in maps:
            begun.enter_context(draft)
        yield Drafts(maps, confidence)


@dataclass(frozen=True)
class _ConfidenceOf:
    """The confidence of a label store, read like labels."""

    store: LabelStore

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Confidence of a window, `(row, col)`."""
        return self.store.read_confidence(window, written=True)
