"""Which results are of which arm, by what their training left beside each model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from regreason_plugin.build.arms import ARMS
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run, names_results, read_models, some_of

# What came of a training, tells its seeds apart, or follows from data, base and template; all
# else in a record is how it was done.
_OUTCOME = {
    *("arm", "seed", "config_sha256", "versions", "rows", "steps", "epochs", "processes"),
    *("label_tokens", "target_tokens", "cost", "use"),
}
# What a config without the key stands for; nothing (None, 0) goes without saying.
_DEFAULTS = {"order": "label_first", "budget": "rows", "loss_mean": "micro_batch"}


def read_arms(given: list[str]) -> list[Run]:
    """Read what ``compare`` is to hold side by side.

    Args:
        given: ``NAME=RESULTS`` for the results of one arm, of one or several seeds; or just
            a folder, which is split into its arms and named by them.

    Returns:
        A run a model; those of one name are the seeds of one arm.

    Raises:
        UserError: What is given is neither, or holds what is of no one arm.
    """
    named: dict[str, list[Run]] = {}
    unnamed: list[Run] = []
    for text in given:
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
    ways = list(_names(runs).values())
    if len(set(ways)) > 1:
        raise UserError(
            f"{name!r} stands for models trained in several ways ({'; '.join(sorted(set(ways)))});"
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
    names = _names(runs)
    order = list(ARMS)

    def place(run: Run) -> tuple[int, str]:
        arm = run.training["arm"]
        return (order.index(arm) if arm in order else len(order), names[id(run)])

    return [replace(run, name=names[id(run)]) for run in sorted(runs, key=place)]


def _names(runs: list[Run]) -> dict[int, str]:
    """A name for each run (by its ``id``): its arm, and what not all of them share."""
    setups = {id(run): _setup(run.training) for run in runs}
    values: dict[str, set[str]] = defaultdict(set)
    for key in {key for setup in setups.values() for key in setup}:
        values[key] = {setup.get(key, "") for setup in setups.values()}
    differ = sorted(key for key, found in values.items() if len(found) > 1)
    return {
        id(run): ", ".join(
            [str(run.training.get("arm"))]
            + [
                f"{key} {setups[id(run)][key]}".removeprefix("order ")
                for key in differ
                if key in setups[id(run)]
            ]
        )
        for run in runs
    }


def _setup(training: dict[str, Any]) -> dict[str, str]:
    """How a model was trained, but for arm and seed, as text; defaults left out."""
    setup = {}
    for key, value in training.items():
        if key == "data":
            setup[key] = str(value.get("sha256"))[:12]
        elif key not in _OUTCOME and value and value != _DEFAULTS.get(key):
            setup[key] = str(value)
    return setup
