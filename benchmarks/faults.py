"""Whether what is killed, or runs out of disk, ends in the same bytes when it is started again.

    python -m benchmarks.faults

Faults are injected into `hsiclust predict` at random moments: SIGKILL of one of its workers, of
the command itself, or of the standing Dask scheduler that it uses, and a disk that is full. The
same command is then given again until it ends well. Its map must have the bytes of a run that
nobody disturbed, nothing else may be left, and a command that fails has to say why in one line.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.command import make_scene, start, train
from benchmarks.kill_and_resume import MAP, Setting, contents, predict
from benchmarks.results import Section, add_record_option, report, table, use_cores

# Seconds after which a command hangs.
_HANGS: Final = 180
# Seconds for the workers of a killed command to find out and end.
_SETTLING: Final = 3
_MOST_STARTS: Final = 6
_PAGE: Final = 4096
_ENOUGH: Final = 2**28


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: Exit code; negative for a signal, None where it did not end.
        clear: Whether a failure was said in one line.
        seconds: From the fault, or from the start without one.
    """

    code: int | None
    clear: bool
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One fault, and the starts until all was done.

    Attributes:
        kind: What was done to the run.
        hit: Whether the run was still at work at that moment.
        ends: How each start ended.
        same: Whether the map has the bytes of an undisturbed run.
        left: What was left that an undisturbed run does not leave.
        orphans: Processes that outlived the command.
    """

    kind: str
    hit: bool
    ends: Sequence[End]
    same: bool
    left: Sequence[str]
    orphans: int

    @property
    def well(self) -> bool:
        """Whether all was as it should be."""
        ended = all(end.code is not None and end.clear for end in self.ends)
        return ended and self.same and not self.left and not self.orphans


def ended(process: subprocess.Popen[str]) -> End:
    """Wait for the end of a command."""
    begin = time.monotonic()
    try:
        _, errors = process.communicate(timeout=_HANGS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return End(None, False, _HANGS)
    said = [line for line in errors.splitlines() if line.startswith("hsiclust: ")]
    clear = "Traceback" not in errors and (process.returncode != 1 or len(said) == 1)
    return End(process.returncode, clear, time.monotonic() - begin)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Worker processes of a command."""
    with suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return []


def kill_worker(process: subprocess.Popen[str], moment: float, rng: random.Random) -> bool:
    """Kill one of the workers, when there are any."""
    while process.poll() is None and not workers_of(process):
        time.sleep(0.02)
    time.sleep(moment)
    found = workers_of(process)
    with suppress(psutil.Error, IndexError):
        rng.choice(found).kill()
        return process.poll() is None
    return False


def kill_command(process: subprocess.Popen[str], moment: float, _rng: random.Random) -> bool:
    """Kill the command."""
    time.sleep(moment)
    process.kill()
    return process.wait() == -signal.SIGKILL


Injection = Callable[[subprocess.Popen[str], float, random.Random], bool]


def again(command: Sequence[str]) -> Iterator[End]:
    """Give a command again until it ends well."""
    for _ in range(_MOST_STARTS):
        end = ended(start(command))
        yield end
        # 2: the map was there already, the fault came after all the work
        if end.code in (0, 2, None):
            return


def attempt(kind: str, inject: Injection, setting: Setting, folder: Path, seed: int) -> Trial:
    """A fault in a run with workers of its own."""
    rng = random.Random(seed)  # noqa: S311 - moments of faults, no secret
    command = predict(setting.scene, setting.model, folder / MAP, [*setting.options, "-q"])
    process = start(command)
    # Workers are there when half of the time, or more, has gone by.
    span = setting.seconds * (0.5 if kind == "worker" else 1)
    hit = inject(process, rng.uniform(0, span), rng)
    workers = workers_of(process)
    ends = [ended(process)]
    if ends[0].code != 0:
        ends += again(command)
    return judged(kind, hit, ends, setting, folder, workers)


def judged(
    kind: str,
    hit: bool,
    ends: Sequence[End],
    setting: Setting,
    folder: Path,
    workers: Sequence[psutil.Process] = (),
) -> Trial:
    """Compare what a trial made with what it should have."""
    if workers:
        time.sleep(_SETTLING)
    found = contents(folder)
    same = all(found.get(name) == content for name, content in setting.expected.items())
    left = sorted({name.split("/")[0] for name in found} - set(setting.expected))
    return Trial(kind, hit, ends, same, left, sum(worker.is_running() for worker in workers))


