"""Labelling against reading alone and computing alone, for every layout of a scene.

    python -m benchmarks.reading --folder /scratch
    python -m benchmarks.reading --size 128MiB --rounds 1 --no-record

What `hsiclust predict` takes is set against what cannot be gone without: reading the file once by
the fastest of several readers, and running the model on data that are in memory already. All use
the same processors. In a round everything is measured once with the file out of the page cache
and once with the file in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Final

from benchmarks import pagecache
from benchmarks.command import Measured, hsiclust, measure, train
from benchmarks.readers import Reader, Shape, first_rows, readers, seconds
from benchmarks.results import (
    Section,
    add_record_option,
    cores,
    median_and_extremes,
    report,
    table,
    use_cores,
)
from benchmarks.scenes import LAYOUTS, add_scene_options, remove_scene, scene_of, workplace
from hsiclust.process import prepare_process

if TYPE_CHECKING:
    from benchmarks.alone import Sample, Way

STATES: Final = ("cold", "warm")
_SLOW = 3.0  # times the fastest reader: such a one is not measured in every round
_ROWS = 512  # of the part of the scene that the model gets in memory
# Seconds after pages were dropped. A virtual machine gives them back to its host meanwhile, which
# takes processors that a file that is just not in memory would not take.
_REST = 8.0


@dataclass
class Times:
    """Seconds of each round for one scene, cold or warm.

    Attributes:
        readings: By reader.
        network: The network alone.
        model: The whole model alone.
        predictions: What the command says and takes.
    """

    readings: dict[str, list[float]] = field(default_factory=dict)
    network: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)
    predictions: list[Measured] = field(default_factory=list)

    @property
    def reading(self) -> list[float]:
        """Of the fastest reader of each round."""
        return [min(each) for each in zip(*self.readings.values(), strict=True)]

    @property
    def reader(self) -> str:
        """The reader with the least median."""
        return min(self.readings, key=lambda name: statistics.median(self.readings[name]))

    @property
    def predict(self) -> list[float]:
        """The command's own time, without the start of the program."""
        return [float(each.facts["seconds"]) for each in self.predictions]

    def over(self, bound: Callable[[float, float, float], float]) -> list[float]:
        """Predict over what `bound` makes of reading, network and model, round by round."""
        rounds = zip(self.predict, self.reading, self.network, self.model, strict=True)
        return [predict / bound(*alone) for predict, *alone in rounds]


@dataclass
class Subject:
    """A scene, and all that is measured of it.

    Attributes:
        layout: Key of `LAYOUTS`.
        path: The scene.
        pixels: Of it.
        nbytes: Of its pixels.
        network: The fastest way to run the network.
        model: The fastest way to run the whole model.
        readers: Those that are fast enough to be measured in every round.
        slow: Seconds of the others, warm, once.
        times: By state.
        left: Largest part of the file that the cache still held when it had been dropped.
        held: Smallest part that it held when the file had been read.
    """

    layout: str
    path: Path
    pixels: int
    nbytes: int
    network: Way
    model: Way
    readers: list[Reader]
    slow: dict[str, float]
    times: dict[str, Times] = field(default_factory=lambda: {state: Times() for state in STATES})
    left: float = 0.0
    held: float = 1.0


def subject(path: Path, layout: str, sample: Sample, patience: float) -> Subject:
    """Try everything once, to find the fastest ways."""
    from benchmarks.alone import fastest_model, fastest_network

    kind, shape = LAYOUTS[layout], Shape.of(path)
    found = readers(path, kind, cores())
    pagecache.fill(path)
    trial = {reader.name: seconds(reader, shape.nbytes, patience) for reader in found}
    limit = _SLOW * min(trial.values())
    print(f"{path.name}: {trial}", file=sys.stderr)
    return Subject(
        layout,
        path,
        shape.pixels,
        shape.nbytes,
        fastest_network(sample),
        fastest_model(sample),
        [reader for reader in found if trial[reader.name] <= limit],
        {name: spent for name, spent in trial.items() if spent > limit},
    )


def one_round(subject: Subject, sample: Sample, model: Path, patience: float) -> None:
    """Measure everything once, cold and warm."""
    for state, times in subject.times.items():
        for reader in subject.readers:
            _prepare(subject, state)
            spent = seconds(reader, subject.nbytes, patience)
            times.readings.setdefault(reader.name, []).append(spent)
        times.network.append(subject.network.seconds(sample, subject.pixels))
        times.model.append(subject.model.seconds(sample, subject.pixels))
        _prepare(subject, state)
        times.predictions.append(predict(subject.path, model))
        print(
            f"{subject.path.name} {state}: reading {times.reading[-1]:.2f} s, network "
            f"{times.network[-1]:.2f} s, model {times.model[-1]:.2f} s, predict "
            f"{times.predict[-1]:.2f} s of {times.predictions[-1].seconds:.2f} s",
            file=sys.stderr,
        )


def predict(scene: Path, model: Path) -> Measured:
    """The command, once; its map is thrown away."""
    with workplace(None) as folder:
        words = ("-m", model, "-o", folder / "map.tif", "--json")
        return measure(hsiclust("predict", scene, *words))


def measured(path: Path, layout: str, model: Path, options: argparse.Namespace) -> Subject:
    """Measure one scene in all rounds."""
    from benchmarks.alone import Alone, Sample

    alone, kind = Alone(model, cores()), LAYOUTS[layout]
    sample = Sample.of(alone, first_rows(path, kind, _ROWS), kind.order)
    found = subject(path, layout, sample, options.patience)
    for _ in range(options.rounds):
        one_round(found, sample, model, options.patience)
    return found


