"""What the command line shows: progress, tables, results."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsiclust.evaluation import Evaluation

Show = Callable[[int, int, str], None]
_LOG_EVERY = 10.0  # seconds between progress lines in a log
_LONG_LIST = 12


def log_to_stderr(quiet: bool, verbose: bool) -> None:
    """Show what the library logs: warnings, its own notices, or everything."""
    logger = logging.getLogger("hsiclust")
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    # The libraries below speak up only when asked: what matters of theirs becomes an error here.
    for library in ("distributed", "rasterio", "pyogrio"):
        logging.getLogger(library).setLevel(logging.WARNING if verbose else logging.CRITICAL)


def say(text: str) -> None:
    """A line for people."""
    with suppress(OSError):  # a log that is full must not stop the work
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


@contextmanager
def progress(title: str, quiet: bool) -> Iterator[Show]:
    """A bar on a terminal, a plain line now and then in a log, nothing when quiet."""
    if quiet:
        yield lambda done, total, text: None
    elif sys.stderr.isatty():
        with _bar(title) as show:
            yield show
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, text="")

        def show(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield show


def _lines(title: str) -> Show:
    last = monotonic()

    def show(done: int, total: int, text: str) -> None:
        nonlocal last
        if monotonic() - last >= _LOG_EVERY or done == total:
            last = monotonic()
            say(f"{title}: {done} of {total} {text}")

    return show


def print_result(as_json: bool, path: object, facts: Mapping[str, Any]) -> None:
    """The path that was written, or one JSON object."""
    sys.stdout.write((json.dumps(jsonable(facts)) if as_json else str(path)) + "\n")


def print_facts(as_json: bool, facts: Mapping[str, Any]) -> None:
    """Names and values, a line each, or one JSON object."""
    sys.stdout.write((json.dumps(jsonable(facts)) if as_json else table(facts)) + "\n")


def jsonable(value: Any) -> Any:
    """A result as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    return str(value) if isinstance(value, Path) else value


def table(facts: Mapping[str, Any]) -> str:
    """Names and values in two columns."""
    width = max(len(key) for key in facts)
    return "\n".join(f"{key:<{width}}  {_short(value)}" for key, value in facts.items())


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > _LONG_LIST:
        return f"{_short(value[:3])[:-1]}, ... {value[-1]}] ({len(value)} values)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:.10g}"
    return "-" if value is None else str(value)


def scores(evaluation: Evaluation) -> str:
    """Scores, then a line for each class of the truth."""
    found = evaluation.scores
    lines = [
        f"labelled pixels    {found.pixels}",
        f"accuracy (ACC)     {found.accuracy:.4f}   clusters matched to classes (Hungarian)",
        f"kappa              {found.kappa:.4f}",
        f"NMI                {found.nmi:.4f}",
        f"ARI                {found.ari:.4f}",
        f"purity             {found.purity:.4f}",
        "",
        f"{'class':<32} {'pixels':>8} {'accuracy':>9}  cluster",
    ]
    return "\n".join([*lines, *found.class_lines()])
