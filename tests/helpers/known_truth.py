"""Simulated models whose true accuracies, differences and calibration are known.

Each document has a difficulty: the probability that a model is correct about it. It is one of eight
equally likely values, whose mean is the accuracy. All models share one random draw for a document,
so they tend to be correct about the same documents. For a share of the documents, each model makes
its own draw instead; this share sets how often two models disagree. A model's shift (the effect of
its arm plus that of its seed) changes its accuracy. A document follows its group in every respect
or in none.

The truth does not depend on any sample. It is a sum over the eight difficulties and over quantiles
of the noise in a model's confidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import beta, norm

from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.evaluate.results import Run
from regreason_plugin.evaluate.task_results import TaskResult
from regreason_plugin.evaluate.task_setting import TaskSetting
from regreason_plugin.metrics.answers import Answers
from regreason_plugin.metrics.count_formulas import entropy

Array = NDArray[np.float64]

LABELS = np.array([0.10, 0.15, 0.20, 0.25, 0.30])
K = len(LABELS)
AXES = 3
# Number of bins of confidence, which have equal width.
BINS = 15
DATA = "ab" * 32
_DIFFICULTIES = 8
# The difficulties are those of a beta distribution with this many pseudo-observations.
_SPREAD_OF_DIFFICULTIES = 4.0
_LEAST_CONFIDENCE, _MOST_CONFIDENCE = 1 / K + 0.005, 1 - 1e-6
# Shifts are clipped at this many standard deviations.
_FARTHEST = 3.0

GROUPS = {
    "equal": (3,) * 100,
    "4x50+100x1": (50,) * 4 + (1,) * 100,
    "10x50+300x1": (50,) * 10 + (1,) * 300,
    "heavy tail": tuple(int(s) for s in np.floor((1 - (np.arange(120) + 0.5) / 120) ** -0.8)),
    "3000x1": (1,) * 3000,
    "1000x3": (3,) * 1000,
    "large": (2,) * 20000,
}


@dataclass(frozen=True)
class Design:
    """The parameters of a simulation.

    Attributes:
        groups: A key of `GROUPS`, which gives the number of documents of each group in one setting.
        seeds: Number of seeds of each arm.
        arms: Number of arms, including the baseline.
        settings: Number of settings: 1, or datasets times three axes that share conversations.
        accuracy: Accuracy of every model before its shift.
        discordance: Share of documents about which two models disagree, before their shifts.
        spread: Standard deviation of the accuracies over seeds.
        common: Share of the seeds' variance that is the same in all settings.
        alike: Correlation of two documents of a group.
        effects: Effect of each arm on the accuracy, the baseline's first; 0 for further arms.
        spreads: Factors by which the arms' standard deviations over seeds differ from ``spread``.
        sharpness: Factor of each arm for its log odds of being correct. With 0, a model states its
            accuracy for all documents. Without noise, 1 and 0 are calibrated.
        noise: Standard deviation of the noise in these log odds, by document and model.
    """

    groups: str = "equal"
    seeds: int = 3
    arms: int = 2
    settings: int = 1
    accuracy: float = 0.7
    discordance: float = 0.1
    spread: float = 0.0
    common: float = 0.5
    alike: float = 0.5
    effects: tuple[float, ...] = ()
    spreads: tuple[float, ...] = ()
    sharpness: tuple[float, ...] = ()
    noise: float = 0.3

    @property
    def names(self) -> list[str]:
        """The names of the arms, the baseline's first."""
        return list(ARMS)[: self.arms]

    @cached_property
    def difficulties(self) -> Array:
        """The probabilities of being correct, ``[8]``."""
        middles = (np.arange(_DIFFICULTIES) + 0.5) / _DIFFICULTIES
        a, b = self.accuracy, 1 - self.accuracy
        quantiles: Array = beta.ppf(
            middles, a * _SPREAD_OF_DIFFICULTIES, b * _SPREAD_OF_DIFFICULTIES
        )
        low, high = (quantiles.mean() / self.accuracy, (1 - quantiles).mean() / b)
        # Eight points do not have exactly the distribution's mean, so they are rescaled.
        return quantiles / low if low >= 1 else 1 - (1 - quantiles) / high

    @property
    def alone(self) -> float:
        """The share of documents for which a model makes its own draw; above 1 if impossible."""
        most = float((2 * self.difficulties * (1 - self.difficulties)).mean())
        return 1 - (1 - self.discordance / most) ** 0.5 if self.discordance <= most else 2.0

    @property
    def possible(self) -> bool:
        """Whether answers with these parameters can be simulated."""
        room = min(self.accuracy, 1 - self.accuracy)
        farthest = _FARTHEST * self.spread * max(self.spreads, default=1.0)
        effect = max(map(abs, self.effects), default=0.0)
        enough = self.discordance >= max(1.5 * self.spread, 0.4 * effect)
        return self.alone <= 1 and farthest + effect < room and enough

    def of_arm(self, values: tuple[float, ...], default: float) -> Array:
        """The value of each arm, ``[arms]``."""
        return np.array([*values, *[default] * (self.arms - len(values))])

    def shifts(self, random: np.random.Generator) -> Array:
        """The shift of each model's accuracy in each setting, ``[arms, seeds, settings]``."""
        model = random.normal(size=(self.arms, self.seeds, 1))
        setting = random.normal(size=(self.arms, self.seeds, self.settings))
        drawn = self.common**0.5 * model + (1 - self.common) ** 0.5 * setting
        scale = self.spread * self.of_arm(self.spreads, 1.0)[:, None, None]
        effects = self.of_arm(self.effects, 0.0)[:, None, None]
        return effects + scale * np.clip(drawn, -_FARTHEST, _FARTHEST)

    def right(self, difficulty: Array, shift: Array) -> Array:
        """The probability of being correct about documents of a difficulty, broadcast."""
        room = np.where(
            shift > 0, (1 - difficulty) / (1 - self.accuracy), difficulty / self.accuracy
        )
        return difficulty + shift * room

    def confidence(self, difficulty: Array, arm: int, noise: Array) -> Array:
        """The confidence of an arm's model, broadcast."""
        sharpness = float(self.of_arm(self.sharpness, 1.0)[arm])
        if sharpness == 0:
            stated = np.full(np.broadcast(difficulty, noise).shape, self.accuracy)
        else:
            stated = expit(sharpness * logit(difficulty) + self.noise * noise)
        return np.clip(stated, _LEAST_CONFIDENCE, _MOST_CONFIDENCE)


