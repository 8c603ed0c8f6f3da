"""The whole way from Python: train, label, score, draw.

Run it anywhere: `python examples/library.py FOLDER [STEPS]`. It uses the scene that the package
carries; give your own paths in its place.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hsiclust
from hsiclust.demonstration import demo_scene, demo_truth


def main(folder: Path, steps: int | None) -> None:
    """Train on the carried scene and put model, map and scores into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model, label_map = folder / "model.safetensors", folder / "map.tif"

    training = hsiclust.train(
        [str(demo_scene())],
        model,
        hsiclust.TrainOptions(method="sscc", classes=16, steps=steps, seed=1),
        progress=lambda step: print(f"\r{step.step}/{step.steps}", end="", file=sys.stderr),
    )
    print(f"{training.in_use} of {training.classes} clusters in use")

    prediction = hsiclust.predict(
        str(demo_scene()), model, label_map, hsiclust.PredictOptions(confidence=True)
    )
    print(f"{prediction.pixels} pixels in {prediction.seconds:.1f} s -> {prediction.map}")

    scores = hsiclust.evaluate(label_map, demo_truth()).scores
    print(f"ACC {scores.accuracy:.3f}  NMI {scores.nmi:.3f}  ARI {scores.ari:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