def _prepare(subject: Subject, state: str) -> None:
    if state == "cold":
        pagecache.drop(subject.path)
        subject.left = max(subject.left, pagecache.resident(subject.path))
        sleep(_REST)
    else:
        pagecache.fill(subject.path)
        subject.held = min(subject.held, pagecache.resident(subject.path))


def line(subject: Subject, state: str) -> list[str]:
    """A row of the table of labelling."""
    times = subject.times[state]
    rate = subject.pixels / statistics.median(times.predict) / 1e6
    ratios = (
        times.over(lambda reading, network, model: max(reading, network)),
        times.over(lambda reading, network, model: reading + network),
        times.over(lambda reading, network, model: max(reading, model)),
        times.over(lambda reading, network, model: reading + model),
    )
    return [
        LAYOUTS[subject.layout].name,
        state,
        median_and_extremes(times.reading),
        median_and_extremes(times.network),
        median_and_extremes(times.model),
        median_and_extremes(times.predict),
        median_and_extremes([each.seconds for each in times.predictions]),
        f"{rate:.2f}",
        *(median_and_extremes(each) for each in ratios),
    ]


def reader_lines(subject: Subject) -> list[list[str]]:
    """Rows of the table of readers, GB of pixels a second."""
    name = LAYOUTS[subject.layout].name
    rows = []
    for reader in subject.readers:
        rates = [
            [subject.nbytes / spent / 1e9 for spent in times.readings[reader.name]]
            for times in subject.times.values()
        ]
        rows.append([name, reader.name, *(median_and_extremes(each) for each in rates)])
    return rows + [
        [name, slow, "-", f"{subject.nbytes / spent / 1e9:.3f}, tried once"]
        for slow, spent in subject.slow.items()
    ]


def way_line(subject: Subject) -> list[str]:
    """A row of the table of the fastest ways."""
    kind = LAYOUTS[subject.layout]
    return [kind.name, kind.order.upper(), subject.network.name, subject.model.name]


def interleaves(subjects: Sequence[Subject]) -> str:
    """BIP over BIL, where both were measured."""
    by = {each.layout: each for each in subjects}
    if not {"bip", "bil"} <= set(by):
        return ""
    texts = []
    for state in STATES:
        bip, bil = by["bip"].times[state], by["bil"].times[state]
        pairs = zip(bip.predict, bil.predict, strict=True)
        texts.append(f"{state} {median_and_extremes([a / b for a, b in pairs])}")
    return f"Time of labelling, BIP over BIL: {', '.join(texts)}."


def body(subjects: Sequence[Subject], options: argparse.Namespace) -> str:
    """What the section says."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    header = (
        *("layout", "file", "reading alone, s", "network alone, s", "model alone, s"),
        *("predict, s", "whole command, s", "Mpixel/s"),
        *("predict / max(reading, network)", "predict / (reading + network)"),
        *("predict / max(reading, model)", "predict / (reading + model)"),
    )
    rows = [line(each, state) for each in subjects for state in STATES]
    readers_header = ("layout", "reader", "cold, GB/s", "warm, GB/s")
    reader_rows = [row for each in subjects for row in reader_lines(each)]
    ways_header = ("layout", "order in memory", "network alone", "model alone")
    left = max(each.left for each in subjects)
    held = min(each.held for each in subjects)
    parts = (
        f"Made scenes of {options.size} and {options.cols} columns, 200 bands of 16 bits; the "
        "default SSCC model, trained on Indian Pines. Median of "
        f"{options.rounds} rounds, least and greatest in brackets; ratios are made round by round.",
        f"Cold: {_REST:.0f} s before each run the file's pages were taken out of the page cache "
        "(`posix_fadvise`, DONTNEED, after `fsync`); when it began the cache "
        f"held at most {left:.1%} of a file (`mincore`). What the disk or the host of a virtual "
        "machine keeps is not reached by that. Warm: the file was read once before; the cache then "
        f"held at least {held:.1%} of it. The machine has {memory / 2**30:.0f} GiB of memory.",
        f"Reading alone: the fastest reader of each round, {cores()} threads; every byte is copied "
        "into memory, or decoded. Network and model alone: "
        f"at most {_ROWS} rows of the scene in memory, {cores()} threads with a tile each, again "
        "and again until the scene's pixels are done; the model is spectral transform and network. "
        "predict: the time that the command reports, from opening to the finished map; whole "
        "command: with the start of the program.",
        table(header, rows),
        interleaves(subjects),
        f"Readers, in pixels' bytes. Those more than {_SLOW:.0f} times slower than the fastest "
        f"were tried once, for at most {options.patience:.0f} s.",
        table(readers_header, reader_rows),
        "The fastest of the ways that were tried to run network and model alone:",
        table(ways_header, [way_line(each) for each in subjects]),
    )
    return "\n\n".join(part for part in parts if part)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_scene_options(parser, "4GiB")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=30, help="seconds for a reader, 30")
    parser.add_argument("--model", type=Path, help="trained on Indian Pines when not given")
    parser.add_argument("--cores", type=int, help="processors to use, all")
    parser.add_argument("--machine", help="its name, where results of several machines are kept")
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure every layout and print the tables."""
    options = parse_arguments(argv)
    use_cores(options.cores)
    prepare_process()
    subjects = []
    with workplace(options.folder) as folder, workplace(None) as scratch:
        model = options.model or train(scratch)
        for layout in options.layouts:
            path = scene_of(folder, layout, options.size, options.cols)
            subjects.append(measured(path, layout, model, options))
            if options.folder is None:
                remove_scene(path)
    where = f", {options.machine}" if options.machine else ""
    title = f"Labelling against reading alone{where}"
    section = Section(f"reading{where}", title, body(subjects, options))
    report(section, options.record)


if __name__ == "__main__":
    main()
