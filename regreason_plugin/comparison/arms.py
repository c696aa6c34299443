"""The arms of a comparison: their models, and how the models of two arms are paired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.evaluate.logged_results import read_logged_models, without_regreason_tasks
from regreason_plugin.evaluate.results import Run, first_names, has_results, read_models

# Keys of a training record that are results, identify the seed, or follow from the data, the base
# model and the template. All other keys are training settings.
_OUTCOME = {
    *("arm", "seed", "config_sha256", "versions", "rows", "steps", "epochs", "processes"),
    *("label_tokens", "target_tokens", "cost", "use"),
}
# The default value of a training setting that the record may leave out; None and 0 count as absent.
_DEFAULTS = {"order": "label_first", "budget": "rows", "loss_mean": "micro_batch"}


class Models(NamedTuple):
    """The models behind a figure, by their numbers.

    The figure is the mean over ``of``. With ``minus``, it is the mean of the differences between
    the models in the same position of ``of`` and ``minus``.
    """

    of: tuple[int, ...]
    minus: tuple[int, ...] = ()


class SeedPairs(NamedTuple):
    """Pairs of models of an arm and of the baseline.

    Attributes:
        places: For each pair, the index in the arm's seeds and the index in the baseline's.
        same: Whether the two models of every pair share their seed, as far as both have one.
        left_out: Seeds of either arm without a partner, as text.
        repeated: Whether one model without a seed is part of every pair.
    """

    places: list[tuple[int, int]]
    same: bool
    left_out: list[str]
    repeated: bool = False


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison, the baseline first. Their models are numbered in this order.

    Attributes:
        runs: For each arm, one run per seed.
        baseline: The name of the baseline arm.
    """

    runs: dict[str, list[Run]]
    baseline: str

    @classmethod
    def of(cls, runs: Iterable[Run], baseline: str) -> Arms:
        """Group runs into arms: the baseline, then the paper's arms, then others by name.

        The order of ``runs`` does not matter.

        Raises:
            UserError: There is no such baseline, or no other arm, or `by_name` refuses the runs.
        """
        arms = by_name(runs)
        if baseline not in arms:
            raise UserError(
                f"--baseline: {baseline!r} is not an arm; name one of {', '.join(arms)}"
            )
        if len(arms) < 2:
            raise UserError(
                f"{baseline!r} is the only arm; give a second NAME=RESULTS to compare with it"
            )
        order = sorted(arms, key=lambda name: (name != baseline, _rank(arms[name][0], name), name))
        return cls({name: arms[name] for name in order}, baseline)

    @cached_property
    def others(self) -> list[str]:
        """The names of all arms except the baseline."""
        return [name for name in self.runs if name != self.baseline]

    @cached_property
    def models(self) -> list[Run]:
        """All models, in the order of their numbers."""
        return [run for arm in self.runs.values() for run in arm]

    @cached_property
    def numbers(self) -> dict[str, tuple[int, ...]]:
        """The numbers of each arm's models."""
        every = iter(range(len(self.models)))
        return {name: tuple(next(every) for _ in arm) for name, arm in self.runs.items()}

    @cached_property
    def seeds(self) -> dict[str, list[Any]]:
        """Each arm's training seeds; None where a seed is unknown."""
        return {name: [run.seed for run in arm] for name, arm in self.runs.items()}

    @cached_property
    def pairs(self) -> dict[str, SeedPairs]:
        """The pairs of models of each arm and the baseline."""
        base = self.seeds[self.baseline]
        return {name: pair_seeds(self.seeds[name], base) for name in self.others}

    @cached_property
    def partners(self) -> list[int]:
        """For each model, the number of the baseline's model that it is paired with.

        It is the model's own number for a model of the baseline or without a partner.
        """
        partners = list(range(len(self.models)))
        for name in self.others:
            of, minus = self.against(name)
            for model, partner in zip(of, minus, strict=True):
                partners[model] = partner
        return partners

    def alone(self, name: str) -> Models:
        """The models of one arm."""
        return Models(self.numbers[name])

    def against(self, name: str, places: Sequence[tuple[int, int]] | None = None) -> Models:
        """An arm minus the baseline, pair by pair.

        Args:
            name: The arm.
            places: Pairs as in `SeedPairs.places`; by default all of the arm's `pairs`.
        """
        places = self.pairs[name].places if places is None else places
        return self._less(name, self.baseline, places)

    def between(self, name: str, minus: str) -> Models:
        """An arm minus another arm, pair by pair."""
        return self._less(name, minus, pair_seeds(self.seeds[name], self.seeds[minus]).places)

    def _less(self, name: str, minus: str, places: Sequence[tuple[int, int]]) -> Models:
        ours, others = self.numbers[name], self.numbers[minus]
        return Models(tuple(ours[i] for i, _ in places), tuple(others[j] for _, j in places))

    def shared_pairs(self, name: str, whole: str) -> tuple[Models, Models]:
        """Both arms minus the baseline, for the seeds that all three arms have."""
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
        """The training seed of a pair; the arm's seed if the baseline has none."""
        seed = self.seeds[self.baseline][base]
        return self.seeds[name][arm] if seed is None else seed


