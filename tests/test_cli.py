"""The real command in a process of its own: output, exit codes, what is left behind."""

import ast
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from conftest import fields_cube, write_raster
from forked import run_forked
from safetensors import safe_open
from safetensors.torch import save_file

from hsiclust import console
from hsiclust.tensorfile import DIGEST

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "hsiclust"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `hsiclust ...` in a folder of its own."""

    def command(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_forked([*map(str, arguments)], tmp_path, timeout=200)
        assert done.returncode == code, done.stderr
        return done

    return command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scene.tif, truth.tif and model.safetensors."""
    folder = tmp_path_factory.mktemp("trained")
    cube, truth = fields_cube()
    write_raster(folder / "scene.tif", cube, nodata=-9999)
    write_raster(folder / "truth.tif", truth[None], nodata=0)
    subprocess.run(
        [*COMMAND, "train", "scene.tif", "--method", "kmeans", "-k", "4", "--steps", "9", "-q"],
        cwd=folder,
        check=True,
        timeout=200,
    )
    return folder


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The message of an expected failure: one line, nothing on standard output."""
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    "words",
    [
        "info {}",
        "train {}",
        "train scene.tif --mask {}",
        "tile {} a.zarr",
        "predict {}",
        "evaluate {} scene.tif",
        "report {} -o a.png",
    ],
)
def test_names_that_no_scene_can_have(trained: Path, run: Run, words: str) -> None:
    name = "<VRTDataset>" + "a/" * 3000
    paths = {"scene.tif": trained / "scene.tif"}
    given = [paths.get(word, word.format(name)) for word in words.split()]
    options = ["-m", trained / "model.safetensors"] if given[0] == "predict" else []
    line = one_line(run(*given, *options, code=3))
    assert line.startswith(f"hsiclust: {name[:80]}...: a name of ")
    assert len(line) < 150


@pytest.mark.parametrize(
    "words",
    [
        "evaluate {}.tif truth.tif",
        "evaluate truth.tif {}.tif",
        "evaluate truth.tif {}.gpkg",
        "evaluate truth.tif truth.tif --confidence {}.tif",
        "report {}.tif",
        "report truth.tif -o a.png --truth {}.tif",
        "train scene.tif --labels {}.gpkg",
        "train scene.tif --mask {}.geojson",
        "train scene.tif --mask {}.tif",
    ],
)
def test_urls_of_what_is_read_from_disk(trained: Path, run: Run, words: str) -> None:
    paths = {name: trained / name for name in ("scene.tif", "truth.tif")}
    given = [paths.get(word, word.format("s3://bucket/map")) for word in words.split()]
    name = next(word for word in words.split() if "{}" in word).format("s3://bucket/map")
    said = one_line(run(*given, code=3))
    assert said == f"hsiclust: {name}: is read from disk alone; copy it there first"


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        ("predict", ".tif"),
        ("predict --of ENVI", ".img"),
        ("train --method kmeans", ""),
        ("tile", ".zarr"),
        ("export", ".onnx"),
        ("report", ".png"),
    ],
)
@pytest.mark.parametrize("length", [245, 5000])
def test_names_that_no_output_can_have(
    trained: Path, run: Run, words: str, suffix: str, length: int
) -> None:
    verb, *options = words.split()
    name = "a" * (length - len(suffix)) + suffix
    given = trained / ("model.safetensors" if verb == "export" else "scene.tif")
    output = [name] if verb in ("tile", "export") else ["-o", name]
    model = ["-m", trained / "model.safetensors"] if verb == "predict" else []
    line = one_line(run(verb, given, *output, *options, *model, code=2))
    assert line.startswith(f"hsiclust: {name[:80]}...: a name of {length} bytes, which")


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    script = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "sys.argv = ['hsiclust', '--help']\n"
        "from hsiclust.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'rasterio', 'dask', 'distributed', 'zarr', 'numpy', 'scipy'}\n"
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.split(maxsplit=1) == ["0", "[]\n"]
    for verb in ("train", "predict", "tile", "evaluate", "info", "report", "demo"):
        assert f"  {verb} " in done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, hsiclust\n"
        "assert not {'torch', 'rasterio', 'dask', 'numpy'} & set(sys.modules)\n"
        "assert callable(hsiclust.train) and callable(hsiclust.predict)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("module", ["__init__", "api"])
def test_a_type_checker_finds_names_that_the_package_does_not_have(module: str) -> None:
    """It takes every name for one of a module that has this function."""
    source = Path(console.__file__).with_name(f"{module}.py").read_text("utf-8")
    names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert "__getattr__" not in names
    assert "def __getattr__" in source


def test_labelling_does_without_what_only_training_needs() -> None:
    script = (
        "import sys, hsiclust.prediction\n"
        "print(sorted({'scipy', 'sklearn', 'onnxruntime', 'pyogrio'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_version(run: Run) -> None:
    assert run("--version").stdout.strip() == "0.1.0"


def test_the_whole_way_without_options(run: Run, tmp_path: Path) -> None:
    cube, truth = fields_cube(40, 40)
    write_raster(tmp_path / "scene.tif", cube)
    write_raster(tmp_path / "truth.tif", truth[None], nodata=0)
    trained = run("train", "scene.tif", "--steps", "5")
    assert trained.stdout == "model.safetensors\n"
    predicted = run("predict", "scene.tif")
    assert predicted.stdout == "scene_labels.tif\n"
    scores = json.loads(run("evaluate", "scene_labels.tif", "truth.tif", "--json").stdout)
    assert 0 <= scores["nmi"] <= 1
    assert scores["pixels"] == 40 * 40
    text = run("evaluate", "scene_labels.tif", "truth.tif").stdout
    assert f"{scores['accuracy']:.4f}" in text


def test_results_on_stdout_and_the_rest_on_stderr(run: Run, trained: Path, tmp_path: Path) -> None:
    done = run("predict", trained / "scene.tif", "-m", trained / "model.safetensors", "--json")
    result = json.loads(done.stdout)
    assert result["map"] == "scene_labels.tif"
    assert result["labelled"] == result["pixels"] == 60 * 70
    assert "Mpixel/s" in done.stderr
    quiet = run(
        "predict",
        trained / "scene.tif",
        "-m",
        trained / "model.safetensors",
        "-o",
        "b.tif",
        "--confidence",
        "-q",
    )
    assert quiet.stderr == ""
    assert quiet.stdout == "b.tif\n"
    with rasterio.open(tmp_path / "b_confidence.tif") as dataset:
        assert dataset.read(1).max() <= 100


def test_a_good_map_scores_well(run: Run, trained: Path) -> None:
    run("predict", trained / "scene.tif", "-m", trained / "model.safetensors", "-q")
    done = run("evaluate", "scene_labels.tif", trained / "truth.tif", "--json")
    scores = json.loads(done.stdout)
    assert scores["accuracy"] > 0.85
    assert scores["nmi"] > 0.6


def test_maps_of_classes_are_scored_as_they_are(run: Run, trained: Path, tmp_path: Path) -> None:
    _, truth = fields_cube()
    tag = {"HSICLUST_LABELS": "classes"}
    with rasterio.open(write_raster(tmp_path / "map.tif", 5 - truth[None]), "r+") as dataset:
        dataset.update_tags(**tag)
    write_raster(tmp_path / "sure.tif", np.full_like(truth, 80)[None])
    arguments = ["evaluate", "map.tif", trained / "truth.tif"]
    done = run(*arguments, "--confidence", "sure.tif", "--json")
    scores = json.loads(done.stdout)
    assert (scores["labels"], scores["accuracy"], scores["calibration"]["ece"]) == (
        "classes",
        0,
        0.8,
    )
    assert "accuracy (OA)      0.0000" in run(*arguments).stdout
    assert "accuracy (ACC)     1.0000" in run(*arguments, "--match").stdout
    run("report", "map.tif", "--truth", trained / "truth.tif", "--no-match", "-o", "a.png")
    run("report", "map.tif", "--truth", trained / "truth.tif", "-o", "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_worker_processes_give_the_same_bytes(run: Run, trained: Path, tmp_path: Path) -> None:
    arguments = ["predict", trained / "scene.tif", "-m", trained / "model.safetensors", "-q"]
    run(*arguments, "--tile-size", 16, "-o", "a.tif")
    run(*arguments, "--tile-size", 16, "-o", "b.tif", "-j", 2)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_dry_run_does_nothing(run: Run, trained: Path, tmp_path: Path) -> None:
    arguments = ["predict", trained / "scene.tif", "-m", trained / "model.safetensors"]
    plan = json.loads(run(*arguments, "--dry-run", "--json", "--tile-size", 20).stdout)
    assert plan["tiles"] == 12
    assert plan["bytes_peak"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_many_scenes_goes_on_after_a_bad_one(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        write_raster(tmp_path / f"{name}.tif", fields_cube(30, 30)[0])
    common = ["-m", trained / "model.safetensors", "-o", "maps/", "--json"]
    run("predict", "a.tif", *common)
    (tmp_path / "b.tif").write_bytes(b"nothing")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").iterdir()}
    done = run("predict", "a.tif", "b.tif", "c.tif", *common, "--dry-run", code=1)
    plans = [json.loads(line) for line in done.stdout.splitlines()]
    found = [(plan["scene"], plan["status"]) for plan in plans]
    assert found == [("a.tif", "finished before"), ("b.tif", "failed"), ("c.tif", "planned")]
    assert plans[2]["tiles"] == 1
    assert done.stderr.splitlines()[-2] == "1 of 3 scenes failed:"
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").iterdir()}
    assert after == before
    plan = json.loads(run("predict", "c.tif", "-", *common, "--dry-run", "--shard", "1/1").stdout)
    assert plan["shard"] == "1/1"


@pytest.mark.parametrize("words", [["a.tif"], ["a.tif", "b.tif"]])
def test_a_run_that_cannot_begin_leaves_no_folder(
    run: Run, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    for name in words:
        write_raster(tmp_path / name, fields_cube(30, 30)[0])
    assert "model.safetensors" in one_line(run("predict", *words, "-o", "maps/", "-q", code=4))
    assert not (tmp_path / "maps").exists()


def test_info_of_everything(run: Run, trained: Path, tmp_path: Path) -> None:
    run("tile", trained / "scene.tif", "s.zarr", "-q")
    run("predict", trained / "scene.tif", "-m", trained / "model.safetensors", "-q")
    expected = {
        trained / "scene.tif": "scene",
        trained / "model.safetensors": "model",
        tmp_path / "s.zarr": "store",
        tmp_path / "scene_labels.tif": "map",
    }
    for path, kind in expected.items():
        facts = json.loads(run("info", path, "--json").stdout)
        assert facts["kind"] == kind
        assert kind in run("info", path).stdout
    assert json.loads(run("info", trained / "scene.tif", "--json").stdout)["nodata"] == -9999


def test_a_name_is_no_markup_for_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with console.progress("a[/b] [red]c", quiet=False) as show:
        show(1, 2, "[/d]")
    shown = capsys.readouterr().err
    assert "a[/b] [red]c" in shown
    assert "[/d]" in shown


def test_no_file_has_a_say_in_what_the_terminal_does(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    odd = "\x1b]0;a\x07\x1b[2J\nsecond \u202e \ud800 \u00e9"
    with safe_open(trained / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["hsiclust"])
    del tensors[DIGEST]
    facts["provenance"] = {odd: [odd]}
    save_file(tensors, tmp_path / "odd.safetensors", {"hsiclust": json.dumps(facts)})
    shown = run("info", "odd.safetensors").stdout
    escaped = r"\x1b]0;a\x07\x1b[2J\nsecond \u202e \ud800 " + "\u00e9"
    assert f"{escaped} [{escaped}]" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert json.loads(run("info", "odd.safetensors", "--json").stdout)["provenance"] == {odd: [odd]}
    said = run("predict", "\x1b[31mnone.tif", "-m", "odd.safetensors", code=3).stderr
    assert said.startswith(r"hsiclust: \x1b[31mnone.tif: ")


def test_a_header_stands_for_its_scene_in_info(run: Run, trained: Path, tmp_path: Path) -> None:
    write_raster(tmp_path / "cube.img", fields_cube()[0], driver="ENVI")
    facts = json.loads(run("info", "cube.hdr", "--json").stdout)
    assert (facts["kind"], facts["bands"]) == ("scene", 12)


def test_report_draws_a_picture(run: Run, trained: Path, tmp_path: Path) -> None:
    run("predict", trained / "scene.tif", "-m", trained / "model.safetensors", "-q")
    done = run(
        "report",
        "scene_labels.tif",
        "--scene",
        trained / "scene.tif",
        "--truth",
        trained / "truth.tif",
    )
    assert done.stdout == "scene_labels.png\n"
    assert (tmp_path / "scene_labels.png").read_bytes()[:4] == b"\x89PNG"
    for folder in ("", "."):
        assert "cannot be opened as a raster" in one_line(run("report", folder, code=3))


def test_refusing_to_overwrite_is_2(run: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "map.tif").write_text("mine")
    arguments = [trained / "scene.tif", "-m", trained / "model.safetensors", "-o", "map.tif"]
    assert "map.tif" in one_line(run("predict", *arguments, code=2))
    assert (tmp_path / "map.tif").read_text() == "mine"
    (tmp_path / "model.safetensors").write_text("mine")
    assert "--overwrite" in one_line(run("train", trained / "scene.tif", code=2))


@pytest.mark.parametrize(
    "wrong",
    [
        ["--memory", "4apples"],
        ["--memory", "10MiB"],
        ["--bounds", "1,2,3"],
        ["--bounds", "1,2,3,4"],
        ["--device", "gpu"],
        ["--co", "COMPRESS"],
        ["-o", "map.png"],
        ["-o", "no/such/folder/map.tif"],
    ],
)
def test_usage_is_2(run: Run, trained: Path, tmp_path: Path, wrong: list[str]) -> None:
    model = trained / "model.safetensors"
    one_line(run("predict", trained / "scene.tif", "-m", model, *wrong, code=2))
    assert list(tmp_path.iterdir()) == []


def test_parts_of_sscc_that_do_not_go_together_are_2(run: Run, trained: Path) -> None:
    scene = trained / "scene.tif"
    assert "nothing can be learned" in one_line(
        run("train", scene, "--no-teacher", "--no-contrast", code=2)
    )
    assert "recipe" in one_line(run("train", scene, "--recipe", "paper", "--no-teacher", code=2))
    run("train", scene, "--recipe", "large", code=2)
    run("train", scene, "--encoder", "original", code=2)


def test_the_diffusion_model_is_asked_for(run: Run, trained: Path) -> None:
    """Given either way the option is heard: a method without one refuses it."""
    for option in ("--diffusion", "--no-diffusion"):
        done = run("train", trained / "scene.tif", "--method", "kmeans", option, code=2)
        assert "--diffusion belongs to contrastdm" in one_line(done)


def test_the_choices_of_a_training_are_printed(run: Run, trained: Path) -> None:
    common = ["train", trained / "scene.tif", "-k", 4, "--steps", 1, "--json", "-q"]
    taught = json.loads(run(*common, "--no-contrast", "-o", "a").stdout)
    assert taught["choices"]["partitions"] == 32
    assert [stage["name"] for stage in taught["stages"]][:3] == ["transform", "staging", "teacher"]
    contrasted = json.loads(run(*common, "--no-teacher", "-o", "b").stdout)
    assert contrasted["choices"] == {}


def test_unknown_options_are_2(run: Run) -> None:
    run("predict", "scene.tif", "--colour", "red", code=2)
    run("train", code=2)


def test_input_that_cannot_be_used_is_3(run: Run, trained: Path, tmp_path: Path) -> None:
    model = trained / "model.safetensors"
    assert "none.tif: no such file" in one_line(run("predict", "none.tif", "-m", model, code=3))
    (tmp_path / "broken.tif").write_bytes(b"II*\0 not a tiff at all")
    assert "broken.tif" in one_line(run("predict", "broken.tif", "-m", model, code=3))
    assert "broken.tif" in one_line(run("info", "broken.tif", code=3))
    assert "broken.tif" in one_line(run("train", "broken.tif", code=3))
    write_raster(tmp_path / "cut.img", fields_cube()[0], driver="ENVI")
    whole = 12 * 60 * 70 * 2
    os.truncate(tmp_path / "cut.img", whole - 1)
    message = one_line(run("predict", "cut.img", "-m", model, code=3))
    assert f"{whole - 1} bytes" in message
    assert f"{whole}" in message
    assert not list(tmp_path.glob("*labels*"))


# Runs many command lines in one process: torch is imported once.
_EACH = """
import contextlib, io, json, sys
from hsiclust.cli import main
for line in json.load(sys.stdin):
    sys.argv, told = ["hsiclust", *line], io.StringIO()
    with contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, told.getvalue()]))
