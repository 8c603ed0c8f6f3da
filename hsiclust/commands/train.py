"""`hsiclust train`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsiclust import console
from hsiclust.parameters import (
    BandsText,
    BoundsText,
    Components,
    Device,
    Field,
    Json,
    Layer,
    MethodName,
    Nodata,
    Overwrite,
    Quiet,
    RecipeName,
    Scenes,
    Scheduler,
    SchedulerFile,
    Seed,
    SplitName,
    Transform,
    Verbose,
    Workers,
    bounds_of,
    engine_of,
    file_option,
    value_of,
)
from hsiclust.scenelist import scene_names
from hsiclust.stopping import StopBetweenSteps, heed_no_more

if TYPE_CHECKING:
    from hsiclust.api import Step, Training


def train(
    scenes: Scenes,
    output: Annotated[Path, file_option("-o", "--output", help="Model file to write.")] = Path(
        "model.safetensors"
    ),
    method: Annotated[
        MethodName | None,
        typer.Option("--method", help="sscc by default; with --labels, contrastdm."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", "-k", help="Number of clusters; 16 by default.")
    ] = None,
    recipe: Annotated[
        RecipeName | None,
        typer.Option("--recipe", help="Of SSCC. paper: as published, patch by patch, slow."),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher/--no-teacher", help="Of SSCC: learn from a consensus.")
    ] = True,
    contrast: Annotated[
        bool, typer.Option("--contrast/--no-contrast", help="Of SSCC: contrast two views.")
    ] = True,
    smoothing: Annotated[
        float | None, typer.Option("--smoothing", min=0, help="Of k-means: pixels; 0 for none.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Its own number when not given.")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Instead of --steps.")] = None,
    transform: Transform = None,
    components: Components = None,
    bidx: BandsText = None,
    labels: Annotated[
        Path | None, file_option("--labels", help="Labelled pixels: a raster or vectors.")
    ] = None,
    field: Field = None,
    layer: Layer = None,
    split: Annotated[
        SplitName | None,
        typer.Option(
            "--split",
            help="Labels held out for the score: on separated ground (the default), random ones "
            "(optimistic), or none.",
        ),
    ] = None,
    per_class: Annotated[
        int | None, typer.Option("--per-class", min=1, help="Labels a class to learn from.")
    ] = None,
    diffusion: Annotated[
        bool | None,
        typer.Option(
            "--diffusion/--no-diffusion", help="Of ContrastDM: a diffusion model takes part."
        ),
    ] = None,
    pretraining: Annotated[
        bool,
        typer.Option(
            "--pretraining/--no-pretraining",
            help="Of ContrastDM: learn from unlabelled pixels first.",
        ),
    ] = True,
    synthetic: Annotated[
        int | None,
        typer.Option("--synthetic", min=0, help="Of ContrastDM: synthetic features a class."),
    ] = None,
    mask: Annotated[
        Path | None,
        file_option("--mask", help="Raster or vectors: learn only where > 0 or inside."),
    ] = None,
    bounds: BoundsText = None,
    nodata: Nodata = None,
    init: Annotated[Path | None, file_option("--init", help="Model to go on from.")] = None,
    match_to: Annotated[
        Path | None, file_option("--match-to", help="Map whose class numbers to take over.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget", min=1, help="Most pixels to learn from; 262144, of k-means 4194304."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit a model to one or many scenes."""
    console.log_to_stderr(quiet, verbose)
    from hsiclust.api import TrainOptions
    from hsiclust.api import train as run

    options = TrainOptions(
        method=value_of(method),
        classes=classes,
        recipe=value_of(recipe),
        teacher=None if teacher else False,
        contrast=None if contrast else False,
        smoothing=smoothing,
        steps=steps,
        epochs=epochs,
        kind=value_of(transform),
        components=components,
        bands=bidx,
        labels=labels,
        field=field,
        layer=layer,
        split=value_of(split),
        per_class=per_class,
        diffusion=diffusion,
        pretraining=None if pretraining else False,
        synthetic=synthetic,
        mask=mask,
        bounds=bounds_of(bounds),
        nodata=nodata,
        init=init,
        match_to=match_to,
        budget=budget,
        seed=seed,
        device=device,
        overwrite=overwrite,
        engine=engine_of(workers, scheduler, scheduler_file),
    )
    sources = scene_names(scenes, sys.stdin)
    stop = StopBetweenSteps()
    with console.progress("training", quiet) as show:

        def watch(step: Step) -> None:
            show(step.step, step.steps, _progress(step))
            # Between two steps, where a checkpoint can be written; after the last there is one.
            stop.check(last=step.step == step.steps)

        result = run(sources, output, options, watch, heed_no_more)
    if result.collapsed:
        console.say(
            f"WARNING: the clustering collapsed: {result.in_use} of {result.classes} clusters are "
            "in use; try another --seed, more --steps or fewer --classes"
        )
    if not quiet:
        for line in _summary(result):
            console.say(line)
    console.print_result(as_json, result.model, console.jsonable(result))


def _progress(step: Step) -> str:
    """A step in some words."""
    what = f"{step.in_use} clusters in use" if not step.stage else step.stage
    return f"loss {step.loss:.3f}, {what}, {step.rate / 1e6:.3f} Mpixel/s"


def _summary(result: Training) -> Iterator[str]:
    """What a training gave, a line at a time."""
    kind = "classes" if result.supervised else "clusters"
    yield (
        f"{result.steps} steps on {result.pixels} pixels in {result.seconds:.1f} s: "
        f"{result.in_use} of {result.classes} {kind} in use"
    )
    yield "; ".join(
        f"{stage.name} {stage.seconds:.1f} s, {stage.peak_bytes / 2**20:.0f} MiB"
        for stage in result.stages
    )
    if result.held_out is not None:
        found, score = result.held_out.accuracy, result.held_out
        yield (
            f"on {found.pixels} held-out pixels: OA {found.accuracy:.4f}, "
            f"AA {found.average_accuracy:.4f}, kappa {found.kappa:.4f}; calibration error "
            f"{score.error_before:.3f} before and {score.error_after:.3f} after temperature "
            f"{score.temperature:.2f}"
        )
        for scene, file in enumerate(result.split[1::2], start=1):  # each behind what was learned
            which = f" of scene {scene}" if len(result.split) > 2 else ""
            yield f"score its maps{which} with: hsiclust evaluate MAP {file}"