@contextmanager
def standing(folder: Path, workers: int) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A scheduler with workers: the file in which it wrote its address, and its process."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    processes = []

    def dask(role: str, *words: str) -> None:
        module = f"distributed.cli.dask_{role}"
        command = [sys.executable, "-m", module, "--scheduler-file", str(file), "--no-dashboard"]
        processes.append(subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL))

    try:
        dask("scheduler", "--host", "127.0.0.1", "--port", "0")
        while not file.exists():
            time.sleep(0.02)
        for _ in range(workers):
            dask("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        yield file, processes[0]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def attempt_scheduler(setting: Setting, folder: Path, seed: int) -> Trial:
    """A standing scheduler that is killed; a new one for the next start."""
    rng = random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as place:
        options = [word for word in setting.options if word not in ("-j", "2")]
        options += ["-q", "--scheduler-file", f"{place}/scheduler.json"]
        command = predict(setting.scene, setting.model, folder / MAP, options)
        with standing(Path(place), 2) as (_, scheduler):
            process = start(command)
            time.sleep(rng.uniform(0, setting.seconds))
            hit = process.poll() is None
            scheduler.kill()
            ends = [ended(process)]
        if ends[0].code != 0:
            with standing(Path(place), 2):
                ends += again(command)
    return judged("scheduler", hit, ends, setting, folder)


def attempt_disk(setting: Setting, folder: Path, seed: int) -> Trial:
    """A disk that is full before the work is done; then there is room."""
    rng = random.Random(seed)  # noqa: S311
    # A chunk and a flag a tile, each at least a page.
    size = int(rng.uniform(0.2, 0.9) * setting.tiles * 2 * _PAGE) + 16 * _PAGE
    command = predict(setting.scene, setting.model, folder / MAP, [*setting.options, "-q"])
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        ends = [ended(start(command))]
        mount("-o", f"remount,size={_ENOUGH}", str(folder))
        if ends[0].code != 0:
            ends += again(command)
        return judged("disk", ends[0].code == 1, ends, setting, folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount(*words: str) -> None:
    """Mount, as root."""
    subprocess.run(["mount", *words], check=True, stderr=subprocess.DEVNULL)


def may_mount(folder: Path) -> bool:
    """Whether small disks can be made here."""
    if os.geteuid() != 0:
        return False
    try:
        mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


def trial(kind: str, setting: Setting, folder: Path, seed: int) -> Trial:
    """One trial."""
    if kind == "scheduler":
        return attempt_scheduler(setting, folder, seed)
    if kind == "disk":
        return attempt_disk(setting, folder, seed)
    inject = kill_worker if kind == "worker" else kill_command
    return attempt(kind, inject, setting, folder, seed)


def line(kind: str, done: Sequence[Trial]) -> list[str]:
    """A row of the table."""
    codes = collections.Counter(str(trial.ends[0].code) for trial in done if trial.hit)
    longest = max(trial.ends[0].seconds for trial in done)
    return [
        {"disk": "full disk"}.get(kind, f"SIGKILL of the {kind}"),
        f"**{sum(trial.well for trial in done)} of {len(done)}**",
        f"{sum(trial.same for trial in done)} of {len(done)}",
        f"{sum(trial.hit for trial in done)}",
        ", ".join(f"{code} ({count})" for code, count in sorted(codes.items())) or "-",
        f"{longest:.1f}",
        f"{max(len(trial.ends) for trial in done)}",
        f"{sum(trial.orphans for trial in done)}",
    ]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100, help="over all kinds of fault, 100")
    parser.add_argument("--size", default="48MiB", help="of the scene, 48MiB")
    parser.add_argument("--tile-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the faults")
    parser.add_argument("--model", type=Path, help="trained on Indian Pines when not given")
    parser.add_argument("--cores", type=int, help="processors to use, all")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the trials and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    done: dict[str, list[Trial]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or train(folder)
        scene = make_scene(folder / "scene.bil", arguments.size, "--layout", "bil", "--cols", "256")
        options = ["--tile-size", str(arguments.tile_size), "-j", "2"]
        setting = Setting.measured(scene, model, options, folder)
        kinds = ["worker", "command", "scheduler", *(["disk"] if may_mount(folder) else [])]
        for number in range(arguments.trials):
            place = folder / f"trial{number}"
            place.mkdir()
            kind = kinds[number % len(kinds)]
            done[kind].append(trial(kind, setting, place, arguments.seed + number))
            print(f"{number}: {done[kind][-1]}", file=sys.stderr, flush=True)
    header = (
        *("fault", "all as it should be", "same bytes", "hit a run at work"),
        *("exit code of the run that was hit (runs)", "longest until it ended, s"),
        *("most starts", "processes left"),
    )
    body = (
        f"A scene of {arguments.size}, {setting.tiles} tiles of {arguments.tile_size} x "
        f"{arguments.tile_size}, two worker processes, {setting.seconds:.1f} s undisturbed. The "
        "fault comes at a moment drawn uniformly from that time; then the same command is given "
        "until it ends well. As it should be: the same bytes, nothing left over, no process left, "
        f"each failure said in one line, no command that hangs.\n\n"
        f"{table(header, [line(kind, trials) for kind, trials in done.items()])}"
    )
    if "disk" not in done:
        body += "\n\nFull disks were not tried: it takes root to make a small one."
    report(Section("faults", "Faults at random moments", body), arguments.record)


if __name__ == "__main__":
    main()
