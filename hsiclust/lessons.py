"""What a training learns from: a bounded, spread choice of tiles of each source."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hsiclust.caveats import warn_of_header
from hsiclust.crops import StoredTiles
from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid
from hsiclust.labelled import Labelled
from hsiclust.modelfile import FittedModel
from hsiclust.recipe import area_of, mask_of
from hsiclust.scene import Scene
from hsiclust.staging import TileShape, plan_store, stage_tiles
from hsiclust.tilechoice import Shares, labelled_tiles, tiles_to_score
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.trainoptions import TrainOptions
from hsiclust.truth import open_truth

log = logging.getLogger(__name__)

# Most pixels of the tiles that hold labels, and of those that are scored: 256 tiles of each.
_LABELLED_PIXELS = 2**22


@dataclass(frozen=True)
class Lessons:
    """Tiles of a training.

    Attributes:
        learned: What is learned from.
        scored: Tiles with labels that are held out.
    """

    learned: list[StoredTiles] = field(default_factory=list)
    scored: list[StoredTiles] = field(default_factory=list)


def staged_path(output: Path, number: int) -> Path:
    """Where a training of this model stages its scene of this number."""
    return output.with_name(f".{output.name}.{number}.tiles.zarr")


def staged_paths(output: Path) -> list[Path]:
    """Where scenes are staged for a training of this model, however many an earlier one had."""
    name = re.compile(rf"\.{re.escape(output.name)}\.\d+\.tiles\.zarr")
    return sorted(path for path in output.parent.iterdir() if name.fullmatch(path.name))


def lesson_tiles(
    sources: Sequence[str],
    model: FittedModel,
    output: Path,
    options: TrainOptions,
    labelled: Labelled | None,
) -> Lessons:
    """Tiles to learn from: of the stores as they are, of the scenes through staging.

    Args:
        sources: Scenes and tile stores.
        model: Whose transform they need, and whose method says how much context.
        output: The model file to be; scenes are staged beside it.
        options: Budget, mask, bounds, seed.
        labelled: Labels of the sources, if there are any.

    Raises:
        InputError: A source, the mask or the map to match cannot be used.
        ModelError: A scene's bands are not those of the model.
    """
    most = options.most_pixels(model.method)
    shares = Shares(most, len(sources), options.seed)
    context = model.method.crop_shape.context
    lessons = Lessons()
    to_stage: list[tuple[Scene, TileStore, list[int]]] = []
    for number, source in enumerate(sources):
        scene = None if is_tile_store(source) else Scene.open(source, options.nodata)
        if scene is None:
            store = TileStore.open(source)
            _check_store(store, model, context)
            candidates: Sequence[int] = store.written()
        else:
            warn_of_header(scene)
            area, shape = area_of(scene, options.bounds), TileShape(halo=context)
            path = staged_path(output, number)
            store = plan_store(scene, area, model.transform, model.sensor, path, shape)
            candidates = range(len(store.tiles))
            _check_match(options, scene.grid)
        mask = mask_of(store.grid, options)
        chosen = shares.tiles_of(store.tiles, candidates, mask)
        learned, scored = StoredTiles(store, chosen, mask), None
        if labelled is not None:
            learned = _with_labels(learned, labelled, number, candidates)
            scored = _to_score(store, labelled, number, candidates, options.seed)
        if scene is not None:
            needed = {*learned.indices, *(scored.indices if scored else ())}
            if needed:
                to_stage.append((scene, store, sorted(needed)))
        lessons.learned.append(learned)
        if scored is not None:
            lessons.scored.append(scored)
    if shares.without:
        log.info(
            "a budget of %d pixels holds no tile of %d of the %d scenes; a larger --budget does",
            most,
            shares.without,
            len(sources),
        )
    for scene, store, indices in to_stage:  # now that each is known to be of use
        _stage_scene(scene, store, indices, options.engine)
    return lessons


def _with_labels(
    learned: StoredTiles, labelled: Labelled, site: int, candidates: Sequence[int]
) -> StoredTiles:
    """The same tiles and those that hold labels, with the labels."""
    marks = labelled.split.training[site]
    tiles = learned.store.tiles
    holding = labelled_tiles(tiles, marks, _LABELLED_PIXELS)
    indices = sorted({*learned.indices, *holding}.intersection(candidates))
    left_out = len(marks) - sum(int((marks.read(tiles[index].core) > 0).sum()) for index in indices)
    if left_out:
        log.warning(
            "%s: %d of %d labelled pixels lie in tiles beyond those that a training holds, and "
            "are not learned from",
            learned.store.scene,
            left_out,
            len(marks),
        )
    return StoredTiles(learned.store, indices, learned.mask, marks)


def _to_score(
    store: TileStore, labelled: Labelled, site: int, candidates: Sequence[int], seed: int
) -> StoredTiles | None:
    """Tiles with labels that are held out."""
    if labelled.split.held_out is None:
        return None
    held_out = labelled.split.held_out[site]
    found = tiles_to_score(store.tiles, held_out, _LABELLED_PIXELS, seed)
    return StoredTiles(store, sorted({*found}.intersection(candidates)), None, held_out)


def _check_match(options: TrainOptions, grid: PixelGrid) -> None:
    """Open the map to match now, not after the training."""
    if options.match_to is not None:
        open_truth(options.match_to, grid)


def _stage_scene(
    scene: Scene, store: TileStore, chosen: Sequence[int], engine: EngineOptions
) -> None:
    """Stage the chosen tiles, less those that an earlier, killed run of the same staged."""
    if store.open_or_create():
        log.info("%s: using tiles that an earlier run staged", scene.path)
    missing = set(store.missing())
    log.info("%s: staging %d tiles", scene.path, len(missing.intersection(chosen)))
    for _ in stage_tiles(scene, store, [index for index in chosen if index in missing], engine):
        pass


def _check_store(store: TileStore, model: FittedModel, context: int) -> None:
    if not store.transform.equals(model.transform):
        raise InputError(
            f"{store.path}: made with another spectral transform than the model or the first store"
        )
    if store.tiles.halo < context:
        raise InputError(
            f"{store.path}: its tiles have a halo of {store.tiles.halo} pixels and this training "
            f"needs {context}; tile again with --halo {context}"
        )
