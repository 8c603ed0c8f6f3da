"""The command line: text becomes values, one verb is called, its result is shown.

Results go to standard output, everything else to standard error. Nothing heavy is imported
before a verb needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from hsiclust import __version__, console
from hsiclust.commands.predict import merge, predict
from hsiclust.commands.train import train
from hsiclust.errors import HsiclustError, UsageError
from hsiclust.parameters import (
    BandsText,
    BoundsText,
    Components,
    Field,
    Json,
    Layer,
    Match,
    Nodata,
    Output,
    Overwrite,
    Quiet,
    Scheduler,
    SchedulerFile,
    Seed,
    Transform,
    Verbose,
    Workers,
    bounds_of,
    engine_of,
    file_argument,
    file_option,
)
from hsiclust.process import end_process, open_standard_streams, prepare_process
from hsiclust.scorecard import scorecard
from hsiclust.stopping import stop_on_signals

app = typer.Typer(
    help="Class maps of hyperspectral scenes of any size, with few labels or none.",
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
    """Class maps of hyperspectral scenes of any size, with few labels or none."""
    if version:
        console.print_result(False, __version__, {})
        raise typer.Exit


app.command()(train)
app.command()(predict)
app.command()(merge)


@app.command()
def tile(
    scene: Annotated[str, typer.Argument(help="Scene to tile.")],
    store: Annotated[Path, file_argument(help="Zarr store to write.")],
    tile_size: Annotated[int, typer.Option("--tile-size", min=16)] = 128,
    halo: Annotated[int, typer.Option("--halo", min=0, help="Pixels around each tile.")] = 16,
    model: Annotated[
        Path | None, file_option("-m", "--model", help="Take the transform of this model.")
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
    model: Annotated[Path, file_argument(help="Model file.")],
    output: Annotated[Path, file_argument(metavar="OUT.onnx", help="ONNX file to write.")],
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
    label_map: Annotated[Path, file_argument(metavar="MAP", help="Label map.")],
    truth: Annotated[Path, file_argument(help="Truth: a raster or vectors.")],
    field: Field = None,
    layer: Layer = None,
    match: Match = None,
    confidence: Annotated[
        Path | None,
        file_option("--confidence", help="The map's confidence, to see whether it is honest."),
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
    console.print_result(as_json, scorecard(evaluation), evaluation.to_json())


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
    label_map: Annotated[Path, file_argument(metavar="MAP", help="Label map.")],
    output: Output = None,
    scene: Annotated[Path | None, file_option("--scene", help="Scene, for its colours.")] = None,
    truth: Annotated[Path | None, file_option("--truth", help="Raster or vectors.")] = None,
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

    target = output or label_map.parent / f"{label_map.stem}.png"  # "." has no suffix to change
    options = ReportOptions(
        scene, truth, field=field, layer=layer, match=match, overwrite=overwrite
    )
    run(label_map, target, options)
    console.print_result(as_json, target, {"picture": str(target)})


@app.command()
def demo(
    folder: Annotated[
        Path, file_option("-o", "--output", help="Folder for models, maps and the picture.")
    ] = Path("hsiclust-demo"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on the scene that comes along, map it, score it and draw it."""
    console.log_to_stderr(quiet, verbose=False)
    from hsiclust.api import demo as run

    with console.progress("demo", quiet) as show:
        result = run(folder, seed=seed, overwrite=overwrite, progress=show)
    console.print_facts(as_json, result.facts())


def main() -> NoReturn:
    """Run the command line and exit as the contract says."""
    open_standard_streams()
    prepare_process()
    stop_on_signals()
    end_process(_exit_code())


def _exit_code() -> int:
    try:
        app()
    except SystemExit as ended:  # how Typer ends, in any case
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except (HsiclustError, OSError, MemoryError) as error:
        if "--debug" in sys.argv:
            raise
        console.say(f"hsiclust: {console.one_line(error)}")
        return console.exit_code(error)
    return 0
