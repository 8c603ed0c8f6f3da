"""What `predict` labels: a scene seen through a model, or a tile store made for that model."""

from __future__ import annotations

import torch

from hsiclust.components import SceneComponents
from hsiclust.errors import ModelError
from hsiclust.modelfile import FittedModel
from hsiclust.scene import Scene
from hsiclust.tiles import TileStore, is_tile_store


def open_source(
    path: str, nodata: float | None, model: FittedModel, device: torch.device
) -> SceneComponents | TileStore:
    """A scene seen through a model's transform, or a tile store made with the same transform.

    Raises:
        InputError: It cannot be opened.
        ModelError: Its bands, transform or halo do not fit the model.
    """
    if not is_tile_store(path):
        scene = Scene.open(path, nodata)
        return SceneComponents.of(scene, model.transform, model.sensor, device)
    store = TileStore.open(path)
    if not store.transform.equals(model.transform):
        raise ModelError(f"{path}: this tile store was made with another spectral transform")
    if store.tiles.halo < model.method.halo:
        raise ModelError(
            f"{path}: its tiles have a halo of {store.tiles.halo} pixels and the model needs "
            f"{model.method.halo}; tile again with --halo {model.method.halo}"
        )
    if missing := store.missing():
        raise ModelError(f"{path}: {len(missing)} tiles were never written; run `tile` again")
    return store
