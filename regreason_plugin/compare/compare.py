"""Several arms against one: every figure of a `Comparison`, from the folders of results."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from regreason_plugin.build.arms import ARMS
from regreason_plugin.compare import comparison as form
from regreason_plugin.compare.arms import by_name
from regreason_plugin.compare.comparability import (
    check_same_documents,
    check_same_protocol,
    check_same_setup,
    data_of,
    is_generative,
    tasks_of,
)
from regreason_plugin.compare.costs import cost_of
from regreason_plugin.compare.detectable import needed
from regreason_plugin.compare.differences import difference_of, holm, interval_of, rounded
from regreason_plugin.compare.disagreements import Disagreement, choose
from regreason_plugin.compare.estimates import BOOTSTRAP_SEED, DRAWS, Estimates, Models
from regreason_plugin.compare.fieller import fieller
from regreason_plugin.compare.learning_curves import curves_of
from regreason_plugin.compare.seed_pairs import SeedPairs, pair_seeds
from regreason_plugin.compare.task_scores import TaskScores, read_tasks
from regreason_plugin.compare.verdict import answers, notes_of
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.version import __version__
from regreason_plugin.evaluate.results import Run, model_arguments
from regreason_plugin.evaluate.samples import LAYERS
from regreason_plugin.evaluate.scoring_notes import scoring_notes
from regreason_plugin.evaluate.task_setting import in_paper
from regreason_plugin.metrics.label_metrics import ECE_BINS

# What the others are a part of.
WHOLE_GAIN = "explanation"
_LIBRARIES = ("numpy", "scipy", "statsmodels", "scikit-learn")


@dataclass(frozen=True)
class Compared:
    """A comparison and the single documents behind it.

    Attributes:
        comparison: Every figure.
        disagreements: Some of the documents about which arms disagree.
        disagreeing: How many there are in all.
    """

    comparison: form.Comparison
    disagreements: list[Disagreement]
    disagreeing: int


def compare(
    runs: Sequence[Run],
    baseline: str,
    *,
    difference: float = 0.02,
    command: str = "",
    advance: Callable[[int], object] = lambda _: None,
) -> Compared:
    """Hold every arm against the baseline, document by document.

    Args:
        runs: A run a model; those of one name are the seeds of an arm. Two names or more.
        baseline: The name of the one to compare with.
        difference: In pooled accuracy, whose price in documents and seeds is told.
        command: What was typed, for the record.
        advance: Told how many settings are done.

    Raises:
        UserError: The runs have no samples, or were not made on the same documents in the same
            way.
    """
    arms = _in_order(by_name(runs), baseline)
    _check_comparable(arms)
    tasks = tasks_of(arms[baseline][0])
    ordered = [run for arm in arms.values() for run in arm]
    table = _Table(arms, baseline, read_tasks(ordered, tasks, advance))
    first = arms[baseline][0]
    fields: dict[str, Any] = {
        "regreason": __version__,
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "command": command,
        "data": data_of(first.tasks[task] for task in tasks),
        "protocol": "explanation_first" if is_generative(first) else "label_first",
        "baseline": baseline,
        "arms": table.others,
        "seeds": {name: [run.seed for run in arm] for name, arm in arms.items()},
        "level": form.LEVEL,
        "power": form.POWER,
        "draws": DRAWS,
        "bootstrap_seed": BOOTSTRAP_SEED,
        "metrics": table.metrics,
        "settings": [_setting(scores) for scores in table.tasks],
        "settings_in_paper": in_paper(scores.setting for scores in table.tasks),
        "scores": table.scores(),
        "differences": table.differences(),
        "pooled_scores": table.pooled_scores(),
        "pooled": table.pooled(),
        "wins": table.wins(),
        "needed": table.needed(difference),
        "gap_of": WHOLE_GAIN if WHOLE_GAIN in table.others else None,
        "gap": table.gaps(),
        "layers": table.layers(),
        "reliability": {name: table.reliability(name) for name in arms},
        "confusion": {name: table.confusion(name) for name in arms},
        "classes": {name: table.classes(name) for name in arms},
        "curves": {name: curves_of(arm) for name, arm in arms.items()},
        "costs": {name: cost_of(arm) for name, arm in arms.items()},
        "answers": [],
        "notes": [],
        "runs": [_record(name, run, tasks) for name, arm in arms.items() for run in arm],
    }
    made = rounded(form.Comparison(**fields))
    notes = notes_of(made, table.pairs, _left_out(arms, tasks), table.not_shared)
    notes += [note for arm in arms.values() for run in arm for note in run.misfit_notes]
    notes += scoring_notes(ordered, [list(scores.probabilities) for scores in table.tasks])
    made = made.model_copy(update={"notes": notes})
    made = made.model_copy(update={"answers": answers(made)})
    chosen, count = choose(table.tasks, first, {name: table.models[name] for name in arms})
    return Compared(made, chosen, count)


def _in_order(arms: dict[str, list[Run]], baseline: str) -> dict[str, list[Run]]:
    """The baseline, then the paper's arms, then others by name: whatever order they came in."""
    if baseline not in arms:
        raise UserError(f"--baseline {baseline!r} is none of {', '.join(arms)}")
    if len(arms) < 2:
        raise UserError("nothing to compare with the baseline; give NAME=RESULTS twice or more")
    order = list(ARMS)

    def place(name: str) -> tuple[bool, int, str]:
        arm = arms[name][0].training.get("arm", name)
        return name != baseline, order.index(arm) if arm in order else len(order), name

    return {name: arms[name] for name in sorted(arms, key=place)}


