"""A few labels a class: hsiclust's methods, ContrastDM without its parts, and what others do.

    python -m benchmarks.fewlabel --jobs 4 --keep few.jsonl
    python -m benchmarks.fewlabel --scene city.bsq --labels classes.shp --field level_2 --title City
    python -m benchmarks.fewlabel --only svm forest --draws 2 --no-record

Each draw of labels parts them into pixels that are learned from and pixels that are held out; every
line learns from the same ones and is scored on the same ones, after its last step. In a random
split the two lie side by side, which flatters whatever looks at a pixel's surroundings; in a
separated one they lie on ground of their own, with a buffer between.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, is_dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning

from benchmarks.fewlabel_lines import (
    DEFAULT,
    Cell,
    Found,
    Line,
    Pretrained,
    lines,
    measure,
    pretrain,
)
from benchmarks.fewlabel_tables import Results, body
from benchmarks.results import Section, add_record_option, cores, report, use_cores
from benchmarks.subject import Subject
from hsiclust import __version__
from hsiclust.process import prepare_process

SPLITS = ("random", "separated")


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        line: What is trained.
        cell: On which labels.
    """

    line: Line
    cell: Cell

    def __str__(self) -> str:
        return f"{self.line.name}; {self.cell}"


class Kept:
    """Results of an interrupted run, one JSON object a line; a run without a file keeps none.

    Args:
        file: Where they stand.
        subject: What they belong to; those of other scenes are passed over.
        shared: Whether pre-training is shared.
    """

    def __init__(self, file: Path | None, subject: Subject, shared: bool) -> None:
        self._file = file
        self._scene = [subject.scene.name, subject.truth.name, subject.field, shared, __version__]
        self._found: dict[str, Found] = {}  # by identity, as JSON
        text = file.read_text("utf-8") if file is not None and file.exists() else ""
        for each in text.splitlines():
            read = json.loads(each)
            self._found[json.dumps(read["job"])] = Found(**read["found"])

    def get(self, job: Job) -> Found | None:
        """What this training scored before."""
        return self._found.get(json.dumps(self._identity(job)))

    def add(self, job: Job, found: Found) -> None:
        """Keep a result."""
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"job": self._identity(job), "found": asdict(found)}) + "\n")

    def _identity(self, job: Job) -> list[Any]:
        options = {
            name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for name, value in job.line.options.items()
        }
        return [*self._scene, job.line.name, options, asdict(job.cell)]


