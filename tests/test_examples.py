"""The examples run, and give what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import fields_cube, write_raster

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_library_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "library.py", tmp_path / "out", "3"],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert "clusters in use" in done.stdout
    assert "NMI" in done.stdout
    assert (tmp_path / "out" / "map_confidence.tif").exists()


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