def _check_comparable(arms: dict[str, list[Run]]) -> None:
    base, *others = [run for arm in arms.values() for run in arm]
    for run in others:
        check_same_protocol(base, run)
        check_same_setup(base, run)
        for task in tasks_of(base):
            check_same_documents(base, run, task)
    trained = [run for run in (base, *others) if run.training]
    for run in trained[1:]:
        first = trained[0]
        if run.training["data"]["sha256"] != first.training["data"]["sha256"]:
            raise UserError(
                f"{run.name!r} and {first.name!r} were trained on different data "
                f"({run.training['data']['path']} and {first.training['data']['path']}); "
                "train both on the same folder",
                path=run.folder,
            )


def _left_out(arms: dict[str, list[Run]], tasks: list[str]) -> dict[str, list[str]]:
    """Settings that an arm has and the baseline lacks, by arm."""
    more = {
        name: sorted({t for run in arm for t in run.tasks} - {*tasks}) for name, arm in arms.items()
    }
    return {name: lacking for name, lacking in more.items() if lacking}


def _setting(scores: TaskScores) -> form.Setting:
    setting = scores.setting
    labels = scores.confusion[0].sum(axis=1)
    return form.Setting(
        task=scores.task,
        dataset=setting.dataset,
        axis=setting.axis,
        title=setting.title,
        axis_title=setting.axis_title,
        documents=len(scores.ids),
        groups=len(scores.sums.groups),
        majority_acc=float(labels.max() / labels.sum()),
        labels=labels.tolist(),
        label_names=list(setting.labels),
        ordinal=setting.ordinal,
    )


def _record(name: str, run: Run, tasks: list[str]) -> form.RunRecord:
    arguments = ",".join(f"{key}={value}" for key, value in model_arguments(run.config).items())
    kept = ("limit", "batch_size", "gen_kwargs", *(k for k in run.config if k.endswith("_seed")))
    return form.RunRecord(
        arm=name,
        seed=run.seed if isinstance(run.seed, int) else None,
        model=run.model,
        model_args=arguments or str(run.config.get("model_args") or ""),
        results=sorted({run.tasks[task].source.name for task in tasks}),
        environment=run.environment,
        evaluation={key: run.config.get(key) for key in kept},
        training=run.training,
    )


