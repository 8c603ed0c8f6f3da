"""The command line: text becomes values, one verb is called, its result is shown.

Results go to standard output, everything else to standard error. Nothing heavy is imported
before a verb needs it.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hsiclust import __version__, console
from hsiclust.errors import HsiclustError, StoppedError, UsageError
from hsiclust.parameters import (
    BandsText,
    BoundsText,
    Components,
    Confidence,
    Creation,
    Device,
    Driver,
    Field,
    GpuMemory,
    Ignored,
    Json,
    Layer,
    Maps,
    Match,
    Memory,
    MethodName,
    Model,
    Nodata,
    Output,
    Overwrite,
    Precision,
    PrecisionName,
    Quiet,
    RecipeName,
    Scenes,
    Scheduler,
    SchedulerFile,
    Seed,
    ShardText,
    Store,
    TileSize,
    Transform,
    Verbose,
    Workers,
    bounds_of,
    bytes_of,
    creation_of,
    engine_of,
    suffix_of,
    value_of,
)
from hsiclust.process import keep_freed_memory, prepare_process
from hsiclust.scenelist import SceneList, scene_list
from hsiclust.scorecard import scorecard

if TYPE_CHECKING:
    from hsiclust.api import Part, PredictOptions

app = typer.Typer(
    help="Class maps of hyperspectral scenes of any size, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def hsiclust(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Class maps of hyperspectral scenes of any size, without labels."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def train(
    scenes: Annotated[list[str], typer.Argument(help="Scenes or tile stores to learn from.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write.")] = Path(
        "model.safetensors"
    ),
    method: Annotated[MethodName | None, typer.Option("--method", help="sscc by default.")] = None,
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
    steps: Annotated[int | None, typer.Option("--steps", min=1)] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Instead of --steps.")] = None,
    transform: Transform = None,
    components: Components = None,
    bidx: BandsText = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="Raster or vectors: learn only where > 0 or inside."),
    ] = None,
    bounds: BoundsText = None,
    nodata: Nodata = None,
    init: Annotated[Path | None, typer.Option("--init", help="Model to go on from.")] = None,
    match_to: Annotated[
        Path | None, typer.Option("--match-to", help="Map whose class numbers to take over.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option("--budget", min=1, help="Most pixels to learn from.")
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
    keep_freed_memory()
    from hsiclust.api import Step, TrainOptions
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
    stop = _StopBetweenSteps()
    with console.progress("training", quiet) as show:

        def watch(step: Step) -> None:
            show(
                step.step,
                step.steps,
                f"loss {step.loss:.3f}, {step.in_use} clusters in use, "
                f"{step.rate / 1e6:.3f} Mpixel/s",
            )
            stop.check()  # between two steps, where a checkpoint can be written

        result = run(scenes, output, options, watch)
    if result.collapsed:
        console.say(
            f"WARNING: the clustering collapsed: {result.in_use} of {result.classes} clusters are "
            "in use; try another --seed, more --steps or fewer --classes"
        )
    if not quiet:
        console.say(
            f"{result.steps} steps on {result.pixels} pixels in {result.seconds:.1f} s: "
            f"{result.in_use} of {result.classes} clusters in use"
        )
        console.say(
            "; ".join(
                f"{stage.name} {stage.seconds:.1f} s, {stage.peak_bytes / 2**20:.0f} MiB"
                for stage in result.stages
            )
        )
    console.print_result(as_json, result.model, console.jsonable(result))


@app.command()
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
    from hsiclust.api import PredictOptions, Shard, plan_prediction

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
        with found.folder_meanwhile():
            for scene, path in found.pairs:
                facts = plan_prediction(scene, model, path, options).facts()
                console.print_facts(as_json, facts if part is None else facts | part.facts(facts))
    else:
        _predict(found, model, options, part, console.Style(as_json, quiet))


@app.command()
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
    found.make_folder()
    if found.many:
        outcomes = predict_scenes(found.pairs, model, options, style.watch, part)
        if not style.show_outcomes(outcomes, len(found.pairs)):
            raise typer.Exit(1)
        return
    ((scene, path),) = found.pairs
    plan = plan_prediction(scene, model, path, options)
    with style.watch("") as progress:
        result = predict_scene(plan, options, part, progress)
    style.show_result(result)


@app.command()
def tile(
    scene: Annotated[str, typer.Argument(help="Scene to tile.")],
    store: Annotated[Path, typer.Argument(help="Zarr store to write.")],
    tile_size: Annotated[int, typer.Option("--tile-size", min=16)] = 128,
    halo: Annotated[int, typer.Option("--halo", min=0, help="Pixels around each tile.")] = 16,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="Take the transform of this model.")
    ] = None,
    transform: Transform = None,
    components: Components = None,
    bidx: BandsText = None,
    bounds: BoundsText = None,
    nodata: Nodata = None,
    seed: Seed = 0,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cut a scene into overlapping tiles of its spectral components."""
    console.log_to_stderr(quiet, verbose)
    from hsiclust.api import TileOptions, TileShape, TransformOptions, info
    from hsiclust.api import tile as run

    fitted = TransformOptions(
        kind="mnf" if transform is None else transform.value, components=components, bands=bidx
    )
    if model is not None and (transform or components or bidx):
        raise UsageError("--model brings its transform: no --transform, --components or --bidx")
    options = TileOptions(
        shape=TileShape(tile_size, halo),
        transform=fitted,
        model=model,
        bounds=bounds_of(bounds),
        nodata=nodata,
        seed=seed,
        overwrite=overwrite,
        engine=engine_of(workers, scheduler, scheduler_file),
    )
    with console.progress("tiling", quiet) as show:
        written = run(scene, store, options, lambda done, tiles: show(done, tiles, "tiles"))
    console.print_result(as_json, written.path, info(str(written.path)))


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="ONNX file to write.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a model as one ONNX graph, from raw bands to classes and confidence."""
    console.log_to_stderr(quiet, verbose)
    from hsiclust.api import export as run

    result = run(model, output, overwrite=overwrite)
    if not quiet:
        console.say(
            f"ONNX Runtime gives the model's labels: {result.agreement:.6f} of {result.pixels} "
            "pixels agree"
        )
    console.print_result(as_json, result.onnx, console.jsonable(result))


