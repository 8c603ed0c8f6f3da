"""The whole way from Python: train, label, score, draw.

Run it anywhere: `python examples/library.py FOLDER [SCENE TRUTH [STEPS]]`. Without a scene it takes
the one that the package carries.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hsiclust
from hsiclust.demonstration import demo_scene, demo_truth


def main(folder: Path, scene: Path, truth: Path, steps: int | None = None) -> None:
    """Train on a scene and put model, map and scores into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model, label_map = folder / "model.safetensors", folder / "map.tif"

    training = hsiclust.train(
        [str(scene)],
        model,
        hsiclust.TrainOptions(method="sscc", classes=16, steps=steps, seed=1),
        progress=lambda step: print(f"\r{step.step}/{step.steps}", end="", file=sys.stderr),
    )
    print(f"{training.in_use} of {training.classes} clusters in use")

    prediction = hsiclust.predict(
        str(scene), model, label_map, hsiclust.PredictOptions(confidence=True)
    )
    print(f"{prediction.pixels} pixels in {prediction.seconds:.1f} s -> {prediction.map}")

    scores = hsiclust.evaluate(label_map, truth).scores
    print(f"ACC {scores.accuracy:.3f}  NMI {scores.nmi:.3f}  ARI {scores.ari:.3f}")

    options = hsiclust.ReportOptions(scene=scene, truth=truth)
    hsiclust.report(label_map, folder / "map.png", options)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4, 5):
        sys.exit(__doc__)
    folder, *given = sys.argv[1:]
    scene, truth = map(Path, given[:2] or (demo_scene(), demo_truth()))
    main(Path(folder), scene, truth, *map(int, given[2:]))