# --- the truth -------------------------------------------------------------------------------


class Truth:
    """The true values of a design's metrics.

    Args:
        design: The parameters of the simulation.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self._known: dict[tuple[str, int], tuple[Array, Array]] = {}
        self._by_arm: dict[str, Array] = {}

    def of_model(self, metric: str, arm: int, shift: Array) -> Array:
        """The true values of a metric for models of one arm with these shifts, elementwise."""
        if metric == "acc":
            return self.design.accuracy + shift
        # The function is smooth on either side of 0, where other documents begin to change.
        grid, values = self._grid(metric, arm)
        return np.interp(shift, grid, values)

    def of_arm(self, metric: str, arm: int) -> float:
        """The true value of a metric for an arm, over new seeds."""
        design = self.design
        effect = float(design.of_arm(design.effects, 0.0)[arm])
        spread = design.spread * float(design.of_arm(design.spreads, 1.0)[arm])
        quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000).clip(-_FARTHEST, _FARTHEST)
        return float(self.of_model(metric, arm, effect + spread * quantiles).mean())

    def of_page(self, metric: str, shifts: Array) -> tuple[Array, Array]:
        """The true values of every arm by setting and pooled, ``[arms, settings]``, ``[arms]``.

        With one or two seeds, they are the means over these models; otherwise over new seeds.
        """
        design = self.design
        if design.seeds < 3:
            by_setting = np.stack(
                [self.of_model(metric, arm, shifts[arm]).mean(axis=0) for arm in range(design.arms)]
            )
        else:
            if metric not in self._by_arm:
                each = [self.of_arm(metric, arm) for arm in range(design.arms)]
                self._by_arm[metric] = np.array(each)
            by_setting = np.repeat(self._by_arm[metric][:, None], design.settings, axis=1)
        return by_setting, by_setting.mean(axis=1)

    def _grid(self, metric: str, arm: int) -> tuple[Array, Array]:
        # Arms with the same sharpness share one grid.
        sharpness = self.design.of_arm(self.design.sharpness, 1.0)
        arm = int(np.flatnonzero(sharpness == sharpness[arm])[0])
        if (metric, arm) not in self._known:
            reach = _FARTHEST * self.design.spread * max(self.design.spreads, default=1.0)
            reach += max(map(abs, self.design.effects), default=0.0)
            grid = np.linspace(-1, 1, 81) * reach if reach else np.zeros(1)
            values = np.array([self._exactly(metric, arm, float(shift)) for shift in grid])
            self._known[metric, arm] = grid, values
        return self._known[metric, arm]

    def _exactly(self, metric: str, arm: int, shift: float) -> float:
        design = self.design
        noise = norm.ppf((np.arange(400) + 0.5) / 400)[None, :]
        difficulty = design.difficulties[:, None]
        right = np.broadcast_to(design.right(difficulty, np.array(shift)), (_DIFFICULTIES, 400))
        stated = design.confidence(difficulty, arm, noise)
        other = (1 - stated) / (K - 1)
        if metric == "nll":
            return float(-(right * np.log(stated) + (1 - right) * np.log(other)).mean())
        if metric == "overconfidence":
            return float((stated - right).mean())
        if metric == "label_entropy":
            logs = np.log(np.stack([stated, *[other] * (K - 1)], axis=-1))
            return float(entropy(logs).mean())
        if metric == "miscalibration":
            bins = np.clip(np.ceil(stated * BINS).astype(int) - 1, 0, BINS - 1)
            gaps = np.bincount(bins.ravel(), (stated - right).ravel(), BINS)
            counts = np.bincount(bins.ravel(), minlength=BINS)
            return 100 * float((gaps**2 / np.maximum(counts, 1)).sum() / right.size)
        return self._of_table(metric, float(right.mean()))

    def _of_table(self, metric: str, accuracy: float) -> float:
        """The value of a metric from the probabilities of every label and prediction."""
        table = np.outer(LABELS, np.full(K, (1 - accuracy) / (K - 1)))
        table[np.diag_indices(K)] = LABELS * accuracy
        off = np.subtract.outer(np.arange(K), np.arange(K))
        if metric == "mae":
            return float((np.abs(off) * table).sum())
        predicted = table.sum(axis=0)
        if metric == "qwk":
            return float(1 - (off**2 * table).sum() / (off**2 * np.outer(LABELS, predicted)).sum())
        if metric == "macro_f1":
            return float((2 * np.diag(table) / (LABELS + predicted)).mean())
        raise KeyError(metric)


# --- answers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulated:
    """The models of one simulated page.

    Attributes:
        runs: One run for each model, arm after arm.
        answers: The answers of each run, by task.
        shifts: Shifts of the models (`Design.shifts`).
    """

    runs: list[Run]
    answers: dict[str, list[Answers]] = field(repr=False)
    shifts: Array


def simulate(design: Design, random: np.random.Generator) -> Simulated:
    """Draw models and their answers."""
    shifts = design.shifts(random)
    tasks = tasks_of(design)
    by_task: dict[str, list[Answers]] = {}
    axes = AXES if design.settings > 1 else 1
    for first in range(0, design.settings, axes):
        settings = list(tasks)[first : first + axes]
        drawn = _conversations(design, random, shifts[:, :, first : first + axes])
        by_task.update(zip(settings, drawn, strict=True))
    return Simulated(_runs(design), by_task, shifts)


def _conversations(
    design: Design, random: np.random.Generator, shifts: Array
) -> list[list[Answers]]:
    """The answers of all models about the same conversations, one list for each axis."""
    sizes = np.array(GROUPS[design.groups])
    member = np.repeat(np.arange(len(sizes)), sizes)
    axes, models, documents = shifts.shape[2], design.arms * design.seeds, len(member)
    follows = random.random((axes, documents)) < design.alike**0.5

    def both(draw: Callable[[tuple[int, ...]], NDArray[np.floating]], *leading: int) -> Array:
        """A draw of the document or of its group, ``[leading..., axes, documents]``."""
        own = draw((*leading, axes, documents))
        of_group = draw((*leading, len(sizes)))[..., None, member]
        return np.where(follows, of_group, own)

    def uniform(shape: tuple[int, ...]) -> NDArray[np.float32]:
        return random.random(shape, dtype=np.float32)

    def normal(shape: tuple[int, ...]) -> NDArray[np.float32]:
        return random.standard_normal(shape, dtype=np.float32)

    difficulty = design.difficulties[(both(uniform) * _DIFFICULTIES).astype(int)]
    labels = np.searchsorted(LABELS.cumsum()[:-1], both(uniform), side="right")
    alone = both(uniform, models) < design.alone
    luck = np.where(alone, both(uniform, models), both(uniform))
    shift = shifts.reshape(models, axes)[:, :, None]
    right = luck < design.right(difficulty, shift)
    away = np.where(alone, both(uniform, models), both(uniform))
    offset = np.where(right, 0, 1 + (away * (K - 1)).astype(int))
    predictions = (labels + offset) % K
    noise = both(normal, models).reshape(design.arms, design.seeds, axes, documents)
    stated = np.stack(
        [design.confidence(difficulty, arm, noise[arm]) for arm in range(design.arms)]
    ).reshape(models, axes, documents)
    logs = np.repeat(np.log((1 - stated) / (K - 1))[..., None], K, axis=-1)
    np.put_along_axis(logs, predictions[..., None], np.log(stated)[..., None], axis=-1)
    ids = [f"{number:04d}" for number in range(documents)]
    groups = [f"{group:04d}" for group in member]
    return [
        [
            Answers(
                task="",
                source=Path("samples"),
                ids=ids,
                hashes=ids,
                groups=groups,
                labels=(labels[axis] + 1).astype(np.int64),
                log_probabilities=logs[model, axis],
                probes={},
                layers={},
            )
            for model in range(models)
        ]
        for axis in range(axes)
    ]


@lru_cache(maxsize=1000)
def tasks_of(design: Design, model: int = 0) -> dict[str, TaskResult]:
    """The results of one model that a comparison reads in addition to its answers."""
    return {
        EIGHTEEN.task_name(*setting): TaskResult(
            task=EIGHTEEN.task_name(*setting),
            metrics={},
            stderrs={},
            documents=0,
            original=0,
            fewshot=0,
            version="1",
            # Each dataset has its own conversations.
            data={"origin": "generated", "sha256": f"{place // AXES:064d}"},
            setting=TaskSetting(setting=setting, labels=tuple("12345"), ordinal=True, place=place),
            source=Path(str(model), "results.json"),
        )
        for place, setting in enumerate(list(EIGHTEEN.settings)[: design.settings])
    }


def _runs(design: Design) -> list[Run]:
    return [
        Run(
            name=name,
            folder=Path("results"),
            tasks=tasks_of(design, arm * design.seeds + seed - 1),
            config={},
            environment={},
            training={"arm": name, "seed": seed, "data": {"sha256": DATA}},
        )
        for arm, name in enumerate(design.names)
        for seed in range(1, design.seeds + 1)
    ]
