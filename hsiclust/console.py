"""What the command line shows: progress, tables, results."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from errno import EACCES, ENAMETOOLONG
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from hsiclust.errors import HsiclustError, InputError

if TYPE_CHECKING:
    from hsiclust.batch import Done, Outcome
    from hsiclust.prediction_plan import PredictPlan
    from hsiclust.shards import Shard

Show = Callable[[int, int, str], None]
_LOG_EVERY = 10.0  # seconds between progress lines in a log
_LONG_LIST = 12
_LONGEST_NAME = 80  # letters of one that no file can have


def log_to_stderr(quiet: bool, verbose: bool) -> None:
    """Show what the library logs: warnings, its own notices, or everything."""
    logger = logging.getLogger("hsiclust")
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable())
    logger.handlers = [handler]
    # The libraries below speak up only when asked: what matters of theirs becomes an error here.
    for library in ("distributed", "distributed.client", "rasterio", "pyogrio"):
        logging.getLogger(library).setLevel(logging.WARNING if verbose else logging.CRITICAL)


class _Printable(logging.Formatter):
    """What the library logs, in lines of `printable` text."""

    def format(self, record: logging.LogRecord) -> str:
        return _printable_lines(super().format(record))


def printable(text: str) -> str:
    """A text as a line for people: what a terminal would obey, or cannot show, is escaped.

    Names and notes come from strangers' files.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def say(text: str) -> None:
    """A line for people, or some."""
    with suppress(OSError):  # a log that is full must not stop the work
        sys.stderr.write(_printable_lines(text) + "\n")
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(title), total=None, text="")

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


@dataclass(frozen=True)
class Style:
    """How labellings are shown.

    Attributes:
        as_json: Results as JSON objects, one a line.
        quiet: Only errors, and the results.
    """

    as_json: bool
    quiet: bool

    @contextmanager
    def watch(self, scene: str) -> Iterator[Callable[[int, int], None]]:
        """The progress of a scene; its name is said where it is one of many."""
        with progress(f"labelling {scene}".rstrip(), self.quiet) as show:
            yield lambda done, tiles: show(done, tiles, "tiles")

    def show_result(self, done: Done, **more: str) -> None:
        """What was done to one scene."""
        facts = jsonable(done)
        if not self.quiet:
            say(done.summary)
        print_result(self.as_json, facts.get("map") or facts["store"], {**more, **facts})

    def show_plan(self, plan: PredictPlan, part: Shard | None, **more: str) -> None:
        """What would be done to one scene, or to a part of it."""
        facts = plan.facts()
        if part is not None:
            facts |= part.facts(facts)
        print_facts(self.as_json, {**more, **facts})

    def show_outcomes(
        self, outcomes: Iterable[Outcome], count: int, show: Callable[..., None]
    ) -> bool:
        """What becomes of many scenes, as it does; whether all went well.

        Args:
            outcomes: Of each scene.
            count: How many there are.
            show: Shows what was done to one; takes scene and status by these names as well.
        """
        failed = []
        for outcome in outcomes:
            of = {"scene": outcome.scene, "status": outcome.status}
            if outcome.done is not None:
                show(outcome.done, **of)
            elif outcome.error is None:
                if not self.quiet:
                    say(f"{outcome.output}: finished before")
                print_result(self.as_json, outcome.output, {**of, "map": outcome.output})
            else:
                message = one_line(outcome.error)
                named = message.startswith(outcome.scene)
                failed.append(message if named else f"{outcome.scene}: {message}")
                say(f"hsiclust: {failed[-1]}")
                if self.as_json:
                    print_result(True, "", {**of, "error": message})
        if failed:
            say("\n  ".join([f"{len(failed)} of {count} scenes failed:", *failed]))
        return not failed


def one_line(error: BaseException) -> str:
    """The message of an expected failure."""
    if isinstance(error, MemoryError) and not isinstance(error, HsiclustError):
        return f"out of memory ({error}); give a smaller --memory, or train on a smaller --budget"
    if isinstance(error, OSError) and error.errno == ENAMETOOLONG and error.filename:
        name = str(error.filename)
        return f"{name[:_LONGEST_NAME]}...: a name of {len(name)} letters; no file can have it"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def exit_code(error: BaseException) -> int:
    """What the command ends with after an expected failure."""
    if isinstance(error, OSError) and error.errno in (ENAMETOOLONG, EACCES):
        return InputError.exit_code  # outputs are looked at before anything is done
    return error.exit_code if isinstance(error, HsiclustError) else 1


def print_result(as_json: bool, text: object, facts: Mapping[str, Any]) -> None:
    """A text, or one JSON object, on standard output; a reader that has gone stops no work.

    Raises:
        HsiclustError: Standard output takes no more.
    """
    try:
        sys.stdout.write((json.dumps(jsonable(facts)) if as_json else str(text)) + "\n")
        sys.stdout.flush()  # a pipe's reader need not wait for the next scene
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # or Python would fail once more at its end
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            reason = f"standard output cannot be written: {error.strerror}"
            raise HsiclustError(reason) from error


def print_facts(as_json: bool, facts: Mapping[str, Any]) -> None:
    """Names and values, a line each, or one JSON object; as `print_result`."""
    print_result(as_json, table(facts), facts)


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
    lines = (f"{key:<{width}}  {_short(value)}" for key, value in facts.items())
    return "\n".join(map(printable, lines))


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
