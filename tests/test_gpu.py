"""The same things on a CUDA device; skipped where there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hsiclust.api import predict
from hsiclust.demonstration import demo_scene
from hsiclust.modelfile import load_model
from hsiclust.predictoptions import PredictOptions
from hsiclust.rasters import open_raster
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("method", ["kmeans", "sscc"])
def test_labels_of_the_gpu_are_those_of_the_cpu(method: str, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    train([str(demo_scene())], model, TrainOptions(method=method, steps=20, device="cuda"))
    assert load_model(model).method.classes == 16
    labels = []
    for device in ("cpu", "cuda"):
        output = tmp_path / f"{device}.tif"
        predict(str(demo_scene()), model, output, replace(PredictOptions(), device=device))
        with open_raster(str(output)) as dataset:
            labels.append(dataset.read(1))
    assert (labels[0] == labels[1]).mean() > 0.999


@pytest.mark.parametrize("method", ["svm", "forest"])
def test_baselines_of_the_gpu_are_those_of_the_cpu(
    method: str, fields: tuple[Path, Path], tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    options = TrainOptions(method=method, labels=fields[1], split="none", device="cuda")
    train([str(fields[0])], model, options)
    labels = []
    for device in ("cpu", "cuda"):
        output = tmp_path / f"{device}.tif"
        predict(str(fields[0]), model, output, replace(PredictOptions(), device=device))
        with open_raster(str(output)) as dataset:
            labels.append(dataset.read(1))
    assert len(np.unique(labels[0])) == 4
    assert (labels[0] == labels[1]).mean() > 0.999


def test_tiles_do_not_matter_on_the_gpu(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    train([str(demo_scene())], model, TrainOptions(steps=20, device="cuda"))
    labels = []
    for side in (32, 512):
        output = tmp_path / f"{side}.tif"
        options = PredictOptions(device="cuda", tile=side)
        predict(str(demo_scene()), model, output, options)
        with open_raster(str(output)) as dataset:
            labels.append(dataset.read(1))
    assert (labels[0] == labels[1]).mean() >= 0.9999