"""


def test_labels_that_cannot_be_used(trained: Path, tmp_path: Path) -> None:
    wrong = [
        (["--labels", "none.tif"], 3, "none.tif: no such file"),
        (["--labels", "none.gpkg"], 3, "none.gpkg: no such file"),
        (["--labels", "fields.geojson", "--field", "plant"], 3, "plant"),
        (["--per-class", "5"], 2, "--per-class says how to use --labels"),
        (["--method", "svm"], 2, "--labels"),
        (["--labels", "truth.tif", "--classes", "4"], 2, "--classes belongs to sscc, kmeans"),
        (["--method", "kmeans", "--no-diffusion"], 2, "--diffusion belongs to contrastdm"),
        (["--labels", "truth.tif", "--method", "kmeans"], 2, "--labels belongs to"),
        (["--labels", "scene.tif"], 3, "scene.tif"),
    ]
    ring = [[400000, 5800000], [400900, 5800000], [400900, 5799100], [400000, 5800000]]
    feature = {
        "type": "Feature",
        "properties": {"crop": "oats"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    (tmp_path / "fields.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    )
    for name in ("scene.tif", "truth.tif"):
        (tmp_path / name).symlink_to(trained / name)
    before = set(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", _EACH],
        input=json.dumps([["train", "scene.tif", *given] for given, _, _ in wrong]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (given, code, said), (own, told) in zip(wrong, found, strict=True):
        assert (own, len(told.splitlines())) == (code, 1), (given, told)
        assert said in told
    assert set(tmp_path.iterdir()) == before


def test_the_whole_way_with_labels(run: Run, trained: Path, tmp_path: Path) -> None:
    arguments = ["--labels", trained / "truth.tif", "--per-class", 10, "--method", "svm"]
    done = run("train", trained / "scene.tif", *arguments, "--json")
    result = json.loads(done.stdout)
    assert result["split"] == ["model_training.tif", "model_held_out.tif"]
    assert "of 4 classes in use" in done.stderr
    assert "hsiclust evaluate MAP model_held_out.tif" in done.stderr
    run("predict", trained / "scene.tif", "-q")
    scores = json.loads(run("evaluate", "scene_labels.tif", "model_held_out.tif", "--json").stdout)
    assert scores["labels"] == "classes"
    assert result["held_out"]["accuracy"]["accuracy"] == scores["accuracy"]
    assert f"on {scores['pixels']} held-out pixels: OA {scores['accuracy']:.4f}" in done.stderr


def test_each_scene_is_scored_on_its_own_labels(run: Run, trained: Path) -> None:
    scenes = [trained / "scene.tif", trained / "scene.tif"]
    labels = ["--labels", trained / "truth.tif", "--per-class", 10, "--method", "svm"]
    told = run("train", *scenes, *labels, "-o", "m").stderr.splitlines()
    assert [line for line in told if "evaluate MAP" in line] == [
        f"score its maps of scene {n} with: hsiclust evaluate MAP m_{n}_held_out.tif"
        for n in (1, 2)
    ]


def test_what_may_not_be_read_is_3() -> None:
    """Whether an output may be written is asked before anything is done."""
    error = PermissionError(errno.EACCES, "Permission denied", "scene.tif")
    assert console.exit_code(error) == 3
    assert console.one_line(error) == "scene.tif: Permission denied"


def test_a_model_that_cannot_be_used_is_4(run: Run, trained: Path, tmp_path: Path) -> None:
    scene = trained / "scene.tif"
    assert "none.safetensors" in one_line(run("predict", scene, "-m", "none.safetensors", code=4))
    whole = (trained / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-50])
    assert "cut.safetensors" in one_line(run("predict", scene, "-m", "cut.safetensors", code=4))
    write_raster(tmp_path / "other.tif", fields_cube(bands=5)[0])
    message = one_line(run("predict", "other.tif", "-m", trained / "model.safetensors", code=4))
    assert "5 bands" in message
    assert "12" in message


def test_a_device_that_is_not_there_is_5(run: Run, trained: Path) -> None:
    arguments = [trained / "scene.tif", "-m", trained / "model.safetensors"]
    assert "cuda:77" in one_line(run("predict", *arguments, "--device", "cuda:77", code=5))


def test_debug_shows_the_traceback(run: Run) -> None:
    assert "Traceback" in run("--debug", "info", "none.tif", code=1).stderr


def test_a_training_takes_lists_of_scenes(run: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# of July\n{trained / 'scene.tif'}\n")
    common = ("--method", "kmeans", "-k", "4", "--steps", "9", "-q", "-o")
    run("train", "@list.txt", *common, "listed.safetensors")
    subprocess.run(
        [*COMMAND, "train", "-", *common, "piped.safetensors"],
        cwd=tmp_path,
        input=f"{trained / 'scene.tif'}\n",
        text=True,
        check=True,
        timeout=100,
    )
    expected = (trained / "model.safetensors").read_bytes()
    for name in ("listed", "piped"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == expected
    message = one_line(run("train", "@none.txt", code=3))
    assert "none.txt: No such file" in message
    (tmp_path / "empty.txt").touch()
    assert "the list is empty" in one_line(run("train", "@empty.txt", code=2))


def test_many_scenes_one_of_which_fails(run: Run, trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_raster(tmp_path / f"{name}.tif", fields_cube(30, 30, seed=ord(name))[0])
    (tmp_path / "bad.tif").write_bytes(b"nothing")
    (tmp_path / "list.txt").write_text("# scenes\na.tif\n\nbad.tif\n")
    common = ["-m", trained / "model.safetensors", "-o", "maps/"]
    done = run("predict", "@list.txt", "b.tif", *common, "-q", code=1)
    assert done.stdout.split() == ["maps/a_labels.tif", "maps/b_labels.tif"]
    said = done.stderr.splitlines()
    assert said[0].startswith("hsiclust: bad.tif: ")
    assert said[1:] == ["1 of 3 scenes failed:", "  " + said[0].removeprefix("hsiclust: ")]
    first = (tmp_path / "maps" / "a_labels.tif").read_bytes()

    # again, with the bad one mended and a map of another model among the finished ones
    write_raster(tmp_path / "bad.tif", fields_cube(30, 30)[0])
    run("train", "a.tif", "--method", "kmeans", "-k", 3, "--steps", 5, "-q", "-o", "other")
    run("predict", "b.tif", "-m", "other", "-o", "maps/b_labels.tif", "--overwrite", "-q")
    done = run("predict", "@list.txt", "b.tif", *common, "--json", code=1)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    found = [(result["scene"], result["status"]) for result in results]
    assert found == [("a.tif", "finished before"), ("bad.tif", "done"), ("b.tif", "failed")]
    assert results[1]["map"] == "maps/bad_labels.tif"
    assert "--overwrite" in results[2]["error"]
    assert (tmp_path / "maps" / "a_labels.tif").read_bytes() == first
    assert run("predict", "@list.txt", "b.tif", *common, "--overwrite", "-q").stderr == ""


@pytest.mark.parametrize("words", [[], ["--dry-run"], ["--confidence"]])
@pytest.mark.parametrize("vrt", [False, True])
def test_the_map_of_one_scene_does_not_replace_another(
    run: Run, trained: Path, tmp_path: Path, words: list[str], vrt: bool
) -> None:
    confidence = "--confidence" in words
    victim = tmp_path / ("a_labels_confidence.tif" if confidence else "a_labels.tif")
    write_raster(tmp_path / "a.tif", fields_cube(30, 30, seed=1)[0])
    write_raster(victim, fields_cube(30, 30, seed=2)[0])
    rasterio.shutil.copy(victim, tmp_path / "v.vrt", driver="VRT")
    named = "v.vrt" if vrt else victim.name
    before = victim.read_bytes()
    common = ["a.tif", named, "-m", trained / "model.safetensors", "-q", *words]
    message = one_line(run("predict", *common, "--overwrite", code=2))
    assert message.startswith(f"hsiclust: {victim.name}: is what the work starts from")
    assert message.endswith(f"{named}; name another output")
    assert victim.read_bytes() == before
    assert not (tmp_path / "v_labels.tif").exists()


def test_maps_of_earlier_runs_among_the_scenes_fail_alone(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    write_raster(tmp_path / "a.tif", fields_cube(30, 30, seed=1)[0])
    common = ["-m", trained / "model.safetensors", "-q"]
    run("predict", "a.tif", *common)
    done = run("predict", "a.tif", "a_labels.tif", *common, code=1)
    assert "1 of 2 scenes failed" in done.stderr
    assert not (tmp_path / "a_labels_labels.tif").exists()


def test_a_list_that_names_one_scene_keeps_no_code_of_its_own(run: Run, trained: Path) -> None:
    model = trained / "model.safetensors"
    assert "none.tif" in one_line(run("predict", "none.tif", "-m", model, "-o", "m/", code=3))
    assert "x/a.tif" in one_line(run("predict", "a.tif", "x/a.tif", "-m", model, code=2))
    assert "none.safe" in one_line(run("predict", "a.tif", "b.tif", "-m", "none.safe", code=4))
    assert "cuda:7" in one_line(
        run("predict", "a.tif", "b.tif", "-m", model, "--device", "cuda:7", code=5)
    )


@pytest.mark.parametrize("verb", ["predict", "train", "tile"])
def test_a_scheduler_file_that_is_not_there_is_2(run: Run, trained: Path, verb: str) -> None:
    words = {"predict": ["-m", trained / "model.safetensors"], "train": [], "tile": ["s.zarr"]}
    message = one_line(
        run(verb, trained / "scene.tif", *words[verb], "-q", "--scheduler-file", "s.json", code=2)
    )
    assert message.startswith("hsiclust: s.json: No such file")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A scene that takes some seconds in small tiles."""
    cube, _ = fields_cube(240, 320)
    return write_raster(tmp_path / "large.tif", cube)


