"""The demonstration: a real scene that comes along, from pixels to a scored map and a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

from hsiclust.errors import OutputExistsError, UsageError
from hsiclust.evaluation import Evaluation, evaluate
from hsiclust.picture import ReportOptions, report
from hsiclust.prediction import predict
from hsiclust.prediction_plan import plan_prediction
from hsiclust.predictoptions import PredictOptions
from hsiclust.trained import Step
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

_CLASSES = 16
_METHODS = ("kmeans", "sscc")


@dataclass(frozen=True)
class Mapped:
    """One method's map of the demonstration scene.

    Attributes:
        model: The model file.
        map: The label map.
        picture: Scene, map and truth side by side.
        evaluation: Scores against the truth.
        seconds: Time of training and labelling.
    """

    model: Path
    map: Path
    picture: Path
    evaluation: Evaluation
    seconds: float


@dataclass(frozen=True)
class Demo:
    """What the demonstration made, by method."""

    folder: Path
    results: dict[str, Mapped]

    def facts(self) -> dict[str, Any]:
        """Scores and files as JSON values."""
        facts: dict[str, Any] = {"scene": "Indian Pines, 145 x 145 pixels, 200 bands"}
        for name, mapped in self.results.items():
            scores = mapped.evaluation.scores
            facts |= {
                f"{name} ACC": round(scores.accuracy, 4),
                f"{name} NMI": round(scores.nmi, 4),
                f"{name} ARI": round(scores.ari, 4),
                f"{name} kappa": round(scores.kappa, 4),
                f"{name} seconds": round(mapped.seconds, 1),
                f"{name} map": str(mapped.map),
                f"{name} picture": str(mapped.picture),
            }
        return facts


def demo_scene() -> Path:
    """The scene that the package carries: Indian Pines (AVIRIS, 1992)."""
    return Path(str(files("hsiclust") / "data" / "indian_pines" / "indian_pines.tif"))


def demo_truth() -> Path:
    """Its ground truth, 0 where nothing is known."""
    return demo_scene().with_name("indian_pines_truth.tif")


def demo(
    folder: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Demo:
    """Train k-means and SSCC on all pixels of Indian Pines, map it, score it, draw it.

    The truth is used for nothing but the scores.

    Args:
        folder: Where everything goes.
        seed: Of both methods.
        overwrite: Replace the files of an earlier demonstration.
        progress: Called with steps done, steps in all, and what is going on.

    Raises:
        OutputExistsError: An earlier demonstration is there.
        UsageError: The folder cannot be made.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise OutputExistsError(f"{folder}: is there already; --overwrite replaces its files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise UsageError(f"{folder}: no folder can be made there; name another --output") from error
    results = {}
    for name in _METHODS:

        def watch(step: Step, name: str = name) -> None:
            if progress is not None:
                progress(step.step, step.steps, f"steps of {name}, loss {step.loss:.2f}")

        results[name] = _map(folder, name, seed, watch)
    return Demo(folder, results)


def _map(folder: Path, method: str, seed: int, watch: Callable[[Step], None]) -> Mapped:
    start = perf_counter()
    model, output = folder / f"{method}.safetensors", folder / f"{method}_labels.tif"
    options = TrainOptions(method=method, classes=_CLASSES, seed=seed, overwrite=True)
    train([str(demo_scene())], model, options, watch)
    labelling = PredictOptions(overwrite=True, confidence=True)
    predict(plan_prediction(str(demo_scene()), model, output, labelling), labelling)
    seconds = perf_counter() - start
    picture = folder / f"{method}.png"
    title = f"Indian Pines, {method}, all pixels, {_CLASSES} clusters"
    shown = ReportOptions(demo_scene(), demo_truth(), title=title, overwrite=True)
    report(output, picture, shown)
    return Mapped(model, output, picture, evaluate(output, demo_truth()), seconds)