class _Table:
    """The figures of all arms; models are numbered in the order of the arms and their seeds."""

    def __init__(self, arms: dict[str, list[Run]], baseline: str, tasks: list[TaskScores]) -> None:
        self.tasks = tasks
        self.baseline = baseline
        self.others = [name for name in arms if name != baseline]
        self.models: dict[str, list[int]] = {}
        start = 0
        for name, arm in arms.items():
            self.models[name] = list(range(start, start + len(arm)))
            start += len(arm)
        self.seeds = {name: [run.seed for run in arm] for name, arm in arms.items()}
        self.pairs: dict[str, SeedPairs] = {
            name: pair_seeds(self.seeds[name], self.seeds[baseline]) for name in self.others
        }
        self._alone = {name: Models(tuple(models)) for name, models in self.models.items()}
        self._against = {name: self._paired(name, self.pairs[name].places) for name in self.others}
        drawn = [*self._alone.values(), *self._against.values()]
        self._estimates = Estimates(tasks, drawn)
        self.metrics = self._estimates.metrics
        self.not_shared = self._estimates.not_shared

    def _paired(self, name: str, places: Sequence[tuple[int, int]]) -> Models:
        ours, base = self.models[name], self.models[self.baseline]
        return Models(tuple(ours[i] for i, _ in places), tuple(base[j] for _, j in places))

    def scores(self) -> dict[str, dict[str, dict[str, form.Score]]]:
        return {
            name: {
                scores.task: {metric: self._score(metric, name, at) for metric in self.metrics}
                for at, scores in enumerate(self.tasks)
            }
            for name in self.models
        }

    def pooled_scores(self) -> dict[str, dict[str, form.Score]]:
        return {
            name: {metric: self._score(metric, name, None) for metric in self.metrics}
            for name in self.models
        }

    def _score(self, metric: str, name: str, at: int | None) -> form.Score:
        models = self._alone[name]
        interval = interval_of(self._estimates.estimate(metric, models, at))
        by_seed = self._estimates.statistic(metric, models, at).values
        known = [float(value) if np.isfinite(value) else None for value in by_seed]
        return form.Score(**interval.model_dump(), by_seed=known)

    @cached_property
    def _settings(self) -> dict[str, dict[str, dict[str, form.Difference]]]:
        found = {
            name: {
                scores.task: {metric: self._difference(metric, name, at) for metric in self.metrics}
                for at, scores in enumerate(self.tasks)
            }
            for name in self.others
        }
        for metric in self.metrics:
            holm([(of[metric], of, metric) for arm in found.values() for of in arm.values()])
        return found

    def differences(self) -> dict[str, dict[str, dict[str, form.Difference]]]:
        return self._settings

    def pooled(self) -> dict[str, dict[str, form.Difference]]:
        found = {
            name: {metric: self._difference(metric, name, None) for metric in self.metrics}
            for name in self.others
        }
        for metric in self.metrics:
            holm([(of[metric], of, metric) for of in found.values()])
        return found

    def _difference(self, metric: str, name: str, at: int | None) -> form.Difference:
        models = self._against[name]
        scores = None if at is None else self.tasks[at]
        return difference_of(
            metric,
            self._estimates.estimate(metric, models, at),
            models,
            scores,
            self._estimates,
        )

    def wins(self) -> dict[str, form.Wins]:
        found = {}
        for name in self.others:
            values = [of["acc"].value or 0.0 for of in self._settings[name].values()]
            found[name] = form.Wins(
                # What cancels out over seeds is a tie, not a win by a rounding error.
                wins=sum(value > 1e-12 for value in values),
                ties=sum(abs(value) <= 1e-12 for value in values),
                losses=sum(value < -1e-12 for value in values),
                of=len(values),
            )
        return found

    def needed(self, difference: float) -> dict[str, form.Needed]:
        found = {}
        for name in self.others:
            values, influence = self._estimates.statistic("acc", self._against[name])
            groups = seeds = None
            if influence.shape[1] > 1:
                groups, seeds = needed(values, influence, difference)
            found[name] = form.Needed(difference=difference, groups=groups, seeds=seeds)
        return found

    def _seed(self, name: str, arm: int, base: int) -> Any:
        """The training seed of a pair; where the baseline has none, the arm's."""
        seed = self.seeds[self.baseline][base]
        return self.seeds[name][arm] if seed is None else seed

    def gaps(self) -> dict[str, form.Gap]:
        """Of models whose seeds the arm, the explanation's and the baseline all have."""
        if WHOLE_GAIN not in self.others:
            return {}
        whole = {self._seed(WHOLE_GAIN, i, j): i for i, j in self.pairs[WHOLE_GAIN].places}
        found = {}
        for name in self.others:
            if name == WHOLE_GAIN:
                continue
            places = [(i, j) for i, j in self.pairs[name].places if self._seed(name, i, j) in whole]
            if not places:
                continue
            parts = [
                self._estimates.statistic("acc", self._paired(name, places)),
                self._estimates.statistic(
                    "acc",
                    self._paired(
                        WHOLE_GAIN, [(whole[self._seed(name, i, j)], j) for i, j in places]
                    ),
                ),
            ]
            values = np.stack([part.values for part in parts])
            influence = np.stack([part.influence for part in parts])
            if influence.shape[2] > 1:
                found[name] = fieller(values, influence)
        return found

    def layers(self) -> dict[str, dict[str, list[form.Interval]]]:
        found = {}
        for name in LAYERS:
            by_arm = {arm: self._estimates.layers(name, self._alone[arm]) for arm in self.models}
            if all(by_arm.values()):
                found[name.removesuffix("_by_layer")] = by_arm
        return found

    def reliability(self, name: str) -> list[form.Bin]:
        sums = sum(scores.bins[self.models[name]].sum(axis=0) for scores in self.tasks)
        made = []
        for place, (count, confidence, correct) in enumerate(np.asarray(sums)):
            made.append(
                form.Bin(
                    low=place / ECE_BINS,
                    high=(place + 1) / ECE_BINS,
                    count=int(count),
                    confidence=float(confidence / count) if count else None,
                    accuracy=float(correct / count) if count else None,
                )
            )
        return made

    def confusion(self, name: str) -> dict[str, list[list[int]]]:
        """Over seeds; over settings, too, where all have the same labels."""
        by_task = {
            scores.task: scores.confusion[self.models[name]].sum(axis=0) for scores in self.tasks
        }
        if len({scores.setting.labels for scores in self.tasks}) == 1:
            return {form.ALL: np.sum(list(by_task.values()), axis=0).tolist()}
        return {task: counts.tolist() for task, counts in by_task.items()}

    def classes(self, name: str) -> dict[str, list[form.Label]]:
        return {scores.task: _classes(scores, self.models[name]) for scores in self.tasks}


def _classes(scores: TaskScores, models: list[int]) -> list[form.Label]:
    """How each label fares with some models together."""
    counts = scores.confusion[models].sum(axis=0)
    made = []
    for place, label in enumerate(scores.setting.labels):
        hits, right, predicted = counts[place, place], counts[place].sum(), counts[:, place].sum()
        made.append(
            form.Label(
                label=label,
                support=int(right) // len(models),
                precision=float(hits / predicted) if predicted else None,
                recall=float(hits / right) if right else None,
                f1=float(2 * hits / (right + predicted)) if right + predicted else None,
            )
        )
    return made
