"""`hsiclust predict` and `hsiclust merge`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsiclust import console
from hsiclust.errors import UsageError
from hsiclust.parameters import (
    BoundsText,
    Confidence,
    Creation,
    Device,
    Driver,
    GpuMemory,
    Ignored,
    Json,
    Maps,
    Memory,
    Model,
    Nodata,
    Overwrite,
    Precision,
    PrecisionName,
    Quiet,
    Scenes,
    Scheduler,
    SchedulerFile,
    ShardText,
    Store,
    TileSize,
    Verbose,
    Workers,
    bounds_of,
    bytes_of,
    creation_of,
    engine_of,
    suffix_of,
    value_of,
)
from hsiclust.scenelist import SceneList, scene_list
from hsiclust.stopping import heed_no_more

if TYPE_CHECKING:
    from hsiclust.api import Outcome, Part, PredictOptions, Shard


def predict(
    scenes: Scenes,
    model: Model = Path("model.safetensors"),
    output: Maps = None,
    confidence: Confidence = False,
    driver: Driver = None,
    creation: Creation = None,
    bounds: BoundsText = None,
    nodata: Nodata = None,
    tile_size: TileSize = None,
    memory: Memory = None,
    gpu_memory: GpuMemory = None,
    precision: Precision = PrecisionName.AUTO,
    store: Store = None,
    device: Device = "auto",
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    shard: ShardText = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Label scenes with a model; writes maps on the scenes' own pixel grids."""
    console.log_to_stderr(quiet, verbose)
    from hsiclust.api import PredictOptions, Shard

    options = PredictOptions(
        device=device,
        bounds=bounds_of(bounds),
        nodata=nodata,
        tile=tile_size,
        memory=bytes_of(memory),
        gpu_memory=bytes_of(gpu_memory),
        precision=value_of(precision),
        store=store,
        confidence=confidence,
        driver=value_of(driver),
        creation=creation_of(creation),
        overwrite=overwrite,
        engine=engine_of(workers, scheduler, scheduler_file),
    )
    part = None if shard is None else Shard.parse(shard)
    found = scene_list(scenes, output, suffix_of(driver), sys.stdin)
    if dry_run:
        _show_plans(found, model, options, part, console.Style(as_json, quiet))
    else:
        _predict(found, model, options, part, console.Style(as_json, quiet))


def _show_plans(
    found: SceneList, model: Path, options: PredictOptions, part: Shard | None, style: console.Style
) -> None:
    """Show what would be done, and do nothing."""
    from hsiclust.api import plan_prediction
    from hsiclust.batch import plan_scenes, refuse_scenes

    with found.folder_in_use():
        if found.many:
            plans = plan_scenes(found.pairs, model, options)
            _show_all(found, plans, style, partial(style.show_plan, part=part))
            return
        refuse_scenes(found.pairs, options)
        ((scene, path),) = found.pairs
        style.show_plan(plan_prediction(scene, model, path, options), part)


def merge(
    scenes: Scenes,
    model: Model = Path("model.safetensors"),
    output: Maps = None,
    confidence: Confidence = False,
    driver: Driver = None,
    creation: Creation = None,
    bounds: BoundsText = None,
    nodata: Nodata = None,
    precision: Precision = PrecisionName.AUTO,
    store: Store = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    _ignored: Ignored = None,
) -> None:
    """Write the maps of scenes whose shards are labelled; takes what predict --shard was given."""
    console.log_to_stderr(quiet, verbose)
    from hsiclust.api import PredictOptions

    options = PredictOptions(
        device="cpu",
        bounds=bounds_of(bounds),
        nodata=nodata,
        memory=sys.maxsize,  # what the strips took in the shards' jobs is nothing to this one
        precision=value_of(precision),
        store=store,
        confidence=confidence,
        driver=value_of(driver),
        creation=creation_of(creation),
        overwrite=overwrite,
    )
    found = scene_list(scenes, output, suffix_of(driver), sys.stdin)
    _predict(found, model, options, "merge", console.Style(as_json, quiet))


def _predict(
    found: SceneList, model: Path, options: PredictOptions, part: Part, style: console.Style
) -> None:
    """Label one scene or many, or merge their shards, and show what was done."""
    from hsiclust.api import plan_prediction, predict_scene, predict_scenes

    if options.store is not None and len(found.pairs) > 1:
        raise UsageError(f"--store {options.store} holds the labels of one scene, not of several")
    with found.folder_in_use():
        if found.many:
            outcomes = predict_scenes(found.pairs, model, options, style.watch, part)
            _show_all(found, outcomes, style, style.show_result)
            return
        ((scene, path),) = found.pairs
        plan = plan_prediction(scene, model, path, options)
        with style.watch("") as progress:
            result = predict_scene(plan, options, part, progress, finishing=heed_no_more)
        style.show_result(result)


def _show_all(
    found: SceneList, outcomes: Iterable[Outcome], style: console.Style, show: Callable[..., None]
) -> None:
    """Show what becomes of each scene; ends the command with 1 where one failed."""
    if not style.show_outcomes(outcomes, len(found.pairs), show):
        raise typer.Exit(1)
