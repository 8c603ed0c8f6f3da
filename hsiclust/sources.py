"""What `predict` labels: a scene seen through a model, or a tile store made for that model."""

from __future__ import annotations

import torch

from hsiclust.components import SceneComponents
from hsiclust.errors import ModelError
from hsiclust.labelmodel import LabelModel
from hsiclust.scene import Scene
from hsiclust.tiles import TileStore, is_tile_store


def open_source(
    path: str, nodata: float | None, model: LabelModel, device: torch.device
) -> SceneComponents | TileStore:
    """A scene as a model sees it, or a tile store made with the same transform.

    Raises:
        InputError: It cannot be opened.
        ModelError: Its bands, transform or halo do not fit the model.
    """
    if not is_tile_store(path):
        return model.see(Scene.open(path, nodata), device)
    store = TileStore.open(path)
    model.check_store(store)
    if missing := store.missing():
        raise ModelError(f"{path}: {len(missing)} tiles were never written; run `tile` again")
    return store
