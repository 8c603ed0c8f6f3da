"""What has to be said of a scene before it is used, although nothing is wrong with it."""

from __future__ import annotations

import logging

from hsiclust.labelmodel import LabelModel
from hsiclust.readplan import ReadPlan
from hsiclust.scene import Scene

log = logging.getLogger(__name__)


def warn_of_scene(scene: Scene, model: LabelModel) -> None:
    """Say what a map of this scene will lack, and what will be slow."""
    warn_of_header(scene)
    _warn_of_place(scene)
    _warn_of_gzip(scene)
    _warn_of_nodata(scene, model)


def warn_of_header(scene: Scene) -> None:
    """Say which lists of its header are not used: bands that it calls bad would be, for one."""
    for unread in scene.unread:
        log.warning("%s: %s", scene.path, unread)


def _warn_of_place(scene: Scene) -> None:
    if scene.loose is not None:
        log.warning(
            "%s: lies on the ground by %s only, which a map does not keep; warp the scene first, "
            "or its map has no place",
            scene.path,
            scene.loose,
        )


def _warn_of_gzip(scene: Scene) -> None:
    if scene.layout.startswith("ENVI in") and scene.layout.endswith("gzip"):
        log.warning(
            "%s: is compressed as a whole: for each part, all before it is unpacked again; "
            "gunzip it first, or a large one takes hours",
            scene.path,
        )


def _warn_of_nodata(scene: Scene, model: LabelModel) -> None:
    if model.nodata is not None and scene.nodata is None and scene.masking is None:
        log.warning(
            "%s: declares no nodata value (the model's scene had %g); every pixel is labelled "
            "unless --nodata names one",
            scene.path,
            model.nodata,
        )


def warn_of_panels(scene: Scene, reading: ReadPlan) -> None:
    """Say that blocks are decoded more than once, where they are."""
    if scene.decoding is None or not scene.decoding.block or reading.panels == 1:
        return
    if scene.blocks[1] >= reading.tiles.area.cols:
        log.warning(
            "%s: its blocks are wider than what fits into memory: each is decoded %d times; "
            "more --memory avoids that",
            scene.path,
            reading.panels,
        )
