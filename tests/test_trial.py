from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hsiclust import trial as trials
from hsiclust.components import Components
from hsiclust.labeller import Labels
from hsiclust.trial import fastest

BLOCKS = [Components(torch.zeros(1, 110, 110), torch.ones(110, 110, dtype=torch.bool))]


class Time:
    """The clock, which goes on when somebody works."""

    now = 0.0


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "perf_counter", lambda: Time.now)


@dataclass
class Way:
    """Takes so long, and labels so many pixels otherwise."""

    seconds: float
    wrong: int = 0
    halo: int = 0

    def __call__(self, components: Components) -> Labels:
        Time.now += self.seconds
        classes = np.ones(components.valid.shape, np.uint8)
        classes.ravel()[: self.wrong] = 2
        return Labels(classes, classes)


def test_the_fastest_of_equal_ways_is_taken() -> None:
    trial = fastest({"slow": Way(0.03), "fast": Way(0.003, wrong=1), "same": Way(0.03)}, BLOCKS)
    assert trial.chosen == "fast"
    assert trial.rates["fast"] > trial.rates["slow"]
    assert trial.agreement["fast"] == 1 - 1 / 12100
    assert str(trial).startswith("fast is used: slow 0.")


def test_a_hopeless_way_is_not_tried_on_all_blocks() -> None:
    Time.now = 0.0
    trial = fastest({"fast": Way(0.01), "slow": Way(0.1)}, BLOCKS * 99)
    assert trial.chosen == "fast"
    assert Time.now < 0.3
    assert trial.rates["slow"] < trial.rates["fast"] / 9
    assert str(trial).endswith("; slow 0.07 Mpixel/s a thread")


def test_other_labels_are_not_worth_the_time() -> None:
    trial = fastest({"slow": Way(0.02), "fast": Way(0.002, wrong=2)}, BLOCKS)
    assert trial.chosen == "slow"
    assert trial.agreement["fast"] < 0.9999