class Pool:
    """Processes with one core each.

    Args:
        jobs: How many.
        subject: What they work on.
    """

    def __init__(self, jobs: int, subject: Subject) -> None:
        context = multiprocessing.get_context("spawn")
        numbers: Queue[int] = context.Queue()
        for number in range(jobs):
            numbers.put(number)
        self._subject = subject
        self._pool = ProcessPoolExecutor(jobs, context, _begin, (numbers,))

    def pretrain(
        self, jobs: Sequence[Job], folder: Path
    ) -> dict[tuple[str, int], Pretrained | None]:
        """The models that trainings go on from, by options and seed."""
        wanted: dict[tuple[str, int], Mapping[str, Any]] = {}
        for job in jobs:
            if job.line.pretraining is not None:
                wanted[_pretraining(job)] = job.line.pretraining
        futures = {
            key: self._pool.submit(
                pretrain, self._subject, options, key[1], folder / f"{number}.safetensors"
            )
            for number, (key, options) in enumerate(wanted.items())
        }
        found: dict[tuple[str, int], Pretrained | None] = {}
        for (options, seed), future in futures.items():
            found[options, seed] = done = future.result()
            print(f"pre-trained {options}, seed {seed}: {done.seconds:.1f} s", file=sys.stderr)
        return found

    def measure(
        self, jobs: Sequence[Job], pretrained: Mapping[tuple[str, int], Pretrained | None]
    ) -> Iterator[tuple[Job, Future[Found]]]:
        """Trainings as they end."""
        futures = {
            self._pool.submit(
                measure, self._subject, job.line, job.cell, pretrained.get(_pretraining(job))
            ): job
            for job in jobs
        }
        for future in as_completed(futures):
            yield futures[future], future

    def close(self) -> None:
        """End the processes; what has not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)


def _pretraining(job: Job) -> tuple[str, int]:
    """Which pre-trained model a training goes on from."""
    return json.dumps(job.line.pretraining), job.cell.seed


def _begin(numbers: Queue[int]) -> None:
    """Give a new process a core, and torch one thread."""
    number = numbers.get()
    if hasattr(os, "sched_setaffinity"):
        free = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {free[number % len(free)]})
    prepare_process()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Indian Pines has no place
    import torch

    torch.set_num_threads(1)


def work(jobs: Sequence[Job], arguments: argparse.Namespace) -> tuple[Results, list[Job]]:
    """Run what is not kept; returns the results and what failed."""
    subject = _subject(arguments)
    kept = Kept(arguments.keep, subject, arguments.share_pretraining)
    before = {job: kept.get(job) for job in jobs}
    found = {job: result for job, result in before.items() if result is not None}
    left = [job for job in jobs if job not in found]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(min(arguments.jobs, max(1, len(left))), subject)
        try:
            shared = pool.pretrain(left, Path(folder)) if arguments.share_pretraining else {}
            for job, future in pool.measure(left, shared):
                error = future.exception()
                if error is None:
                    found[job] = future.result()
                    kept.add(job, found[job])
                else:
                    failed.append(job)
                said = _said(found[job]) if error is None else f"{type(error).__name__}: {error}"
                print(f"[{len(found) + len(failed)}/{len(jobs)}] {job}: {said}", file=sys.stderr)
        finally:
            pool.close()
    ordered = {(job.line.name, job.cell): found[job] for job in jobs if job in found}
    return Results(ordered), failed


def _said(found: Found) -> str:
    return (
        f"OA {100 * found.accuracy:.1f}, AA {100 * found.average_accuracy:.1f}, "
        f"{found.seconds:.1f} s"
    )


def _subject(arguments: argparse.Namespace) -> Subject:
    return Subject(arguments.scene, arguments.labels, arguments.field)


def chosen_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Every line on every draw, draw by draw: a run that is cut short has whole draws."""
    parts = [part.casefold() for part in arguments.only]
    chosen = [
        line for line in lines() if not parts or any(part in line.name.casefold() for part in parts)
    ]
    if not chosen:
        sys.exit(f"no line holds any of: {', '.join(arguments.only)}")
    draws = itertools.product(range(arguments.draws), arguments.splits, arguments.per_class)
    cells = [Cell(split, per_class, seed) for seed, split, per_class in draws]
    return [Job(line, cell) for cell in cells for line in chosen]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    carried = Subject()
    parser.add_argument("--scene", type=Path, default=carried.scene, help="carried Indian Pines")
    parser.add_argument("--labels", type=Path, default=carried.truth, help="raster or vectors")
    parser.add_argument("--field", help="vectors: field of the class")
    parser.add_argument("--title", default="Indian Pines (carried)", help="name of the scene")
    parser.add_argument(
        "--per-class", type=int, nargs="+", default=[5, 10, 30], help="labels a class, 5 10 30"
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--draws", type=int, default=5, help="of labels, of seeds 0, 1, ...: 5")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="lines in whose name one of these stands; recorded as a section of its own",
    )
    parser.add_argument(
        "--against", default=DEFAULT, metavar="NAME", help=f"line to compare with, {DEFAULT!r}"
    )
    parser.add_argument(
        "--share-pretraining", action="store_true", help="pre-train once a seed, without labels"
    )
    parser.add_argument("--cores", type=int, help="processors to use, all")
    parser.add_argument("--jobs", type=int, help="trainings at once, one processor each; all")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="keep each result there, and go on from those that are there: of this code only",
    )
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run every line on every draw and print the tables."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that train
    arguments.jobs = min(arguments.jobs or cores(), cores())
    results, failed = work(chosen_jobs(arguments), arguments)
    if results.found:
        complete = not failed and not results.strays
        report(_section(arguments, results), arguments.record and complete)
    for job in failed:
        print(f"failed: {job}", file=sys.stderr)
    if failed or results.strays:
        sys.exit("not recorded: a training failed, or lines were scored on different pixels")


def _section(arguments: argparse.Namespace, results: Results) -> Section:
    shared = (
        " Pre-training is shared by the lines of a seed, and its time counted in each."
        if arguments.share_pretraining
        else ""
    )
    text = (
        f"{arguments.title}. Overall accuracy (OA), average accuracy (AA) and kappa on the "
        "held-out pixels after the last step; mean ± standard deviation over the draws of labels, "
        "which all lines have in common. Another number of labels holds out other pixels. "
        "Calibration error: expected, of half of the held-out pixels, without a temperature and "
        "with one fitted to the other half. "
        "Training: of a process with one core, with what the method chooses by cross-validation."
        f"{shared} Differences are means ± standard error.\n\n"
    )
    key, title = f"fewlabel {arguments.scene.stem}", f"A few labels a class: {arguments.title}"
    if arguments.only:
        only = ", ".join(arguments.only)
        key, title = f"{key}, only {only}", f"{title}, only {only}"
    return Section(key, title, text + body(results, arguments.against))


if __name__ == "__main__":
    main()