def pair_seeds(arm: Sequence[Any], baseline: Sequence[Any]) -> SeedPairs:
    """Pair models by their seed, or in order if the arms have no seed in common.

    A single model without a seed, such as an untrained or a deterministic one, is paired with every
    model of the other arm.

    Models with the same seed saw the same rows in the same order from the same initial weights, so
    their difference varies less. Pairing models with different seeds brings no such gain but is
    equally valid: the variance over seeds then includes that of both arms.
    """
    index_of = {seed: index for index, seed in enumerate(baseline)}
    shared = [(index, index_of[seed]) for index, seed in enumerate(arm) if seed in index_of]
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


def read_arms(arguments: list[str], tasks: Sequence[str] | None = None) -> list[Run]:
    """Read the results that ``compare`` is called with.

    If a folder holds tasks of RegReason, these are read; otherwise any tasks of lm_eval.

    Args:
        arguments: Each is ``NAME=RESULTS``, the results of one arm with one or several seeds, or a
            folder of results, which is split into its arms and named by them.
        tasks: Patterns of the tasks of lm_eval to read, by the metrics that lm_eval logged.

    Returns:
        One run per model; runs with the same name are the seeds of one arm.

    Raises:
        UserError: An argument is neither, or results under one name do not form one arm.
    """
    named: dict[str, list[Path]] = {}
    unnamed: list[Path] = []
    for text in arguments:
        name, equals, folder = text.partition("=")
        if text and has_results(Path(text)):
            unnamed.append(Path(text))
        elif not equals or not name or not folder:
            raise UserError(
                f"{text!r} is not NAME=RESULTS, such as label_only=runs/label_only, nor a folder "
                "with the results of several arms"
            )
        elif name in named:
            raise UserError(f"the name {name!r} is given twice; give each arm its own name")
        else:
            named[name] = _folders(folder)
    return read_named_arms(named, unnamed, tasks)


def read_named_arms(
    named: Mapping[str, Sequence[Path]],
    unnamed: Sequence[Path] = (),
    tasks: Sequence[str] | None = None,
) -> list[Run]:
    """Read the results of several arms.

    Args:
        named: The arms' names and their folders of results.
        unnamed: Folders of results that are split into their arms.
        tasks: As in `read_arms`.

    Returns:
        As `read_arms`.

    Raises:
        UserError: A folder holds no results, or results under one name do not form one arm.
    """
    folders = [(name, path) for name, paths in named.items() for path in paths]
    folders += [(path.name, path) for path in unnamed]
    if tasks is not None or without_regreason_tasks(folders):
        return _read_logged_arms(named, unnamed, tasks or ())
    models = {name: _read_one(name, paths) for name, paths in named.items()}
    split = _split([run for path in unnamed for run in read_models(path.name, path)])
    if twice := models.keys() & {run.name for run in split}:
        raise UserError(f"the name {min(twice)!r} is given twice; give each arm its own name")
    runs = [*(run for runs in models.values() for run in runs), *split]
    by_name(runs)
    return runs


