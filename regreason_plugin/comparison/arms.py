"""The arms of a comparison: which results are of which, and which models stand in a pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.evaluate.results import Run, names_results, read_models, some_of

# What came of a training, tells its seeds apart, or follows from data, base and template; all
# else in a record is how it was done.
_OUTCOME = {
    *("arm", "seed", "config_sha256", "versions", "rows", "steps", "epochs", "processes"),
    *("label_tokens", "target_tokens", "cost", "use"),
}
# What a config without the key stands for; nothing (None, 0) goes without saying.
_DEFAULTS = {"order": "label_first", "budget": "rows", "loss_mean": "micro_batch"}


class Models(NamedTuple):
    """Which models a figure is of: means over ``of``, less those of ``minus`` one by one."""

    of: tuple[int, ...]
    minus: tuple[int, ...] = ()


class SeedPairs(NamedTuple):
    """Pairs of models.

    Attributes:
        places: Places in the arm's seeds and in the baseline's, a pair each.
        same: Whether the two of a pair share their seed, as far as both have one.
        left_out: Seeds of either arm that have no partner, as text.
        repeated: Whether one model without a seed stands in every pair.
    """

    places: list[tuple[int, int]]
    same: bool
    left_out: list[str]
    repeated: bool = False


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison, the baseline first; their models are numbered in that order.

    Attributes:
        runs: By arm, a run a seed.
        baseline: The name of the first.
    """

    runs: dict[str, list[Run]]
    baseline: str

    @classmethod
    def of(cls, runs: Iterable[Run], baseline: str) -> Arms:
        """The baseline, then the paper's arms, then others by name: whatever order they came in.

        Raises:
            UserError: As `by_name`, or there is no such baseline, or nothing beside it.
        """
        arms = by_name(runs)
        if baseline not in arms:
            raise UserError(f"--baseline {baseline!r} is none of {', '.join(arms)}")
        if len(arms) < 2:
            raise UserError("nothing to compare with the baseline; give NAME=RESULTS twice or more")
        order = sorted(arms, key=lambda name: (name != baseline, _rank(arms[name][0], name), name))
        return cls({name: arms[name] for name in order}, baseline)

    @cached_property
    def others(self) -> list[str]:
        """The arms without the baseline."""
        return [name for name in self.runs if name != self.baseline]

    @cached_property
    def models(self) -> list[Run]:
        """All models by their number."""
        return [run for arm in self.runs.values() for run in arm]

    @cached_property
    def numbers(self) -> dict[str, tuple[int, ...]]:
        """Each arm's models."""
        every = iter(range(len(self.models)))
        return {name: tuple(next(every) for _ in arm) for name, arm in self.runs.items()}

    @cached_property
    def seeds(self) -> dict[str, list[Any]]:
        """Each arm's training seeds, None where unknown."""
        return {name: [run.seed for run in arm] for name, arm in self.runs.items()}

    @cached_property
    def pairs(self) -> dict[str, SeedPairs]:
        """The models of each arm beside those of the baseline."""
        base = self.seeds[self.baseline]
        return {name: pair_seeds(self.seeds[name], base) for name in self.others}

    def alone(self, name: str) -> Models:
        """An arm."""
        return Models(self.numbers[name])

    def against(self, name: str, places: Sequence[tuple[int, int]] | None = None) -> Models:
        """An arm less the baseline, pair by pair; ``places`` as those of its `pairs`."""
        places = self.pairs[name].places if places is None else places
        return self._less(name, self.baseline, places)

    def between(self, name: str, minus: str) -> Models:
        """An arm less another, pair by pair."""
        return self._less(name, minus, pair_seeds(self.seeds[name], self.seeds[minus]).places)

    def _less(self, name: str, minus: str, places: Sequence[tuple[int, int]]) -> Models:
        ours, others = self.numbers[name], self.numbers[minus]
        return Models(tuple(ours[i] for i, _ in places), tuple(others[j] for _, j in places))

    def shared_pairs(self, name: str, whole: str) -> tuple[Models, Models]:
        """Both arms less the baseline, of the seeds that all three have."""
        places = {self._seed(whole, i, j): i for i, j in self.pairs[whole].places}
        shared = [
            (i, places[seed], j)
            for i, j in self.pairs[name].places
            if (seed := self._seed(name, i, j)) in places
        ]
        return (
            self.against(name, [(i, j) for i, _, j in shared]),
            self.against(whole, [(k, j) for _, k, j in shared]),
        )

    def _seed(self, name: str, arm: int, base: int) -> Any:
        """The training seed of a pair; where the baseline has none, the arm's."""
        seed = self.seeds[self.baseline][base]
        return self.seeds[name][arm] if seed is None else seed


