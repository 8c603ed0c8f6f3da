"""The verbs: what the command line calls, and what `import hsiclust` offers.

Each is loaded when it is used: who labels a scene does not wait for what trains a model.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsiclust.batch import Outcome, Part, predict_scene, predict_scenes
    from hsiclust.demonstration import Demo, demo
    from hsiclust.engine import EngineOptions
    from hsiclust.evaluation import Evaluation, evaluate
    from hsiclust.facts import info
    from hsiclust.onnxexport import Export, export
    from hsiclust.picture import ReportOptions, report
    from hsiclust.prediction import Prediction
    from hsiclust.prediction import predict as run_prediction
    from hsiclust.prediction_plan import plan_prediction
    from hsiclust.predictoptions import PredictOptions
    from hsiclust.sample import TransformOptions
    from hsiclust.shards import Shard
    from hsiclust.staging import TileShape
    from hsiclust.tiling import TileOptions, tile
    from hsiclust.trained import Step, Training
    from hsiclust.training import train
    from hsiclust.trainoptions import TrainOptions

# Module and name of each verb and of what it takes and gives.
_HOMES = {
    "Demo": ("demonstration", "Demo"),
    "EngineOptions": ("engine", "EngineOptions"),
    "Evaluation": ("evaluation", "Evaluation"),
    "Export": ("onnxexport", "Export"),
    "Outcome": ("batch", "Outcome"),
    "Part": ("batch", "Part"),
    "PredictOptions": ("predictoptions", "PredictOptions"),
    "Prediction": ("prediction", "Prediction"),
    "ReportOptions": ("picture", "ReportOptions"),
    "Shard": ("shards", "Shard"),
    "Step": ("trained", "Step"),
    "TileOptions": ("tiling", "TileOptions"),
    "TileShape": ("staging", "TileShape"),
    "TrainOptions": ("trainoptions", "TrainOptions"),
    "Training": ("trained", "Training"),
    "TransformOptions": ("sample", "TransformOptions"),
    "demo": ("demonstration", "demo"),
    "evaluate": ("evaluation", "evaluate"),
    "export": ("onnxexport", "export"),
    "info": ("facts", "info"),
    "plan_prediction": ("prediction_plan", "plan_prediction"),
    "predict_scene": ("batch", "predict_scene"),
    "predict_scenes": ("batch", "predict_scenes"),
    "report": ("picture", "report"),
    "run_prediction": ("prediction", "predict"),
    "tile": ("tiling", "tile"),
    "train": ("training", "train"),
}

__all__ = [
    "Demo",
    "EngineOptions",
    "Evaluation",
    "Export",
    "Outcome",
    "Part",
    "PredictOptions",
    "Prediction",
    "ReportOptions",
    "Shard",
    "Step",
    "TileOptions",
    "TileShape",
    "TrainOptions",
    "Training",
    "TransformOptions",
    "demo",
    "evaluate",
    "export",
    "info",
    "plan_prediction",
    "predict",
    "predict_scene",
    "predict_scenes",
    "report",
    "run_prediction",
    "tile",
    "train",
]


if not TYPE_CHECKING:  # or every misspelt name would be one, to a type checker

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'hsiclust.api' has no attribute {name!r}")
        module, attribute = _HOMES[name]
        return getattr(import_module(f"hsiclust.{module}"), attribute)


def predict(
    scene: str,
    model: str | Path,
    output: str | Path,
    options: PredictOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Label a scene and write its map.

    Args:
        scene: A scene, or a tile store made with the model's transform.
        model: The model file.
        output: The map.
        options: How; the defaults when None.
        progress: Called with tiles done and tiles in all.

    Raises:
        InputError: The scene cannot be used.
        ModelError: The model cannot be used, or not with this scene.
        UsageError: The output exists, or an option is out of range.
    """
    from hsiclust.prediction import predict as run_prediction
    from hsiclust.prediction_plan import plan_prediction
    from hsiclust.predictoptions import PredictOptions

    chosen = options or PredictOptions()
    return run_prediction(plan_prediction(scene, model, output, chosen), chosen, progress)