def run_changed(
    change: str, words: Sequence[object], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in which a script has changed something before."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            f"{change}from hsiclust.cli import main\nmain()\n",
            *map(str, words),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_files_that_nobody_may_read_are_no_wrong_usage(trained: Path, tmp_path: Path) -> None:
    """What the system says of a file, and not whether it looks readable, is what is told."""
    blind = "import os\nos.access = lambda *_, **__: False\n"
    words = ["evaluate", trained / "truth.tif", trained / "truth.tif", "--json"]
    done = run_changed(blind, words, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


STOPS = [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)]


def started(arguments: list[object], folder: Path, appears: Path) -> subprocess.Popen[str]:
    """Start a command and wait until something it makes is there."""
    # A shell's background job ignores Ctrl-C, and so would what this test starts within one.
    script = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv[0] = 'hsiclust'\n"
        "runpy.run_module('hsiclust', run_name='__main__')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    limit = time.monotonic() + 100
    while not appears.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_stopped_prediction_can_be_resumed(
    run: Run, trained: Path, large: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ["predict", large, "-m", trained / "model.safetensors", "--tile-size", 16]
    labels = tmp_path / ".large_labels.tif.labels.zarr" / "labels" / "c"
    process = started(arguments, tmp_path, labels)
    process.send_signal(number)
    start = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert time.monotonic() - start < 20
    assert "Traceback" not in stderr
    assert not (tmp_path / "large_labels.tif").exists()
    result = json.loads(run(*arguments, "--json").stdout)
    assert result["resumed"] > 0
    run(*arguments, "-o", "whole.tif", "-q")
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "large_labels.tif").read_bytes()
    assert not labels.exists()


def alive(mark: str) -> list[str]:
    """Processes that carry a mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are listed in /proc")
@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_stopped_prediction_leaves_no_worker(
    trained: Path,
    large: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    """The whole group gets the signal, as from a terminal and from a batch system."""
    mark = f"HSICLUST_TEST={tmp_path}"
    monkeypatch.setenv(*mark.split("="))
    words = ["predict", large, "-m", trained / "model.safetensors", "--tile-size", 16, "-j", 2]
    process = started([*words, "-q"], tmp_path, tmp_path / ".large_labels.tif.labels.zarr/labels/c")
    assert len(alive(mark)) > 2
    os.killpg(process.pid, number)
    start = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert time.monotonic() - start < 20
    if number != signal.SIGHUP:  # of which Python's own helpers complain, to whom nobody listens
        assert len(stderr.splitlines()) == (1 if code == 75 else 0), stderr
    limit = time.monotonic() + 10
    while alive(mark) and time.monotonic() < limit:
        time.sleep(0.1)
    assert alive(mark) == []


def test_a_full_disk_while_labelling(run: Run, trained: Path, large: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: flags and small chunks fit, others do not."""
    words = ["predict", large, "-m", trained / "model.safetensors", "--tile-size", 64, "-q"]
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from hsiclust import labels\n"
        "create = labels.LabelStore.open_or_create\n"
        "def limit(*arguments):\n"
        "    create(*arguments)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (60, 600))\n"
        "labels.LabelStore.open_or_create = limit\n"
    )
    done = run_changed(limited, words, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "labels cannot be written: File too large; what is done is kept" in one_line(done)
    assert not (tmp_path / "large_labels.tif").exists()
    run(*words)
    run(*words, "-o", "whole.tif")
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "large_labels.tif").read_bytes()


