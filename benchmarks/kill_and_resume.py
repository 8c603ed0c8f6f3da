"""Whether a run that is killed again and again ends in the same bytes.

    python -m benchmarks.kill_and_resume

`hsiclust predict` is killed (SIGKILL) at a random time and started again, perhaps killed again,
until it ends by itself or has written its map. Its folder must then hold what a run leaves that
nobody disturbed, byte by byte. With worker processes only the command itself is killed: its
workers are left to find out.
"""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.command import facts, hsiclust, make_scene, run, start, train
from benchmarks.results import Section, add_record_option, report, table, use_cores

MAP: Final = "map.tif"
# Seconds for the workers of a killed command to find out and end.
_SETTLING = 3
# A trial that was killed so often is left to end.
_MOST_KILLS = 5
_AGAIN = 0.5  # chance that a run which was started again is to be killed as well


@dataclass(frozen=True)
class Trial:
    """One run, with its kills.

    Attributes:
        kills: How often it was killed before it ended.
        unfinished: Kills after which the label store was there: tiles were being worked on.
        late: Whether the last kill came when the map was written, so that nothing was left to do.
        resumed: Tiles that its last start found done.
        same: Whether its map has the bytes of an undisturbed run.
        left: What it left in the folder that an undisturbed run does not.
    """

    kills: int
    unfinished: int
    late: bool
    resumed: int
    same: bool
    left: Sequence[str]


@dataclass(frozen=True)
class Setting:
    """What is run and killed.

    Attributes:
        scene: The scene.
        model: The model.
        options: Of the command.
        expected: Files of an undisturbed run and their bytes.
        seconds: Of that run.
        tiles: Its tiles.
    """

    scene: Path
    model: Path
    options: Sequence[str]
    expected: Mapping[str, bytes]
    seconds: float
    tiles: int

    @classmethod
    def measured(cls, scene: Path, model: Path, options: Sequence[str], folder: Path) -> Setting:
        """Run three times undisturbed; the fastest run gives the time."""
        place, seconds, tiles = folder / "undisturbed", math.inf, 0
        place.mkdir()
        for _ in range(3):
            begin = time.perf_counter()
            tiles = run([*predict(scene, model, place / MAP, options), "--overwrite"])["tiles"]
            seconds = min(seconds, time.perf_counter() - begin)
        return cls(scene, model, options, contents(place), seconds, tiles)


def predict(scene: Path, model: Path, output: Path, options: Sequence[str]) -> list[str]:
    """The command."""
    return hsiclust("predict", scene, "-m", model, "-o", output, "--json", *options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its name there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def attempt(setting: Setting, folder: Path, rng: random.Random) -> Trial:
    """Kill, start again, compare."""
    command = predict(setting.scene, setting.model, folder / MAP, setting.options)
    kills = unfinished = resumed = 0
    kill = True
    while not (folder / MAP).exists():
        process = start(command)
        limit = rng.uniform(0, setting.seconds) if kill else None
        try:
            printed, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            unfinished += not (folder / MAP).exists() and any(folder.glob("*.labels.zarr"))
            kill = kills < _MOST_KILLS and rng.random() < _AGAIN
        else:
            resumed = facts(command, process.returncode, printed, errors)["resumed"]
    late = process.returncode != 0
    time.sleep(_SETTLING)
    found = contents(folder)
    same = all(found.get(name) == content for name, content in setting.expected.items())
    left = sorted({name.split("/")[0] for name in found} - set(setting.expected))
    return Trial(kills, unfinished, late, resumed, same, left)


def trials(setting: Setting, count: int, seed: int, folder: Path) -> list[Trial]:
    """Several trials, each in a folder of its own."""
    rng = random.Random(seed)  # noqa: S311 - times of kills, no secret
    done = []
    for number in range(count):
        place = folder / f"trial{number}"
        place.mkdir()
        done.append(attempt(setting, place, rng))
        print(f"{' '.join(setting.options)}: {done[-1]}", file=sys.stderr)
    return done


def line(name: str, setting: Setting, done: Sequence[Trial]) -> list[str]:
    """A row of the table."""
    resumed = sorted(trial.resumed for trial in done if trial.kills and not trial.late)
    return [
        name,
        f"{setting.seconds:.1f}",
        f"**{sum(trial.same for trial in done)} of {len(done)}**",
        f"{sum(trial.kills > 0 for trial in done)} of {len(done)}",
        f"{sum(trial.kills for trial in done)}",
        f"{sum(trial.unfinished for trial in done)}",
        f"{sum(trial.late for trial in done)}",
        f"{', '.join(map(str, resumed))} of {setting.tiles}",
        f"{sum(not trial.left for trial in done)} of {len(done)}",
    ]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10, help="of each engine, 10")
    parser.add_argument("--size", default="192MiB", help="of the scene, 192MiB")
    parser.add_argument("--tile-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="processes of the second engine, 2")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--model", type=Path, help="trained on Indian Pines when not given")
    parser.add_argument("--cores", type=int, help="processors to use, all")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the trials of both engines and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    engines = {"threads": [], f"{arguments.workers} processes": ["-j", str(arguments.workers)]}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or train(folder)
        scene = make_scene(folder / "scene.bil", arguments.size, "--layout", "bil", "--cols", "512")
        for engine, words in engines.items():
            place = folder / engine.replace(" ", "_")
            place.mkdir()
            options = ["--tile-size", str(arguments.tile_size), *words]
            setting = Setting.measured(scene, model, options, place)
            done = trials(setting, arguments.trials, arguments.seed, place)
            rows.append(line(engine, setting, done))
    header = (
        *("engine", "undisturbed, s", "same bytes", "trials killed", "kills"),
        *("kills among tiles", "kills after the map", "tiles found done by the last start"),
        "nothing left over",
    )
    body = (
        f"A scene of {arguments.size}, tiles of {arguments.tile_size} x {arguments.tile_size}. "
        "A trial is killed after a time drawn uniformly from an undisturbed run's, started again, "
        f"and with chance {_AGAIN} killed again. With processes only the command is killed.\n\n"
        f"{table(header, rows)}"
    )
    report(Section("kill_and_resume", "Killed and started again", body), arguments.record)


if __name__ == "__main__":
    main()
