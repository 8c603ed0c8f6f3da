"""Label maps from hyperspectral scenes of any size.

The verbs of the command line are functions of this package; each is loaded when it is used, so
that `import hsiclust` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hsiclust.api import (
        EngineOptions,
        PredictOptions,
        ReportOptions,
        TileOptions,
        TileShape,
        TrainOptions,
        TransformOptions,
        evaluate,
        export,
        info,
        predict,
        report,
        tile,
        train,
    )

__all__ = [
    "EngineOptions",
    "PredictOptions",
    "ReportOptions",
    "TileOptions",
    "TileShape",
    "TrainOptions",
    "TransformOptions",
    "__version__",
    "evaluate",
    "export",
    "info",
    "predict",
    "report",
    "tile",
    "train",
]


if not TYPE_CHECKING:  # or every misspelt name would be one, to a type checker

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'hsiclust' has no attribute {name!r}")
        from hsiclust import api

        return getattr(api, name)
