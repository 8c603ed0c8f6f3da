import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import Killed, fields_cube, killed_after, write_raster
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hsiclust import console
from hsiclust.api import predict
from hsiclust.cli import app
from hsiclust.engine import EngineOptions
from hsiclust.errors import (
    HsiclustError,
    MemoryPlanError,
    OutputBusyError,
    OutputExistsError,
    UsageError,
)
from hsiclust.labels import LabelStore
from hsiclust.output import locked
from hsiclust.prediction import new_store
from hsiclust.prediction_plan import PredictPlan, plan_prediction
from hsiclust.predictoptions import PredictOptions
from hsiclust.shards import Shard, label_shard, merge
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

HERE = PredictOptions(device="cpu", tile=16, engine=EngineOptions(threads=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 4 strips, a model and the map of an undisturbed run."""
    place = tmp_path_factory.mktemp("shards")
    scene = write_raster(place / "scene.tif", fields_cube()[0])
    model = place / "model.safetensors"
    train([str(scene)], model, TrainOptions(method="kmeans", classes=4, steps=9))
    predict(str(scene), model, place / "whole.tif", HERE)
    return place


def planned(folder: Path, output: Path, options: PredictOptions = HERE) -> PredictPlan:
    return plan_prediction(str(folder / "scene.tif"), folder / "model.safetensors", output, options)


@given(total=st.integers(0, 200), count=st.integers(1, 50))
def test_shards_are_all_strips_once(total: int, count: int) -> None:
    parts = [Shard(number, count).strips(total) for number in range(1, count + 1)]
    assert [strip for part in parts for strip in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/4", "1.0/4", "a/b"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="not i/n"):
        Shard.parse(text)
    assert str(Shard.parse("3/8")) == "3/8"


def test_shards_and_their_merge_give_the_map_of_one_run(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.tif"
    with pytest.raises(HsiclustError, match="no shard of this scene and model was started"):
        merge(planned(folder, output), HERE)
    for text in ("3/3", "1/3"):
        done = label_shard(planned(folder, output), HERE, Shard.parse(text))
        assert (done.resumed, done.shard, Path(done.store).name) == (
            0,
            text,
            ".map.tif.labels.zarr",
        )
        assert done.tiles == 5 * done.strips
    with pytest.raises(HsiclustError, match=r"1 of 4 strips .*: start again shards 2 of 3"):
        merge(planned(folder, output), HERE)
    label_shard(planned(folder, output), HERE, Shard(2, 3))
    # without the tile size that its shards were given
    result = merge(planned(folder, output, replace(HERE, tile=None)), HERE)
    assert result.tiles == 20
    assert output.read_bytes() == (folder / "whole.tif").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_merge_needs_no_memory_for_strips(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, output = folder / "scene.tif", tmp_path / "map.tif"
    label_shard(planned(folder, output), HERE, Shard(1, 1))
    monkeypatch.setattr("hsiclust.plan.total_memory", lambda: 600 * 2**20)  # half of a job's
    with pytest.raises(MemoryPlanError, match="300 MiB are too little"):
        planned(folder, output)
    words = ["merge", str(scene), "-m", str(folder / "model.safetensors"), "-o", str(output)]
    monkeypatch.setattr(console, "log_to_stderr", lambda quiet, verbose: None)
    done = CliRunner().invoke(app, [*words, "-q"])
    assert (done.exit_code, done.stdout) == (0, f"{output}\n")
    assert output.read_bytes() == (folder / "whole.tif").read_bytes()


def test_a_killed_shard_goes_on(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.tif"
    with pytest.raises(Killed):
        label_shard(planned(folder, output), HERE, Shard(1, 2), killed_after(5))
    with pytest.raises(
        HsiclustError, match=r"[23] of 4 strips .*: start again shards (1 to )?2 of 2"
    ):
        merge(planned(folder, output), HERE)
    done = label_shard(planned(folder, output), HERE, Shard(1, 2))
    assert 5 <= done.resumed <= 10
    # shards of another number, and more of them than strips
    for number in range(1, 8):
        label_shard(planned(folder, output), HERE, Shard(number, 7))
    merge(planned(folder, output), HERE)
    assert output.read_bytes() == (folder / "whole.tif").read_bytes()


def test_missing_strips_of_shards_that_do_not_agree(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.tif"
    for text in ("1/2", "4/4"):
        label_shard(planned(folder, output), HERE, Shard.parse(text))
    with pytest.raises(HsiclustError, match=r"1 of 4 strips are not labelled yet: 2; start"):
        merge(planned(folder, output), HERE)


def test_who_may_work_beside_a_shard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsiclust.shards._PATIENCE", 0.2)
    output = tmp_path / "map.tif"
    plan = planned(folder, output)
    refused = []

    def meanwhile(done: int, tiles: int) -> None:
        label_shard(plan, HERE, Shard(2, 2))  # another shard may
        for task in (
            lambda: label_shard(plan, HERE, Shard(1, 2)),
            lambda: merge(plan, HERE),
            lambda: predict(str(folder / "scene.tif"), folder / "model.safetensors", output, HERE),
        ):
            with pytest.raises(OutputBusyError, match="another run is writing it"):
                task()
            refused.append(task)
        with pytest.raises(OutputBusyError, match=r"map\.tif: .* its shard 1/2; wait for it"):
            label_shard(plan, HERE, Shard(1, 2))

    label_shard(plan, HERE, Shard(1, 2), meanwhile)
    assert len(refused) >= 3
    with locked(output), pytest.raises(OutputBusyError):  # nor a shard beside a whole run
        label_shard(plan, HERE, Shard(1, 2))
    merge(plan, HERE)
    assert not list(tmp_path.glob(".*"))


def test_a_shard_at_work_keeps_its_store_before_its_first_tile(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsiclust.shards._PATIENCE", 0.2)
    output, sure = tmp_path / "map.tif", replace(HERE, confidence=True)
    plan, other = planned(folder, output), planned(folder, output, sure)

    def meanwhile(*_: object) -> NoReturn:
        assert len(new_store(plan).missing()) == 20
        with pytest.raises(OutputBusyError):
            label_shard(other, sure, Shard(1, 2))
        raise Killed

    with monkeypatch.context() as begun:
        begun.setattr("hsiclust.shards.label_strips", meanwhile)
        with pytest.raises(Killed):
            label_shard(plan, HERE, Shard(1, 2))
    assert LabelStore.record_of_run(plan.job.labels, plan.job.run) is not None
    assert label_shard(other, sure, Shard(1, 2)).tiles == 10


def test_shards_take_over_how_the_first_one_cut_the_scene(folder: Path, tmp_path: Path) -> None:
    """Two that plan before either has made the store, on machines of unlike memory."""
    output = tmp_path / "map.tif"
    free = replace(HERE, tile=None)
    first, other = planned(folder, output), planned(folder, output, free)
    assert first.job.reading != other.job.reading
    label_shard(first, HERE, Shard(1, 2))
    assert label_shard(other, free, Shard(2, 2)).tiles == 10
    merge(other, free)
    assert output.read_bytes() == (folder / "whole.tif").read_bytes()


def test_shards_of_something_else(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.tif"
    label_shard(planned(folder, output), HERE, Shard(1, 2))
    wide = replace(HERE, tile=32)
    plan = planned(folder, output, wide)
    with pytest.raises(OutputExistsError, match="tiles of 16 rows"):
        label_shard(plan, wide, Shard(2, 2))
    sure = replace(HERE, confidence=True)
    plan = planned(folder, output, sure)
    with pytest.raises(OutputExistsError, match="unfinished run"):
        label_shard(plan, sure, Shard(1, 2))
    sure = replace(sure, overwrite=True)
    assert label_shard(planned(folder, output, sure), sure, Shard(1, 2)).resumed == 0


def _make(path: Path, plan: PredictPlan, number: int) -> None:
    reading = plan.job.reading if number % 2 else replace(plan.job.reading, height=10 + number)
    LabelStore(path, reading)._create_whole("a run")


def test_a_store_is_made_once_by_many(folder: Path, tmp_path: Path) -> None:
    """The names of all that lost are gone, and what is there is whole."""
    path = tmp_path / "store.zarr"
    plan = planned(folder, tmp_path / "map.tif")
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=_make, args=(path, plan, number)) for number in range(6)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0] * 6
    assert [file.name for file in tmp_path.iterdir()] == ["store.zarr"]
    record = LabelStore.record_of_run(path, "a run")
    assert record is not None
    assert len(LabelStore(path, record.reading).missing()) == 20


def test_shards_that_start_at_the_same_moment(folder: Path, tmp_path: Path) -> None:
    """The real command, twice at once."""
    command = [sys.executable, "-m", "hsiclust"]
    common = [folder / "scene.tif", "-m", folder / "model.safetensors", "-o", tmp_path / "map.tif"]
    common += ["--tile-size", "16", "-q", "--json"]
    shards = [
        subprocess.Popen([*command, "predict", *common, "--shard", f"{i}/2"], stdout=-1)
        for i in (1, 2)
    ]
    results = [json.loads(shard.communicate(timeout=100)[0]) for shard in shards]
    assert [result["tiles"] for result in results] == [10] * 2
    merged = subprocess.run([*command, "merge", *common], stdout=-1, timeout=100, check=True)
    assert json.loads(merged.stdout)["map"] == str(tmp_path / "map.tif")
    assert (tmp_path / "map.tif").read_bytes() == (folder / "whole.tif").read_bytes()


def test_shards_beyond_number_are_named_at_once() -> None:
    """The missing ones follow from the strips: nobody counts to a thousand million."""
    for total, count in ((10, 3), (3, 10), (7, 7), (5, 10**9)):
        for strip in range(total):
            number = -(-(strip + 1) * count // total)
            assert strip in Shard(number, count).strips(total)
