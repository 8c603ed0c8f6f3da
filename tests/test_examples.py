"""The examples run, and give what they say."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import fields_cube, write_raster

from hsiclust.legend import read_classes
from hsiclust.palette import Classes, class_colours

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def test_the_library_example(tmp_path: Path) -> None:
    cube, truth = fields_cube(30, 30)
    scene = write_raster(tmp_path / "scene.tif", cube)
    classes = write_raster(tmp_path / "truth.tif", truth[None], nodata=0)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "library.py", tmp_path / "out", scene, classes, "3"],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert "clusters in use" in done.stdout
    assert "NMI" in done.stdout
    assert (tmp_path / "out" / "map_confidence.tif").exists()
    assert (tmp_path / "out" / "map.png").exists()


def test_the_pipeline_example_goes_on_past_a_bad_scene(tmp_path: Path) -> None:
    scenes, output = tmp_path / "scenes", tmp_path / "maps"
    scenes.mkdir()
    for name in ("a", "b", "c"):
        write_raster(scenes / f"{name}.tif", fields_cube(30, 30)[0])
    script = tmp_path / "hsiclust"  # the command, whether or not it is installed
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m hsiclust "$@"\n')
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    bash = shutil.which("bash")
    assert bash is not None

    def pipeline() -> int:
        command = [bash, EXAMPLES / "pipeline.sh", scenes, output, "-k", "3", "--method", "kmeans"]
        return subprocess.run(command, env=environment, timeout=300, check=False).returncode

    assert pipeline() == 0
    assert sorted(path.name for path in output.glob("*_labels.tif")) == [
        "a_labels.tif",
        "b_labels.tif",
        "c_labels.tif",
    ]
    (scenes / "bad.tif").write_bytes(b"nothing")
    write_raster(scenes / "d.tif", fields_cube(30, 30)[0])
    assert pipeline() == 1
    assert (output / "d_labels.tif").exists()


def test_the_pipeline_example_refuses_scenes_that_would_have_one_map(tmp_path: Path) -> None:
    for name in ("a.tif", "a.bsq", "b.tif"):
        (tmp_path / name).write_bytes(b"")
    bash = shutil.which("bash")
    assert bash is not None
    command = [bash, EXAMPLES / "pipeline.sh", tmp_path, tmp_path / "maps"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stderr == f"{tmp_path}: several scenes are called a; rename them\n"


def test_the_pipeline_example_refuses_to_write_maps_beside_the_scenes(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    bash = shutil.which("bash")
    assert bash is not None
    command = [bash, EXAMPLES / "pipeline.sh", tmp_path, f"{tmp_path}/."]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path}/.: holds the scenes; name another folder for the maps\n"
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


def test_the_final_map_of_berlin_is_learned_from_all_labels(tmp_path: Path) -> None:
    named = tmp_path / "hsiclust"
    named.write_text('#!/bin/sh\necho "$@"\n')
    named.chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, EXAMPLES / "berlin.sh", "--split", "random"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, final = (text for text in done.stdout.splitlines() if text.startswith("train "))
    assert first.split("--split ")[-1] == "random"
    assert final.split("--split ")[-1] == "none"  # of options given twice the last counts


def commands(text: str) -> list[str]:
    """What a page or a script has hsiclust do; without the options that a script passes on."""
    joined = text.replace("\\\n", " ").replace(' "$@"', "")
    lines = (" ".join(line.split()).removeprefix("$ ") for line in joined.splitlines())
    return [line for line in lines if line.startswith("hsiclust ")]


def test_the_tutorial_gives_the_commands_of_its_script() -> None:
    script = commands((EXAMPLES / "berlin.sh").read_text())
    page = (EXAMPLES.parent / "docs" / "tutorial.md").read_text()
    typed = [block.split("```")[0] for block in page.split("```console\n")[1:]]
    assert commands("".join(typed)) == script
    assert len(script) == 8


def test_the_tutorial_makes_a_map_with_names_and_a_place(tmp_path: Path) -> None:
    """With the quickest method: what the page says of files, names, colours and the split."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    program(tmp_path, "hsiclust", f'exec {sys.executable} -m hsiclust "$@"')
    done = subprocess.run(
        [BASH, "examples/berlin.sh", "--method", "svm"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    assert "444 labelled pixels in them lie within 12 pixels" in done.stderr
    assert "learned from whole, not scored: Other, Soil" in done.stderr
    assert "labelled pixels    159" in done.stdout
    names = ("Low vegetation", "Other", "Pavement", "Roof", "Soil", "Tree")
    with rasterio.open(EXAMPLES / "data" / "berlin" / "enmap.bsq") as scene:
        place = scene.crs, scene.transform, scene.shape
    for name in ("berlin.tif", "berlin_final.tif", "berlin_held_out.tif"):
        assert read_classes(tmp_path / name) == Classes(names, class_colours(6))
        with rasterio.open(tmp_path / name) as found:
            assert (found.crs, found.transform, found.shape) == place
    with (
        rasterio.open(tmp_path / "berlin_training.tif") as learned,
        rasterio.open(tmp_path / "berlin_final_training.tif") as all_learned,
    ):
        assert np.count_nonzero(learned.read(1)) == 229
        assert np.bincount(all_learned.read(1).ravel()).tolist() == [3968, 93, 9, 290, 263, 8, 169]
    with rasterio.open(tmp_path / "berlin_confidence.tif") as confidence:
        assert confidence.read(1).max() <= 100
    assert (tmp_path / "berlin.png").exists()
    assert (tmp_path / "berlin_final.png").exists()


SLURM = EXAMPLES / "slurm"
BASH = shutil.which("bash") or "bash"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene of several strips, a model, and the map of an undisturbed run: whole.tif."""
    scene = write_raster(tmp_path / "scene.tif", fields_cube()[0])
    command = [sys.executable, "-m", "hsiclust"]
    train = ["train", scene, "--method", "kmeans", "-k", "4", "--steps", "9", "-q"]
    subprocess.run([*command, *train], cwd=tmp_path, check=True, timeout=100)
    predict = ["predict", scene, "--tile-size", "16", "-o", "whole.tif", "-q"]
    subprocess.run([*command, *predict], cwd=tmp_path, check=True, timeout=100)
    return scene


def program(folder: Path, name: str, text: str) -> None:
    """A shell script that stands for a program of that name."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!{BASH}\n{text}\n")
    (folder / "bin" / name).chmod(0o755)


@pytest.mark.parametrize("name", ["shard.sbatch", "merge.sbatch", "submit.sh"])
def test_scripts_are_shell(name: str) -> None:
    subprocess.run([BASH, "-n", SLURM / name], check=True, timeout=10)


def test_the_job_array_with_a_stand_in_for_slurm(scene: Path, tmp_path: Path) -> None:
    """`sbatch` runs its script at once, for each task of its array, as with `--export=NONE`."""
    program(tmp_path, "hsiclust", f'exec {sys.executable} -m hsiclust "$@"')
    program(tmp_path, "srun", '[[ $SLURM_EXPORT_ENV == ALL ]] && exec "$@"')
    program(tmp_path, "scontrol", 'echo "$@" >> requeued')
    sbatch = """
array=1-1
while [[ $1 == --* ]]; do
    [[ $1 == --array=* ]] && array=${1#--array=}
    echo "$1" >> asked
    shift
done
export SLURM_EXPORT_ENV=NONE
export SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_COUNT=${array#*-}
for SLURM_ARRAY_TASK_ID in $(seq 1 "$SLURM_ARRAY_TASK_COUNT"); do
    export SLURM_ARRAY_TASK_ID; bash "$@" >&2
done
echo '77;cluster'"""
    program(tmp_path, "sbatch", sbatch)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    words = ["2", scene, "--tile-size", "16", "-o", "map.tif", "-q"]
    submit = [BASH, SLURM / "submit.sh", *words]
    subprocess.run(submit, cwd=tmp_path, env=environment, check=True, timeout=200)
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    # After shards that fail as well: the merge says which are missing.
    assert "--dependency=afterany:77" in (tmp_path / "asked").read_text().split()
    assert not (tmp_path / "requeued").exists()

    # A task that is queued again goes on in its log.
    assert "#SBATCH --open-mode=append\n" in (SLURM / "shard.sbatch").read_text()
    program(tmp_path, "srun", "exit 75")  # as when its time was nearly up
    task = {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "3"}
    task |= {"SLURM_ARRAY_TASK_COUNT": "5", "SLURM_ARRAY_JOB_ID": "78"}
    done = subprocess.run(
        [BASH, SLURM / "shard.sbatch", scene],
        cwd=tmp_path,
        env={**environment, **task},
        check=False,
        timeout=10,
    )
    assert done.returncode == 75
    assert (tmp_path / "requeued").read_text() == "requeue 78_4\n"


def test_the_cluster_of_jobs_on_this_machine(scene: Path, tmp_path: Path) -> None:
    script = [sys.executable, SLURM / "cluster.py", "scheduler.json", "--local", "--jobs", "1"]
    predict = [sys.executable, "-m", "hsiclust", "predict", scene, "--tile-size", "16", "-q"]
    predict += ["-o", "map.tif", "--scheduler-file", "scheduler.json"]
    subprocess.run(
        [*script, "--cores", "2", "--memory", "2GiB", "--", *predict],
        cwd=tmp_path,
        check=True,
        timeout=200,
        stdout=subprocess.DEVNULL,
    )
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not (tmp_path / "scheduler.json").exists()


def test_a_cluster_that_is_stopped_lets_its_command_end_well(tmp_path: Path) -> None:
    script = [sys.executable, SLURM / "cluster.py", "scheduler.json", "--local", "--jobs", "1"]
    program(tmp_path, "command", "trap 'kill $!; exit 75' TERM; sleep 100 & echo started; wait")
    cluster = subprocess.Popen(
        [*script, "--cores", "1", "--memory", "2GiB", "--", tmp_path / "bin" / "command"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert cluster.stdout is not None
    assert "started\n" in iter(cluster.stdout.readline, "")
    assert (tmp_path / "scheduler.json").exists()
    cluster.terminate()
    assert cluster.wait(timeout=60) == 75
    cluster.stdout.close()
    assert not (tmp_path / "scheduler.json").exists()


def test_the_image_reads_all_kinds_of_scenes() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    default = re.search(r"^ARG EXTRAS=(.+)$", dockerfile, re.MULTILINE)
    assert default is not None
    assert set(default[1].split(",")) == {"hdf5", "s3"}
    # pip only warns of an extra that the package does not have
    asked = re.findall(r"EXTRAS=([\w,]+)", dockerfile)
    names = {name for extras in asked for name in extras.split(",")}
    assert names == {"hdf5", "s3", "onnx"}
    assert names <= project["optional-dependencies"].keys()


def test_an_environment_whose_path_has_blanks_is_refused_in_one_line(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on this machine")
    command = [make, "--dry-run", "demo", f"VENV={tmp_path}/a b"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"VENV is '{tmp_path}/a b': make takes no path with blanks" in done.stderr
    assert len(done.stderr.splitlines()) == 1
