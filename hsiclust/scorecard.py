"""What `evaluate` shows: scores, a line for each class, areas."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsiclust.accuracy import Accuracy
    from hsiclust.area import Areas, ClassArea, Estimate
    from hsiclust.evaluation import Evaluation
    from hsiclust.reliability import Reliability
    from hsiclust.scores import Scores

_MOST_NAMES = 4


def scorecard(evaluation: Evaluation) -> str:
    """Scores, then a line for each class of the truth; of a map of classes its areas too."""
    if evaluation.accuracy is None:
        return "\n".join(_of_clusters(evaluation.scores, evaluation.reliability))
    lines = _of_classes(evaluation.accuracy, evaluation.reliability)
    return "\n".join([*lines, "", *_of_areas(evaluation.areas)])


def _of_clusters(found: Scores, sure: Reliability | None) -> list[str]:
    return [
        f"labelled pixels    {found.pixels}",
        f"accuracy (ACC)     {found.accuracy:.4f}   clusters matched to classes (Hungarian)",
        f"kappa              {found.kappa:.4f}",
        f"NMI                {found.nmi:.4f}",
        f"ARI                {found.ari:.4f}",
        f"purity             {found.purity:.4f}",
        *_calibration(sure),
        "",
        f"{'class':<32} {'pixels':>8} {'accuracy':>9}  cluster",
        *found.class_lines(),
    ]


def _of_classes(found: Accuracy, sure: Reliability | None) -> list[str]:
    return [
        f"labelled pixels    {found.pixels}, {found.unclassified} of them unclassified in the map",
        f"accuracy (OA)      {found.accuracy:.4f}   classes as they are, nothing matched",
        f"mean of PA (AA)    {found.average_accuracy:.4f}",
        f"kappa              {found.kappa:.4f}",
        f"macro F1           {found.macro_f1:.4f}",
        *_calibration(sure),
        "",
        f"{'class':<32} {'pixels':>8} {'mapped':>8} {'PA':>7} {'UA':>7} {'F1':>7}",
        *(
            f"{each.name[:32]:<32} {each.pixels:>8} {each.predicted:>8} {_rate(each.producers)} "
            f"{_rate(each.users)} {_rate(each.f1)}"
            for each in found.classes
            if each.pixels or each.predicted
        ),
        "PA: share of a class that is mapped as it; UA: share of what is mapped that is the class",
    ]


def _rate(share: float | None) -> str:
    return f"{'-':>7}" if share is None else f"{share:7.4f}"


def _calibration(sure: Reliability | None) -> list[str]:
    if sure is None:
        return []
    if sure.ece is None or sure.confidence is None:
        return ["calibration        no labelled pixel has a confidence"]
    without = f", {sure.without} pixels without" if sure.without else ""
    error = f"{sure.ece:.4f}   mean confidence {sure.confidence:.4f}, right {sure.accuracy:.4f}"
    return [f"calibration (ECE)  {error}{without}"]


def _of_areas(areas: Areas | None) -> list[str]:
    if areas is None:
        return ["no area is estimated: every class of the map has fewer than 2 labelled pixels"]
    return [
        "estimated for the whole map, ± half of the 95 % interval (Olofsson et al. 2014);",
        areas.assumption,
        *_left_out(areas),
        f"accuracy (OA)      {_with_margin(areas.accuracy)}",
        "",
        f"{'class':<24} {'mapped ' + areas.unit:>14} {'estimated ' + areas.unit:>16} {'±':>11} "
        f"{'PA':>15} {'UA':>15}",
        *(_area_line(each, areas) for each in areas.classes),
    ]


def _area_line(each: ClassArea, areas: Areas) -> str:
    digits = 2 if areas.unit == "ha" else 0
    # What the map gives to a class that is left out is no part of what is estimated, and not 0.
    mapped = "-" if each.name in areas.left_out else f"{each.mapped:.{digits}f}"
    return (
        f"{each.name[:24]:<24} {mapped:>14} {each.area.value:16.{digits}f} "
        f"{each.area.margin:11.{digits}f} {_with_margin(each.producers):>15} "
        f"{_with_margin(each.users):>15}"
    )


def _left_out(areas: Areas) -> list[str]:
    if not areas.left_out:
        return []
    names = ", ".join(areas.left_out[:_MOST_NAMES])
    rest = len(areas.left_out) - _MOST_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return [
        f"for {areas.covered:.1%} of the map only: fewer than 2 labelled pixels on {names}{more}"
    ]


def _with_margin(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.4f} ± {estimate.margin:.4f}"
