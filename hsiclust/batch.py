"""Many scenes, one after the other: the workers are started once, one failure stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hsiclust.datafile import data_file, files_of
from hsiclust.devices import resolve_device
from hsiclust.engine import Engine, opened
from hsiclust.errors import (
    ClusterError,
    HsiclustError,
    InputError,
    OutputBusyError,
    OutputExistsError,
    StoppedError,
    UsageError,
)
from hsiclust.labelmodel import open_model
from hsiclust.legend import describe_map, is_map_of
from hsiclust.modelfile import file_digest
from hsiclust.prediction import Prediction, Progress, predict
from hsiclust.prediction_plan import PredictPlan, map_paths, plan_prediction
from hsiclust.predictoptions import PredictOptions, placed
from hsiclust.remote import is_remote, spelled
from hsiclust.shards import LabelledShard, Shard, label_shard, merge
from hsiclust.sources import open_source

Done = Prediction | LabelledShard
Work = Callable[[str, PredictPlan], Done | PredictPlan]
Part = Shard | Literal["merge"] | None
Watch = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Outcome:
    """What became of a scene.

    Attributes:
        scene: The scene.
        output: Its map.
        done: What was done, or would be; None where its map was finished before, or it failed.
        error: Why it failed.
    """

    scene: str
    output: Path
    done: Done | PredictPlan | None = None
    error: Exception | None = None

    @property
    def status(self) -> str:
        """In a word."""
        if self.error is not None:
            return "failed"
        if isinstance(self.done, PredictPlan):
            return "planned"
        return "finished before" if self.done is None else "done"


def predict_scenes(
    scenes: Sequence[tuple[str, Path]],
    model: str | Path,
    options: PredictOptions,
    watch: Watch,
    part: Part = None,
) -> Iterator[Outcome]:
    """Label scenes, or the same part of each, or write the maps of labelled parts.

    A map that is there is left as it is when this model made it of a scene of this name, for the
    same pixels; so the run can be started again after any kind of end.

    Args:
        scenes: Each scene with its map.
        model: The model file.
        options: How.
        watch: Opened for each scene that is labelled, with its name; gives what is called with
            tiles done and tiles in all.
        part: Label this shard of each, and write no map; or merge the shards of each.

    Yields:
        What became of each, in their order.

    Raises:
        ModelError: The model cannot be used.
        DeviceError: The device is not there.
        UsageError: The standing scheduler does not answer, or a map would replace a scene.
        ClusterError: The scheduler or all workers went away.
        StoppedError: The run was asked to stop.
    """
    model = Path(model)
    refuse_scenes(scenes, options)
    open_model(model)  # what would fail for each fails once, before the work
    options = placed(options)
    with ExitStack() as stack:
        engine: Engine | None = None

        def label(scene: str, plan: PredictPlan) -> Done:
            nonlocal engine
            if engine is None and part != "merge":
                engine = stack.enter_context(opened(options.engine))
            with watch(scene) as progress:
                return predict_scene(plan, options, part, progress, engine)

        yield from _outcomes(scenes, model, options, label)


def plan_scenes(
    scenes: Sequence[tuple[str, Path]], model: str | Path, options: PredictOptions
) -> Iterator[Outcome]:
    """What `predict_scenes` would do with each, and nothing done; arguments and errors as there."""
    refuse_scenes(scenes, options)
    open_model(Path(model))
    yield from _outcomes(scenes, Path(model), options, lambda _, plan: plan)


def _outcomes(
    scenes: Sequence[tuple[str, Path]], model: Path, options: PredictOptions, work: Work
) -> Iterator[Outcome]:
    """What became of each scene by `work`; one failure stops no other."""
    for scene, output in scenes:
        try:
            try:
                done = work(scene, plan_prediction(scene, model, output, options))
            except OutputBusyError:
                raise
            except OutputExistsError:
                if not _is_finished(scene, output, model, options):
                    raise
                yield Outcome(scene, output)
                continue
            yield Outcome(scene, output, done)
        except (StoppedError, ClusterError):
            raise
        except (HsiclustError, OSError, MemoryError) as error:
            yield Outcome(scene, output, error=error)


def refuse_scenes(scenes: Sequence[tuple[str, Path]], options: PredictOptions) -> None:
    """Check that no map would replace a scene of the same run.

    Args:
        scenes: Each scene with its map.
        options: How they are labelled; what is there is replaced with `overwrite` alone.

    Raises:
        UsageError: One would.
    """
    if not options.overwrite:
        return
    owners = {_file(name): scene for scene, _ in scenes for name in _files_of(scene)}
    for scene, output in scenes:
        for path in map_paths(output, options.confidence):
            if (found := _file(path)) is not None and found in owners:
                raise UsageError(
                    f"{path}: is what the work starts from: the map of {scene} would replace "
                    f"{owners[found]}; name another output"
                )


def _files_of(scene: str) -> list[str | Path]:
    """The files on this machine that a scene is read from."""
    if is_remote(spelled(scene)):
        return []
    with suppress(InputError):  # said when its turn comes
        return files_of(data_file(scene))
    return []


def _file(path: str | Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its name; None where it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def predict_scene(
    plan: PredictPlan,
    options: PredictOptions,
    part: Part = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
    finishing: Callable[[], None] | None = None,
) -> Done:
    """Label a scene or a shard of it, or merge its shards.

    Arguments as of `predict_scenes` and `predict`.
    """
    if part == "merge":
        return merge(plan, options, finishing)
    if part is None:
        return predict(plan, options, progress, engine, finishing)
    return label_shard(plan, options, part, progress, engine)


def _is_finished(scene: str, output: Path, model: Path, options: PredictOptions) -> bool:
    """Whether a map is what this run would make, as far as it says itself."""
    if not all(path.exists() for path in map_paths(output, options.confidence)):
        return False
    if not is_map_of(output, scene, file_digest(model)):
        return False
    facts = describe_map(output) or {}
    grid = open_source(scene, options.nodata, open_model(model), resolve_device("cpu")).grid
    if options.bounds is not None:
        grid = grid.crop(grid.window_of_bounds(*options.bounds))
    return (facts["rows"], facts["cols"]) == (grid.rows, grid.cols) and facts[
        "transform_gdal"
    ] == list(grid.transform.to_gdal())