def _folders(text: str) -> list[Path]:
    """The folders of an arm, joined by commas; a folder's own name may hold commas."""
    whole = Path(text)
    return [whole] if has_results(whole) else [Path(part) for part in text.split(",")]


def _read_one(name: str, folders: Sequence[Path]) -> list[Run]:
    if len(folders) > 1:
        raise UserError(
            f"{name!r} names {len(folders)} folders; put the results of all seeds of an arm into "
            "one folder, or choose other tasks of lm_eval with --tasks"
        )
    return read_models(name, folders[0])


def _read_logged_arms(
    named: Mapping[str, Sequence[Path]], unnamed: Sequence[Path], tasks: Sequence[str]
) -> list[Run]:
    if unnamed:
        raise UserError(
            "needs the arm's name, because only RegReason's own results hold it; give NAME="
            f"{unnamed[0]}",
            path=unnamed[0],
        )
    runs = [
        run for name, folders in named.items() for run in read_logged_models(name, folders, tasks)
    ]
    by_name(runs)
    return runs


def by_name(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Group runs by name; the runs of a name are the seeds of one arm, in the order of their seeds.

    Raises:
        UserError: The runs of a name are not one arm, trained in one way with different seeds.
    """
    named: dict[str, list[Run]] = {}
    for run in runs:
        named.setdefault(run.name, []).append(run)
    for name, seeds in named.items():
        if len(seeds) > 1:
            if any(run.training for run in seeds) or not seeds[0].logged:
                _check_seeds(name, seeds)
            seeds.sort(key=lambda run: int(run.seed))
    return named


def _check_seeds(name: str, runs: list[Run]) -> None:
    for run in runs:
        if not isinstance(run.seed, int):
            raise UserError(
                f"{name!r} names several models ({first_names(run.model for run in runs)}), "
                f"and {run.model} has no regreason.json that says its seed; give each model its "
                "own NAME=RESULTS",
            )
    arms = sorted({str(run.training.get("arm")) for run in runs})
    if len(arms) > 1:
        raise UserError(
            f"{name!r} is the name of several arms ({', '.join(arms)}); give each arm its own "
            "NAME=RESULTS, or give the folder without a name to have it split into its arms",
        )
    ways = sorted(set(_names(runs)))
    if len(ways) > 1:
        raise UserError(
            f"{name!r} is the name of models trained in several ways ({'; '.join(ways)}); give "
            "each its own NAME=RESULTS, or give the folder without a name to have it split",
        )
    seeds: dict[Any, Run] = {}
    for run in runs:
        if run.seed in seeds:
            raise UserError(
                f"{name!r} has two models with seed {run.seed} ({seeds[run.seed].model} and "
                f"{run.model}); keep one of them, or give each its own NAME=RESULTS",
            )
        seeds[run.seed] = run


def _split(runs: list[Run]) -> list[Run]:
    """Name runs by their arms, and by the training settings in which they differ."""
    for run in runs:
        if not run.training.get("arm"):
            raise UserError(
                f"holds results of {run.model}, whose folder has no regreason.json that says its "
                "arm; give NAME=RESULTS",
                path=run.folder,
            )
    named = [replace(run, name=name) for run, name in zip(runs, _names(runs), strict=True)]
    return sorted(named, key=lambda run: (_rank(run), run.name))


def _rank(run: Run, name: str = "") -> int:
    """The position of a model's arm among the paper's arms; ``name`` if its record names no arm."""
    arm, order = run.training.get("arm", name), list(ARMS)
    return order.index(arm) if arm in order else len(order)


def _names(runs: list[Run]) -> list[str]:
    """A name for each run: its arm, and the training settings that not all runs share."""
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
    """The training settings of a model as text, without arm, seed and default values."""
    setup = {}
    for key, value in training.items():
        if key == "data":
            setup[key] = str(value.get("sha256"))[:12]
        elif key not in _OUTCOME and value and value != _DEFAULTS.get(key):
            setup[key] = str(value)
    return setup