@app.command()
def evaluate(
    label_map: Annotated[Path, typer.Argument(metavar="MAP", help="Label map.")],
    truth: Annotated[Path, typer.Argument(help="Truth: a raster or vectors.")],
    field: Field = None,
    layer: Layer = None,
    match: Match = None,
    confidence: Annotated[
        Path | None,
        typer.Option("--confidence", help="The map's confidence, to see whether it is honest."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a map on labelled pixels."""
    console.log_to_stderr(quiet, verbose)
    from hsiclust.api import evaluate as run

    evaluation = run(label_map, truth, field=field, layer=layer, match=match, confidence=confidence)
    if evaluation.note and not quiet:
        console.say(evaluation.note)
    if as_json:
        console.print_facts(as_json, evaluation.to_json())
    else:
        typer.echo(scorecard(evaluation))


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="Scene, tile store, model or map.")],
    as_json: Json = False,
) -> None:
    """Say what a file holds."""
    console.log_to_stderr(quiet=False, verbose=False)
    from hsiclust.api import info as run

    console.print_facts(as_json, run(path))


@app.command()
def report(
    label_map: Annotated[Path, typer.Argument(metavar="MAP", help="Label map.")],
    output: Output = None,
    scene: Annotated[Path | None, typer.Option("--scene", help="Scene, for its colours.")] = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Raster or vectors.")] = None,
    field: Field = None,
    layer: Layer = None,
    match: Match = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw a map beside its scene and truth as one picture (PNG)."""
    console.log_to_stderr(quiet=False, verbose=False)
    from hsiclust.api import ReportOptions
    from hsiclust.api import report as run

    target = output or label_map.with_suffix(".png")
    options = ReportOptions(
        scene, truth, field=field, layer=layer, match=match, overwrite=overwrite
    )
    run(label_map, target, options)
    console.print_result(as_json, target, {"picture": str(target)})


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for models, maps and the picture.")
    ] = Path("hsiclust-demo"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on the scene that comes along, map it, score it and draw it."""
    console.log_to_stderr(quiet, verbose=False)
    keep_freed_memory()
    from hsiclust.api import demo as run

    with console.progress("demo", quiet) as show:
        result = run(folder, seed=seed, overwrite=overwrite, progress=show)
    console.print_facts(as_json, result.facts())


def main() -> NoReturn:
    """Run the command line and exit as the contract says."""
    prepare_process()
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except (HsiclustError, OSError, MemoryError) as error:
        if "--debug" in sys.argv:
            raise
        console.say(f"hsiclust: {console.one_line(error)}")
        sys.exit(error.exit_code if isinstance(error, HsiclustError) else 1)
    sys.exit(0)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise StoppedError(
        "stopped by SIGTERM; train, predict and tile go on where they were when started again"
    )


class _StopBetweenSteps:
    """From the first step of a training on, SIGTERM waits for the end of a step."""

    def __init__(self) -> None:
        self._asked = False

    def check(self) -> None:
        """Stop if that was asked for."""
        if self._asked:
            _stop(signal.SIGTERM, None)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