def test_a_stopped_training_can_be_resumed(run: Run, trained: Path, tmp_path: Path) -> None:
    arguments = ["train", trained / "scene.tif", "--steps", 10_000]
    process = started(arguments, tmp_path, tmp_path / ".model.safetensors.0.tiles.zarr" / "done")
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert not (tmp_path / "model.safetensors").exists()


def test_a_training_heeds_sigterm_behind_its_last_step(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    words = ["train", trained / "scene.tif", "--method", "kmeans", "--steps", "3", "-o", "m", "-q"]
    asked = (
        "import os, signal\n"
        "from hsiclust import training\n"
        "learn, finish = training._learn, training._finish\n"
        "def learned(*arguments):\n"
        "    for step in learn(*arguments):\n"
        "        yield step\n"
        "        print(step.step)\n"
        "def order(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('went on')\n"
        "    return finish(*arguments)\n"
        "training._learn, training._finish = learned, order\n"
    )
    done = run_changed(asked, words, tmp_path)
    assert done.returncode == 75, done.stderr
    assert done.stdout.split() == ["1", "2", "3"]
    assert not (tmp_path / "m").exists()
    assert json.loads(run(*words, "--json").stdout)["steps"] == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m"]


def test_a_training_whose_model_has_its_name_is_done(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    words = ["train", trained / "scene.tif", "--method", "kmeans", "--steps", "3", "-o", "m"]
    asked = (
        "import os, signal\n"
        "from hsiclust import training\n"
        "remove = training.remove\n"
        "def removed(path):\n"
        "    if path.name == '.m.checkpoint':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    remove(path)\n"
        "training.remove = removed\n"
    )
    done = run_changed(asked, words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "m\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m"]


@pytest.mark.parametrize("shards", [False, True])
def test_a_run_whose_map_has_its_name_is_done(
    run: Run, trained: Path, tmp_path: Path, shards: bool
) -> None:
    words = [trained / "scene.tif", "-m", trained / "model.safetensors", "-o", "m.tif"]
    if shards:
        run("predict", *words, "--shard", "1/1", "-q")
    asked = (
        "import os, signal\n"
        "from hsiclust.labels import LabelStore\n"
        "remove = LabelStore.remove\n"
        "def removed(store):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    remove(store)\n"
        "LabelStore.remove = removed\n"
    )
    done = run_changed(asked, ["merge" if shards else "predict", *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "m.tif\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.tif", "m.tif.aux.xml"]


def test_a_full_disk_is_1_and_one_line(run: Run, trained: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    limited = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    )
    done = run_changed(limited, ["train", trained / "scene.tif", "--steps", 2, "-q"], tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model.safetensors").exists()


def test_collapse_is_said_loudly(run: Run, tmp_path: Path) -> None:
    cube = np.full((4, 40, 40), 1000, np.int16)
    cube += np.random.default_rng(0).integers(-2, 3, cube.shape).astype(np.int16)
    write_raster(tmp_path / "flat.tif", cube)
    done = run("train", "flat.tif", "-k", 60, "--steps", 2, "-q")
    assert "WARNING: the clustering collapsed" in done.stderr


def test_match_to_and_mask_and_init(run: Run, trained: Path) -> None:
    scene, truth = trained / "scene.tif", trained / "truth.tif"
    common = ["--method", "kmeans", "-q"]
    run("train", scene, "-k", 4, *common, "--match-to", truth, "--mask", truth, "-o", "a")
    run("predict", scene, "-m", "a", "-o", "a.tif", "-q")
    scores = json.loads(run("evaluate", "a.tif", truth, "--json").stdout)
    assert scores["matching"] == {"1": 1, "2": 2, "3": 3, "4": 4}
    run("train", scene, *common, "--init", "a", "-o", "b")


def told(folder: Path, stdout: IO[bytes], words: str) -> subprocess.CompletedProcess[str]:
    """`hsiclust WORDS` in a folder, with this standard output."""
    return subprocess.run(
        [*COMMAND, *words.split()],
        cwd=folder,
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("words", ["info truth.tif", "evaluate truth.tif truth.tif"])
def test_facts_for_a_reader_that_has_gone(trained: Path, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = told(trained, pipe, words)
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr


def test_names_that_standard_output_cannot_spell(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "grün.tif").symlink_to(trained / "truth.tif")
    done = subprocess.run(
        [*COMMAND, "info", "grün.tif"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr
    assert "gr\\xfcn.tif" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk is full for sure")
@pytest.mark.parametrize("words", ["info truth.tif", "evaluate truth.tif truth.tif", "--version"])
def test_standard_output_that_cannot_be_written(trained: Path, words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = told(trained, full, words)
    said = done.stderr.splitlines()
    assert done.returncode == 1
    assert said[-1] == "hsiclust: standard output cannot be written: No space left on device"
    assert "Exception" not in done.stderr


def test_a_reader_that_has_gone_stops_no_work(trained: Path, tmp_path: Path) -> None:
    scenes = [tmp_path / f"{name}.tif" for name in "ab"]
    for scene in scenes:
        write_raster(scene, fields_cube()[0], nodata=-9999)
    model = trained / "model.safetensors"
    command = [sys.executable, "-m", "hsiclust", "predict", *scenes, "-m", model, "-o", "maps/"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert {file.name for file in (tmp_path / "maps").glob("*.tif")} == {
        "a_labels.tif",
        "b_labels.tif",
    }
