"""The temperature of a model: against statsmodels, and by simulation with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.discrete.conditional_models import ConditionalLogit

from regreason_plugin.comparison.temperature import NoTemperatureError, fit_temperature

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def draw(
    random: np.random.Generator,
    sizes: list[int],
    labels: int,
    temperature: float,
    spread: float,
    alike: float = 0.0,
) -> tuple[Array, Integers, Integers]:
    """Scores, and labels drawn from softmax(scores / temperature).

    Args:
        sizes: The number of documents of each group.
        labels: The number of labels.
        temperature: The true temperature.
        spread: The standard deviation of the scores, half of whose variance a group shares.
        alike: The probability that a document takes its group's random number, so that its group
            is right or wrong together.
    """
    member = np.repeat(np.arange(len(sizes)), sizes)
    of_group = random.normal(size=(len(sizes), labels))[member]
    scores = (of_group + random.normal(size=of_group.shape)) * spread / 2**0.5
    probabilities = np.exp(scores / temperature)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    order = np.argsort(-probabilities, axis=1)
    ranked = np.take_along_axis(probabilities, order, 1).cumsum(axis=1)
    shared = random.random(len(sizes))[member]
    uniform = np.where(random.random(len(member)) < alike, shared, random.random(len(member)))
    rank = (ranked[:, :-1] < uniform[:, None]).sum(axis=1)
    return scores, np.take_along_axis(order, rank[:, None], 1)[:, 0] + 1, member


def conditional_logit(scores: Array, labels: Integers) -> ConditionalLogit:
    """The model P(label) = softmax(b x score), whose coefficient b is 1 / T."""
    count, size = scores.shape
    chosen = (np.arange(size) + 1 == labels[:, None]).astype(int)
    documents = np.repeat(np.arange(count), size)
    return ConditionalLogit(chosen.ravel(), scores.reshape(-1, 1), groups=documents)


@pytest.mark.parametrize(("labels", "temperature"), [(2, 0.6), (3, 1.0), (7, 2.5)])
def test_same_as_a_conditional_logit(labels: int, temperature: float) -> None:
    scores, right, member = draw(np.random.default_rng(3), [1] * 150, labels, temperature, 3)
    # A constant in each row, as log-likelihoods have, makes no difference.
    fitted = fit_temperature(scores - 40 * np.arange(150)[:, None], right, member)
    model = conditional_logit(scores, right)
    assert fitted.value == pytest.approx(1 / float(model.fit(disp=0).params[0]), rel=1e-4)
    assert model.score(np.array([1 / fitted.value]))[0] == pytest.approx(0, abs=1e-7)
    # Both ends are as many standard deviations from the estimate: at least those of a t with 149
    # degrees of freedom at most, times the square root of the design effect, which is 1 or more.
    assert fitted.low is not None
    assert fitted.high is not None
    low, high = (
        float(model.score(np.array([1 / end]))[0])
        / (-np.asarray(model.hessian(np.array([1 / end]))).item()) ** 0.5
        for end in (fitted.low, fitted.high)
    )
    assert high == pytest.approx(-low, rel=1e-4)
    assert stats.t.ppf(0.975, 149) < high < 1.3 * stats.t.ppf(0.975, 149)


def test_a_document_in_its_group_again_tells_nothing_new() -> None:
    scores, right, member = draw(np.random.default_rng(8), [2] * 60, 3, 1.5, 3, alike=0.9)
    once = fit_temperature(scores, right, member)
    thrice = fit_temperature(*(np.repeat(of, 3, axis=0) for of in (scores, right, member)))
    assert thrice.value == pytest.approx(once.value)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), rel=0.02)
    as_if_new = fit_temperature(
        np.repeat(scores, 3, axis=0), np.repeat(right, 3), np.arange(3 * len(member))
    )
    assert as_if_new.high is not None
    assert thrice.high is not None
    assert as_if_new.high < 0.9 * thrice.high  # or this test could not fail


# Sizes of groups, number of labels, true temperature, spread of the scores, how alike a group is.
DESIGNS = {
    "few documents": ([1] * 60, 3, 1.5, 2.0, 0.0),
    "groups are right or wrong together": ([3] * 60, 5, 0.7, 3.0, 0.9),
    "heavy groups": ([1] * 60 + [20] * 3, 4, 1.5, 3.0, 0.7),
    "accuracy 0.95, two labels": ([1] * 200, 2, 1.0, 8.0, 0.0),
    "twelve labels": ([1] * 80, 12, 1.6, 3.0, 0.0),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_the_interval_covers_the_truth(design: str) -> None:
    random, draws = np.random.default_rng(20), 400
    truth = DESIGNS[design][2]
    covered = below = 0
    for _ in range(draws):
        fitted = fit_temperature(*draw(random, *DESIGNS[design]))
        assert fitted.low is not None
        covered += fitted.low <= truth and (fitted.high is None or truth <= fitted.high)
        below += fitted.value < truth
    # Of 400 intervals that cover with 0.95, fewer than 365 or more than 394 cover with p < 0.0015.
    assert 365 <= covered <= 394, covered / draws
    assert 0.4 < below / draws < 0.65


def test_no_temperature() -> None:
    scores, right, member = draw(np.random.default_rng(1), [1] * 50, 3, 1.0, 3.0)
    with pytest.raises(NoTemperatureError, match="the true label has the highest score in every"):
        fit_temperature(scores, scores.argmax(axis=1) + 1, member)
    with pytest.raises(NoTemperatureError, match="score no higher than the other labels do on"):
        fit_temperature(scores, scores.argmin(axis=1) + 1, member)
    with pytest.raises(NoTemperatureError, match="the true label has the highest score in every"):
        fit_temperature(np.zeros((50, 3)), right, member)


def test_rows_that_set_no_end() -> None:
    scores, right, member = draw(np.random.default_rng(2), [1] * 30, 3, 12.0, 3.0)
    fitted = fit_temperature(scores, right, member)
    assert fitted.low is not None
    assert fitted.high is None
    assert fitted.low < fitted.value
    alone = fit_temperature(scores, right, np.zeros(30, dtype=np.int64))
    assert (alone.low, alone.high) == (None, None)
    assert alone.value == fitted.value
