"""Tables of the few-label benchmark: scores, paired differences, and what was divided."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.fewlabel_lines import Cell, Found
from benchmarks.results import mean_and_deviation, table

Key = tuple[str, Cell]
"""Name of a line, and the draw."""


@dataclass(frozen=True)
class Setting:
    """What the draws of one column have in common."""

    split: str
    per_class: int

    def __str__(self) -> str:
        return f"{self.split}, {self.per_class}"


@dataclass(frozen=True)
class Results:
    """What was found.

    Attributes:
        found: By line and draw.
    """

    found: Mapping[Key, Found]

    @property
    def names(self) -> list[str]:
        """Lines, in the order of the table."""
        return list(dict.fromkeys(name for name, _ in self.found))

    @property
    def settings(self) -> list[Setting]:
        """Columns, in the order of the table."""
        return list(dict.fromkeys(Setting(cell.split, cell.per_class) for _, cell in self.found))

    def of(self, name: str, setting: Setting) -> dict[int, Found]:
        """Scores of a line by seed."""
        return {
            cell.seed: found
            for (line, cell), found in self.found.items()
            if line == name and Setting(cell.split, cell.per_class) == setting
        }

    def divisions(self, cell: Cell) -> set[str]:
        """Digests of a draw: one, unless lines were scored on other pixels than their rivals."""
        return {found.division for (_, other), found in self.found.items() if other == cell}

    @property
    def strays(self) -> list[Cell]:
        """Draws that not all lines have in common."""
        cells = dict.fromkeys(cell for _, cell in self.found)
        return [cell for cell in cells if len(self.divisions(cell)) > 1]


def body(results: Results, against: str) -> str:
    """All tables."""
    parts = []
    for split in dict.fromkeys(setting.split for setting in results.settings):
        parts.append(f"### {split.capitalize()} split\n\n{_scores(results, split)}")
    if against in results.names and len(results.names) > 1:
        parts.append(_differences(results, against))
    parts.append(f"### Pixels\n\n{_pixels(results)}")
    if results.strays:
        cells = "; ".join(map(str, results.strays))
        parts.append(f"**Not all lines learned from and were scored on the same pixels: {cells}.**")
    return "\n\n".join(parts)


def _scores(results: Results, split: str) -> str:
    header = (
        *("labels a class", "run", "OA, %", "AA, %", "kappa, %"),
        *("calibration error, %", "with temperature, %", "training, s", "draws"),
    )
    rows = [
        _row(name, setting, list(results.of(name, setting).values()))
        for setting in results.settings
        if setting.split == split
        for name in results.names
    ]
    return table(header, rows)


def _row(name: str, setting: Setting, runs: Sequence[Found]) -> list[str]:
    before = [100 * run.error_before for run in runs if run.error_before is not None]
    after = [100 * run.error_after for run in runs if run.error_after is not None]
    return [
        str(setting.per_class),
        name,
        mean_and_deviation([100 * run.accuracy for run in runs], 1),
        mean_and_deviation([100 * run.average_accuracy for run in runs], 1),
        mean_and_deviation([100 * run.kappa for run in runs], 1),
        mean_and_deviation(before, 1),
        mean_and_deviation(after, 1),
        mean_and_deviation([run.seconds for run in runs], 1),
        str(len(runs)),
    ]


def _differences(results: Results, against: str) -> str:
    """Differences draw by draw, and which lines are ahead by more than their error."""
    parts = [f"### Against {against}, draw by draw"]
    metrics: Mapping[str, Callable[[Found], float]] = {
        "OA": lambda found: found.accuracy,
        "AA": lambda found: found.average_accuracy,
    }
    for metric, value in metrics.items():
        columns = [
            {
                name: _paired(results.of(name, setting), results.of(against, setting), value)
                for name in results.names
                if name != against
            }
            for setting in results.settings
        ]
        rows = [
            [name, *(_with_error(column[name]) for column in columns)]
            for name in results.names
            if name != against
        ]
        rows.append(["**ahead by more than one standard error**", *map(_ahead, columns)])
        parts.append(table((f"{metric}, points", *map(str, results.settings)), rows))
    return "\n\n".join(parts)


def _paired(
    runs: Mapping[int, Found], against: Mapping[int, Found], value: Callable[[Found], float]
) -> list[float]:
    """Points by which a line is ahead, of the draws that both had."""
    seeds = sorted(runs.keys() & against.keys())
    return [100 * (value(runs[seed]) - value(against[seed])) for seed in seeds]


def _error(differences: Sequence[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(differences) / math.sqrt(len(differences))


def _with_error(differences: Sequence[float]) -> str:
    if not differences:
        return "-"
    mean = f"{statistics.fmean(differences):.1f}"
    return mean if len(differences) == 1 else f"{mean} ± {_error(differences):.1f}"


def _ahead(column: Mapping[str, Sequence[float]]) -> str:
    """Lines that are better than the one compared with; one draw alone says nothing."""
    better = [
        name
        for name, differences in column.items()
        if len(differences) > 1 and statistics.fmean(differences) > _error(differences)
    ]
    return "; ".join(better) or "none"


def _pixels(results: Results) -> str:
    header = (
        *("labels", "learned from", "scored", "of the smallest class, at least"),
        "classes learned from, not scored",
    )
    rows = []
    for setting in results.settings:
        by_seed = {
            seed: run for name in results.names for seed, run in results.of(name, setting).items()
        }
        runs = list(by_seed.values())
        scored = mean_and_deviation([run.scored for run in runs], 0)
        smallest = str(min(run.smallest for run in runs))
        learned = mean_and_deviation([run.learned for run in runs], 0)
        unscored = mean_and_deviation([run.unscored for run in runs], 1)
        rows.append([str(setting), learned, scored, smallest, unscored])
    return table(header, rows)
