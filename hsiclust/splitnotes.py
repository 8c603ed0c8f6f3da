"""What has to be said of a split, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hsiclust.allotment import MOST_DRAWN, Allotment, SplitCounts, SplitOptions
from hsiclust.legend import listed


def split_notes(
    plan: Allotment, counts: SplitCounts, names: Sequence[str], options: SplitOptions
) -> Iterator[str]:
    """What has to be said, each one line.

    Args:
        plan: What was to be learned from.
        counts: What came of it.
        names: Those of classes 1..K.
        options: What was asked for.
    """
    named = np.array(names, object)
    lost = int(counts.invalid.sum())
    if lost:
        yield (
            f"{lost} of {counts.labelled.sum()} labelled pixels are left out: no data there, or "
            "outside the mask"
        )
    gone = (counts.labelled > 0) & (counts.usable == 0)
    if gone.any():
        yield f"every labelled pixel left out, not learned: {_listed(named[gone])}"
    yield from _training_notes(plan, counts, named, options)
    if options.kind == "none":
        yield "nothing is held out: a score on these labels would be too good"
        return
    if options.kind == "random":
        yield (
            "random split: optimistic, because pixels that are scored lie next to pixels that "
            "are learned from and share their surroundings"
        )
    if plan.ground.halves is not None:
        side, held = plan.ground.halves.side, plan.ground.held_out
        yield (
            f"{np.count_nonzero(held)} of {len(held)} blocks of {side} x {side} pixels are held "
            f"out; {counts.buffer.sum()} labelled pixels in them lie within {options.buffer} "
            "pixels of one that is learned from and are left out"
        )
    yield from _scoring_notes(counts, named, options)


def _training_notes(
    plan: Allotment, counts: SplitCounts, names: NDArray[np.object_], options: SplitOptions
) -> Iterator[str]:
    capped = plan.wanted[1:] > MOST_DRAWN
    if capped.any():
        yield f"{MOST_DRAWN} pixels of a class are drawn, no more: {_listed(names[capped])}"
    if options.per_class is not None:
        few = (counts.training > 0) & (counts.training < min(options.per_class, MOST_DRAWN))
        if few.any():
            found = zip(names[few], counts.training[few], strict=True)
            fewer = _listed(np.array([f"{name} ({count})" for name, count in found], object))
            yield f"fewer than {options.per_class} pixels to learn from: {fewer}"


def _scoring_notes(
    counts: SplitCounts, names: NDArray[np.object_], options: SplitOptions
) -> Iterator[str]:
    """Which classes are not scored, and why."""
    unscored = (counts.usable > 0) & (counts.held_out == 0)
    single = unscored & (counts.usable == 1)
    if single.any():
        yield f"one labelled pixel, learned from, not scored: {_listed(names[single])}"
    near = unscored & (counts.buffer > 0)
    if near.any():
        yield (
            f"all held-out pixels within {options.buffer} pixels of what is learned from: "
            f"not scored: {_listed(names[near])}"
        )
    rest = unscored & ~single & ~near
    if rest.any() and options.kind == "random":
        yield f"every pixel learned from in some scene, not scored: {_listed(names[rest])}"
    elif rest.any():
        yield (
            f"in one block, or within {options.buffer} pixels of what is learned from: "
            f"learned from whole, not scored: {_listed(names[rest])}"
        )


def _listed(names: NDArray[np.object_]) -> str:
    return listed(names.tolist())
