import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from hsiclust.errors import UsageError
from hsiclust.models.calibration import HIGHEST, LOWEST, fit_temperature


def drawn(count, temperature, classes=5, seed=0):
    """Logits, and classes drawn as softmax(logits / temperature) says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    sums = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, np.minimum((rng.random((count, 1)) > sums).sum(axis=1), classes - 1)


def brier(logits, classes, temperature):
    chances = softmax(logits / temperature, axis=1)
    truth = np.eye(logits.shape[1])[classes]
    return np.square(chances - truth).sum(axis=1).mean()


@pytest.mark.parametrize("temperature", [0.3, 1, 2.5, 8])
def test_the_temperature_that_classes_were_drawn_with_is_found(temperature):
    found = fit_temperature(*drawn(20_000, temperature))
    assert found == pytest.approx(temperature, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 50), true=st.floats(0.1, 10))
@example(seed=4, count=4, true=3.0)  # a narrow valley beside a wide one
def test_no_other_temperature_scores_better(seed, count, true):
    logits, classes = drawn(count, true, seed=seed)
    found = fit_temperature(logits, classes, prior=0)
    assert LOWEST * (1 - 1e-9) <= found <= HIGHEST * (1 + 1e-9)
    tried = np.geomspace(LOWEST, HIGHEST, 300)
    best = min(brier(logits, classes, each) for each in tried)
    assert brier(logits, classes, found) <= best + 1e-6


@pytest.mark.parametrize("prior", [0, 1])
def test_scaled_logits_scale_the_temperature(prior):
    logits, classes = drawn(3000, 1.5)
    one = fit_temperature(logits, classes, prior)
    assert fit_temperature(4 * logits, classes, prior) == pytest.approx(4 * one, rel=1e-3)
    assert fit_temperature(logits + 1e6, classes, prior) == pytest.approx(one, rel=1e-3)


def test_few_pixels_that_are_all_right_do_not_make_certain():
    logits = np.eye(3) * 8.0
    classes = np.arange(3)
    certain = fit_temperature(logits, classes, prior=0)
    assert softmax(logits / certain, axis=1).max(axis=1) == pytest.approx(1, abs=1e-9)
    found = fit_temperature(logits, classes)
    assert softmax(logits / found, axis=1).max(axis=1) == pytest.approx(0.75 + 0.25 / 3, abs=1e-3)


def test_all_wrong_is_hot_and_bounded():
    logits = np.eye(4) * 50.0
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(HIGHEST)


def test_the_prior_fades_with_the_number_of_pixels():
    logits, classes = drawn(20_000, 1)
    assert fit_temperature(logits, classes) == pytest.approx(
        fit_temperature(logits, classes, prior=0), rel=2e-3
    )


def test_the_same_pixels_the_same_temperature_in_any_type():
    logits, classes = drawn(500, 2)
    single = logits.astype(np.float32)
    found = fit_temperature(single, classes)
    assert fit_temperature(single.copy(), classes.astype(np.uint8)) == found
    assert fit_temperature(logits, classes) == pytest.approx(found, rel=1e-4)


def test_no_pixel_and_one_class():
    assert fit_temperature(np.zeros((0, 4)), np.zeros(0, int)) == 1
    assert LOWEST <= fit_temperature(np.full((9, 1), 3.0), np.zeros(9, int)) <= HIGHEST * 1.001


@pytest.mark.parametrize(
    ("logits", "classes", "prior", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), 1, r"logits \(3, 2\) and classes \(2,\)"),
        (np.zeros(3), np.zeros(3, int), 1, "are not"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), 1, "classes 0 to 2 are not 0 to 1"),
        (np.zeros((3, 2)), np.array([0, -1, 1]), 1, "classes -1 to 1 are not 0 to 1"),
        (np.array([[0, np.nan]]), np.array([0]), 1, "not finite"),
        (np.array([[0, np.inf]]), np.array([0]), 1, "not finite"),
        (np.zeros((3, 2)), np.zeros(3, int), -1, "prior of -1"),
    ],
)
def test_what_is_no_logits_is_refused(logits, classes, prior, message):
    with pytest.raises(UsageError, match=message):
        fit_temperature(logits, classes, prior)