def pair_seeds(arm: Sequence[Any], baseline: Sequence[Any]) -> SeedPairs:
    """Pair models by their seed, or in their order where the arms have no seed in common.

    A single model without a seed, which no training made or no chance had a part in, stands
    against every model of the other arm.

    Models of one seed saw the same rows in the same order from the same start, which makes
    their difference less noisy. Pairs of unequal seeds gain nothing from pairing, and are as
    valid: the seeds' own spread is then that of both arms.
    """
    place = {seed: index for index, seed in enumerate(baseline)}
    shared = [(index, place[seed]) for index, seed in enumerate(arm) if seed in place]
    alone = len(arm) == len(baseline) == 1
    if list(arm) == [None]:
        return SeedPairs([(0, i) for i in range(len(baseline))], True, [], not alone)
    if list(baseline) == [None]:
        return SeedPairs([(i, 0) for i in range(len(arm))], True, [], not alone)
    if shared and not alone:
        ours, theirs = ({pair[side] for pair in shared} for side in (0, 1))
        left = [f"{seed} of the arm" for i, seed in enumerate(arm) if i not in ours]
        left += [f"{seed} of the baseline" for i, seed in enumerate(baseline) if i not in theirs]
        return SeedPairs(shared, True, left)
    count = min(len(arm), len(baseline))
    left = [f"{seed} of the arm" for seed in arm[count:]]
    left += [f"{seed} of the baseline" for seed in baseline[count:]]
    return SeedPairs([(i, i) for i in range(count)], list(arm) == list(baseline), left)


def read_arms(arguments: list[str]) -> list[Run]:
    """Read what ``compare`` is to hold side by side.

    Args:
        arguments: ``NAME=RESULTS`` for the results of one arm, of one or several seeds; or just
            a folder, which is split into its arms and named by them.

    Returns:
        A run a model; those of one name are the seeds of one arm.

    Raises:
        UserError: An argument is neither, or holds what is of no one arm.
    """
    named: dict[str, list[Run]] = {}
    unnamed: list[Run] = []
    for text in arguments:
        name, equals, folder = text.partition("=")
        if text and names_results(Path(text)):
            unnamed += read_models(Path(text).name, Path(text))
        elif not equals or not name or not folder:
            raise UserError(
                f"{text!r} is not NAME=RESULTS, such as label_only=runs/label_only, nor a folder "
                "with the results of several arms"
            )
        elif name in named:
            raise UserError(f"the name {name!r} stands twice; give each run its own")
        else:
            named[name] = read_models(name, Path(folder))
    split = _split(unnamed)
    if twice := named.keys() & {run.name for run in split}:
        raise UserError(f"the name {min(twice)!r} stands twice; give each run its own")
    runs = [*(run for runs in named.values() for run in runs), *split]
    by_name(runs)
    return runs


def by_name(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each name, which are the seeds of one arm, in the order of the seeds.

    Raises:
        UserError: Several of a name are not one arm, trained in one way, of several seeds.
    """
    named: dict[str, list[Run]] = {}
    for run in runs:
        named.setdefault(run.name, []).append(run)
    for name, same in named.items():
        if len(same) > 1:
            _check_seeds(name, same)
            same.sort(key=lambda run: int(run.seed))
    return named


def _check_seeds(name: str, runs: list[Run]) -> None:
    for run in runs:
        if not isinstance(run.seed, int):
            raise UserError(
                f"{name!r} stands twice or for several models "
                f"({some_of(run.model for run in runs)}), and {run.model} has no regreason.json "
                "that says its seed; give each its own NAME=RESULTS",
            )
    arms = sorted({str(run.training.get("arm")) for run in runs})
    if len(arms) > 1:
        raise UserError(
            f"{name!r} stands for results of several arms ({', '.join(arms)}); give each a NAME "
            "of its own, or name the folder alone to have it split into its arms",
        )
    ways = sorted(set(_names(runs)))
    if len(ways) > 1:
        raise UserError(
            f"{name!r} stands for models trained in several ways ({'; '.join(ways)});"
            " give each a NAME of its own, or name the folder alone to have it split",
        )
    seeds: dict[Any, Run] = {}
    for run in runs:
        if run.seed in seeds:
            raise UserError(
                f"seed {run.seed} of {name!r} stands twice ({seeds[run.seed].model} and "
                f"{run.model}); keep one of them, or give each its own NAME=RESULTS",
            )
        seeds[run.seed] = run


def _split(runs: list[Run]) -> list[Run]:
    """Name runs by their arms, and by what differs in how they were trained."""
    for run in runs:
        if not run.training.get("arm"):
            raise UserError(
                f"holds results of {run.model}, which has no regreason.json beside it that says "
                "its arm; give NAME=RESULTS",
                path=run.folder,
            )
    named = [replace(run, name=name) for run, name in zip(runs, _names(runs), strict=True)]
    return sorted(named, key=lambda run: (_rank(run), run.name))


def _rank(run: Run, name: str = "") -> int:
    """The place of a model's arm among the paper's; ``name`` where its training says none."""
    arm, order = run.training.get("arm", name), list(ARMS)
    return order.index(arm) if arm in order else len(order)


def _names(runs: list[Run]) -> list[str]:
    """A name for each run: its arm, and what not all of them share."""
    setups = [_setup(run.training) for run in runs]
    keys = sorted({key for setup in setups for key in setup})
    differ = [key for key in keys if len({setup.get(key, "") for setup in setups}) > 1]
    parts = [
        [f"{key} {setup[key]}".removeprefix("order ") for key in differ if key in setup]
        for setup in setups
    ]
    return [
        ", ".join([str(run.training.get("arm")), *of_run])
        for run, of_run in zip(runs, parts, strict=True)
    ]


def _setup(training: dict[str, Any]) -> dict[str, str]:
    """How a model was trained, but for arm and seed, as text; defaults left out."""
    setup = {}
    for key, value in training.items():
        if key == "data":
            setup[key] = str(value.get("sha256"))[:12]
        elif key not in _OUTCOME and value and value != _DEFAULTS.get(key):
            setup[key] = str(value)
    return setup
