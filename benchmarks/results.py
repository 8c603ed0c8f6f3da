"""RESULTS.md: one section a benchmark, replaced whenever that benchmark runs again."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
_PREFACE = """\
# Results of the benchmarks

Each section is written by the script of its name and replaced when that script runs again.
Times hold for the machine that a section names and for nothing else: compare within a section.
"""


@dataclass(frozen=True)
class Section:
    """What a benchmark has to tell.

    Attributes:
        key: Identifies the section; a later one of the same key replaces it.
        title: Heading.
        body: Markdown: tables and what is to be said about them.
    """

    key: str
    title: str
    body: str

    @property
    def markers(self) -> tuple[str, str]:
        """The lines around the section."""
        return f"<!-- begin {self.key} -->", f"<!-- end {self.key} -->"

    def text(self) -> str:
        """The section with its markers, and where it was measured."""
        begin, end = self.markers
        return f"{begin}\n## {self.title}\n\n{self.body.strip()}\n\n{_circumstances()}\n{end}\n"


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """The option that every benchmark has."""
    parser.add_argument(
        "--no-record", dest="record", action="store_false", help="leave RESULTS.md as it is"
    )


def report(section: Section, record: bool = True) -> None:
    """Print a section, and put it into RESULTS.md in place of the one before."""
    print(f"\n## {section.title}\n\n{section.body.strip()}\n\n{_circumstances()}", flush=True)
    if not record:
        return
    text = RESULTS.read_text("utf-8") if RESULTS.exists() else _PREFACE
    begin, end = section.markers
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    new = section.text()
    text = found.sub(lambda _: new, text) if found.search(text) else f"{text}\n{new}"
    partial = RESULTS.with_name(RESULTS.name + ".part")
    partial.write_text(text, "utf-8")
    partial.replace(RESULTS)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns of figures stand to the right."""
    right = [
        bool(rows) and all(re.match(r"[-\d.]", row[at]) for row in rows)
        for at in range(len(header))
    ]
    rule = ["---:" if figures else "---" for figures in right]
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])


def mean_and_deviation(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation of a sample; "-" of nothing, the value alone of one."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def median_and_extremes(values: Sequence[float], digits: int = 2) -> str:
    """Median of a sample, and its least and greatest value behind it; "-" of nothing."""
    if not values:
        return "-"
    median, least, greatest = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return median if len(values) == 1 else f"{median} ({least}–{greatest})"


def use_cores(count: int | None) -> None:
    """Keep this process and its children on so many processors; call it before torch loads."""
    if count is None or not hasattr(os, "sched_setaffinity"):
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ["OMP_NUM_THREADS"] = str(count)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _circumstances() -> str:
    day = datetime.datetime.now(tz=datetime.UTC).date()
    machine = f"{_processor()}, {cores()} of {os.cpu_count()} cores used"
    versions = f"Python {platform.python_version()}, torch {_version('torch')}, GDAL {_gdal()}"
    return f"Measured {day}: {machine}; {versions}, {_blas()}.\n\n    {_command()}"


def _command() -> str:
    """The command that ran; files outside the working folder by their names alone."""
    here = Path.cwd()
    words = ["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}"]
    for word in sys.argv[1:]:
        path = Path(word)
        if path.is_relative_to(here):
            words.append(str(path.relative_to(here)))
        else:
            words.append(path.name if path.is_absolute() else word)
    return shlex.join(words)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1].strip() if found else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _blas() -> str:
    """BLAS of NumPy, and for which processor it computes, which `OPENBLAS_CORETYPE` changes."""
    import numpy as np  # noqa: F401 - loads it
    from threadpoolctl import threadpool_info

    found = (each for each in threadpool_info() if each["user_api"] == "blas")
    return ", ".join(
        dict.fromkeys(f"{each['internal_api']} for {each.get('architecture')}" for each in found)
    )


def _gdal() -> str:
    import rasterio

    return str(rasterio.__gdal_version__)
