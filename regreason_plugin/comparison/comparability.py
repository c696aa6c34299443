"""Checks that decide whether several models' results may be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.scopes import setting_scope
from regreason_plugin.evaluate.answer_cache import IRRELEVANT_ARGUMENTS
from regreason_plugin.evaluate.results import Run, model_arguments
from regreason_plugin.evaluate.task_results import TaskResult
from regreason_plugin.evaluate.task_setting import TASK_KEYS
from regreason_plugin.metrics.answers import Answers
from regreason_plugin.metrics.metric_names import ACTIVATION_WEIGHTS, PRIMARY_ACTIVATION, PROBES

# The number of ids that a message names.
_SHOWN = 3
# The entropies inside a model and of its output. Each has values by layer, for the middle blocks,
# or both.
ENTROPIES = tuple(name.removesuffix("_mid") for name in PROBES)


def tasks_of(run: Run) -> list[str]:
    """A run's tasks in the order of the eighteen settings, then other tasks by name.

    Raises:
        UserError: The run has both label-first and generative tasks.
    """
    tasks = sorted(run.tasks, key=lambda task: _order(run.tasks[task]))
    if len({run.tasks[task].setting.generative for task in tasks}) > 1:
        raise UserError(
            "holds both label-first and generative tasks, which cannot be compared; "
            "keep them in two folders",
            path=run.folder,
        )
    return tasks


def _order(result: TaskResult) -> tuple[bool, int, str]:
    place = result.setting.place
    return place is None, place or 0, result.task


def is_generative(run: Run) -> bool:
    """Whether a run's tasks are the generative ones, for models that explain before they answer.

    Raises:
        UserError: The run has both label-first and generative tasks.
    """
    return run.tasks[tasks_of(run)[0]].setting.generative


def describe_data(data: dict[str, Any]) -> str:
    """The origin of the documents in a few words; generated documents are called generated."""
    kind = "GENERATED data (mini benchmark)" if "generated" in str(data.get("origin")) else "data"
    raters = f" rated by {', '.join(data['raters'])}" if data.get("raters") else ""
    folders = " and ".join(sha256[:12] for sha256 in data["sha256"].split(", "))
    return f"{kind}{raters}, sha256 {folders}"


def data_of(results: Iterable[TaskResult]) -> dict[str, Any]:
    """Merge what tasks record about their data folders.

    Equal values are kept once. Different lists are joined, other different values become one text.
    """
    values_of: dict[str, list[Any]] = {}
    for result in results:
        for key, value in result.data.items():
            values = values_of.setdefault(key, [])
            if key not in TASK_KEYS and value not in values:
                values.append(value)
    return {key: _merged(values) for key, values in values_of.items() if values}


def _merged(values: list[Any]) -> Any:
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, list) for value in values):
        return list(dict.fromkeys(inner for value in values for inner in value))
    return ", ".join(map(str, values))


# --- results --------------------------------------------------------------------------------


def check_comparable(base: Run, others: Iterable[Run], *, same_tasks: bool = False) -> None:
    """Refuse results that are not comparable.

    Args:
        base: The results of one model.
        others: The results of the models to compare with it.
        same_tasks: Whether to refuse other models with tasks that ``base`` lacks.

    Raises:
        UserError: The results use both protocols, or lm_eval was called in different ways, or a
            task is missing or was scored on different data, labels or few-shot examples.
            (`check_same_answers` checks which documents were scored.)
    """
    for run in others:
        if is_generative(run) != is_generative(base):
            raise UserError(
                f"one of {run.name!r} and {base.name!r} has label-first tasks and the other "
                "generative ones, which cannot be compared; compare them separately",
                path=run.folder,
            )
        _check_same(_SETUP, f"{run.name!r} and {base.name!r}", run, base, run.folder)
        for task in tasks_of(base):
            _check_same_task(base, run, task)
        for task in tasks_of(run) if same_tasks else ():
            _check_same_task(run, base, task)


_SETUP: dict[str, Callable[[Run], Any]] = {
    "--limit": lambda run: run.config.get("limit"),
    "chat template": lambda run: run.environment.get("chat_template_sha"),
    "lm_eval's version": lambda run: run.environment.get("lm_eval_version"),
}


def _check_same_task(base: Run, run: Run, task: str) -> None:
    if task not in run.tasks:
        raise UserError(
            f"{run.name!r} has no results of {task}, but {base.name!r} has; score {run.name!r} on "
            "it too",
            path=run.folder,
        )
    ours, theirs = base.tasks[task], run.tasks[task]
    _check_same(_TASK, f"{task} of {run.name!r} and of {base.name!r}", theirs, ours, theirs.source)


def _check_same(
    facts: Mapping[str, Callable[[Any], Any]], which: str, one: Any, other: Any, path: Path
) -> None:
    """Refuse two runs, or two results, that differ in one of these facts."""
    for fact, value_of in facts.items():
        if value_of(one) != value_of(other):
            on_data = "on the same data " if facts is _TASK else ""
            raise UserError(
                f"{which} differ in {fact} ({value_of(one)!r} and {value_of(other)!r}); score both "
                f"{on_data}in the same way",
                path=path,
            )


_TASK: dict[str, Callable[[TaskResult], Any]] = {
    "data": lambda result: result.data["sha256"],
    "labels": lambda result: result.setting.labels,
    "few-shot examples": lambda result: result.fewshot,
    "task version": lambda result: result.version,
}


def check_same_training_rows(runs: Iterable[Run]) -> None:
    """Refuse models that were not trained on the same rows; untrained models are accepted.

    Raises:
        UserError: Two models were trained on different data folders, or only one of them with
            prefix packing, which draws other rows into a step; the message names both.
    """
    trained = [run for run in runs if run.training]
    for run in trained[1:]:
        ours, theirs = trained[0].training["data"], run.training["data"]
        if ours["sha256"] != theirs["sha256"]:
            raise UserError(
                f"{run.name!r} and {trained[0].name!r} were trained on different data "
                f"({theirs['path']} and {ours['path']}); train both on the same data folder",
                path=run.folder,
            )
        packed, alike = (bool(one.training.get("prefix_packing")) for one in (run, trained[0]))
        if packed != alike:
            names = (run.name, trained[0].name) if packed else (trained[0].name, run.name)
            raise UserError(
                f"{names[0]!r} was trained with regreason_prefix_packing and {names[1]!r} without "
                "it, so their steps hold different rows; train both in the same way",
                path=run.folder,
            )


def check_same_scoring(run: Run, train: Run, tasks: Iterable[str]) -> None:
    """Refuse a model's results on train rows that are not comparable with those on its test rows.

    Raises:
        UserError: The results are of different data folders, or were scored in different ways
            (except for --limit), or the model was not trained on these rows.
    """
    which = f"the test rows and the train rows of {run.name!r}"
    facts = {**_SETUP, **_LOADING}
    setup = {fact: value_of for fact, value_of in facts.items() if fact != "--limit"}
    _check_same(setup, which, run, train, run.folder)
    for task in tasks:
        ours, theirs = run.tasks[task], train.tasks[task]
        _check_same(_TASK, f"{which} in {task}", ours, theirs, theirs.source)
        _check_trained_on(run, theirs)


# Arguments that may differ: results are already sorted by model, and probes change no score.
_NO_LOADING = IRRELEVANT_ARGUMENTS | {"pretrained", "peft", "tokenizer", "probe", "renyi_alpha"}
_LOADING: dict[str, Callable[[Run], Any]] = {
    "how the model was loaded": lambda run: {
        name: str(value)
        for name, value in model_arguments(run.config).items()
        if name not in _NO_LOADING
    }
}


def _check_trained_on(run: Run, result: TaskResult) -> None:
    """Refuse train rows that a model was not trained on; an untrained model may have any.

    Raises:
        UserError: The model was trained on another data folder, or on other settings.
    """
    trained_on = run.training.get("data", {}).get("sha256")
    if trained_on is not None and trained_on != result.data["sha256"]:
        raise UserError(
            f"{run.name!r} was scored on train rows of other data than it was trained on "
            f"({run.training['data'].get('path')}); score the train rows of that folder",
            path=result.source,
        )
    scope, setting = run.training.get("scope"), result.setting
    if scope and not {setting.axis, setting_scope(*setting.setting)} & {*scope.split("+")}:
        raise UserError(
            f"{run.name!r} was trained on {scope} only, not on the train rows of {result.task}; "
            "score the train rows of its own tasks",
            path=result.source,
        )


# --- entropies ------------------------------------------------------------------------------


def incomparable_entropies(runs: Sequence[Run], tasks: Sequence[str]) -> dict[str, str]:
    """The members of `ENTROPIES` that these models cannot be compared by, each with the reason.

    An entropy depends on the tokens that a model reads and on the position at which it decides. The
    score of a label need not: models with different tokenizers still have comparable accuracies.
    """
    readings = {
        key: [(run.name, run.inputs[key]) for run in runs if key in run.inputs]
        for key in ("tokenizer_bos_token", "tokenizer_eos_token", "system_instruction_sha")
    }
    for task in tasks:
        results = [(run.name, run.tasks[task]) for run in runs]
        readings[f"the token at which they decide {task}"] = [
            (name, result.deciding_token) for name, result in results if result.deciding_token
        ]
        readings[f"the number of documents of {task} without probes"] = [
            (name, without)
            for name, result in results
            if (without := result.metrics.get("documents_without_probe")) is not None
        ]
    for fact, by_model in readings.items():
        if difference := _difference(fact, by_model):
            return dict.fromkeys(
                ENTROPIES,
                f"{difference}, so they do not read the same tokens; entropies are comparable only "
                "between models with the same tokenizer and prompts",
            )
    incomparable = {}
    for run in runs:
        if any(run.tasks[task].activation_definition != ACTIVATION_WEIGHTS for task in tasks):
            incomparable[PRIMARY_ACTIVATION] = (
                f"the results of `{run.name}` are not marked with the present definition, the "
                f"entropy of the units' {ACTIVATION_WEIGHTS}; score it again"
            )
            break
    if alphas := _difference("renyi_alpha", [(run.name, renyi_alpha(run)) for run in runs]):
        incomparable["matrix_entropy"] = f"{alphas}; score all models with the same value"
    return incomparable


def renyi_alpha(run: Run) -> float:
    """The order of the matrix entropy with which a model was scored."""
    return float(model_arguments(run.config).get("renyi_alpha", 1.0))


def _difference(fact: str, by_model: list[tuple[str, Any]]) -> str | None:
    """A phrase that names the first model with a different value; None if all are equal."""
    for name, value in by_model:
        base, ours = by_model[0]
        if value != ours:
            return f"`{name}` and `{base}` differ in {fact} ({value!r} and {ours!r})"
    return None


# --- documents ------------------------------------------------------------------------------


def check_same_answers(base: Answers, other: Answers, names: tuple[str, str]) -> None:
    """Refuse to pair predictions of different documents, or of different prompts.

    Args:
        base: The predictions of the first model.
        other: The predictions of the second model for the same task.
        names: The names of the first and the second model in messages.

    Raises:
        UserError: The documents differ in ids, contents or prompts, labels or groups; the message
            names the first such document.
    """
    ids, others = {*base.ids}, {*other.ids}
    check_same_ids(base.task, sorted(ids - others), sorted(others - ids), names, other.source)
    for field, values_of in _ALIKE.items():
        ours, theirs = values_of(base), values_of(other)
        different = [i for i, (one, two) in enumerate(zip(ours, theirs, strict=True)) if one != two]
        if different:
            raise UserError(
                f"{base.task} of {names[1]!r} and of {names[0]!r} differ in {field} of "
                f"{len(different)} of {len(base.ids)} documents, the first "
                f"{base.ids[different[0]]!r}; score both on the same data with the same prompt",
                path=other.source,
            )


def check_same_ids(
    task: str, base: Sequence[str], other: Sequence[str], names: tuple[str, str], source: Path
) -> None:
    """Refuse two models that were scored on different documents.

    Args:
        task: The task's name.
        base: The documents that only the first model was scored on.
        other: The documents that only the second model was scored on.
        names: The names of the first and the second model.
        source: The samples file of the second model.

    Raises:
        UserError: There are such documents; the message names some of them.
    """
    alone = ((names[0], base), (names[1], other))
    if missing := [_only_in(name, ids) for name, ids in alone if ids]:
        raise UserError(
            f"{task} of {names[1]!r} and of {names[0]!r} have different documents: "
            f"{' and '.join(missing)}; score both on the same data with the same --limit, or "
            "choose the same documents with --samples",
            path=source,
        )


def _only_in(name: str, ids: Sequence[str]) -> str:
    shown = ", ".join(map(repr, ids[:_SHOWN]))
    if len(ids) == 1:
        return f"{shown} is in {name!r} only"
    return f"{len(ids)} are in {name!r} only ({shown}{', ...' if len(ids) > _SHOWN else ''})"


# The label comes before the content, which contains it: a message then names the label itself.
_ALIKE: dict[str, Callable[[Answers], Sequence[Any]]] = {
    "the label": lambda answers: answers.labels.tolist(),
    "the group": lambda answers: answers.groups,
    "the content or the prompt": lambda answers: answers.hashes,
}
