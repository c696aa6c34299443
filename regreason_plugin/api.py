"""The commands as Python functions, for a notebook or a script.

`from regreason_plugin import ...` gives these functions and the classes that they return. Each
function does what the command of the same name does, reads and writes the same files, and raises
`UserError` where the command would exit with code 2. None of them prints, except that `score`
shows lm-eval's progress and tables.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from regreason_plugin.comparison import compare as comparing
from regreason_plugin.comparison.arms import read_arms, read_named_arms
from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.comparison.gate import Decision, Rule, decide
from regreason_plugin.comparison.logged_gate import decide_logged
from regreason_plugin.core.errors import UserError, nearest, raising_user_errors
from regreason_plugin.core.prompt import ORDERS, Order
from regreason_plugin.core.splits import SPLITS, Split
from regreason_plugin.data_folder.arms import ARMS, Mismatched
from regreason_plugin.data_folder.build import build as build_ratings
from regreason_plugin.data_folder.build import build_task
from regreason_plugin.data_folder.folder import DataFolder, Leaks
from regreason_plugin.data_folder.row_writer import BuildOptions
from regreason_plugin.data_folder.scopes import SCOPE_KINDS
from regreason_plugin.evaluate.logged_results import read_logged_run, without_regreason_tasks
from regreason_plugin.evaluate.results import read_run
from regreason_plugin.metrics.metric_names import GATE_METRICS, SCORE

if TYPE_CHECKING:
    import pandas


def build(
    source: str | Path,
    out: str | Path,
    *,
    arms: Sequence[str] = ARMS,
    order: Order = "label_first",
    seed: int | None = None,
    at_most: Mapping[Split, int] | None = None,
    mismatched: Mismatched = "any",
    tokenizer: str | None = None,
    max_prompt_tokens: int | None = None,
    max_target_tokens: int | None = None,
    leaks: Leaks = "keep",
    scopes: Sequence[str] = (),
    per_dataset: int = 1000,
) -> DataFolder:
    """Build the data folder that training and scoring read, as `regreason build` does.

    Args:
        source: A ratings file, the ``task.yml`` of a table, or ``"mini"`` for the generated
            benchmark.
        out: The folder to write. An older data folder there is replaced.
        arms: Which arms to write. A task without explanations gets ``label_only`` alone.
        order: ``label_first``, or ``explanation_first`` for models that explain before they
            answer.
        seed: Of the split and of every random draw; None for the task's own, or 0.
        at_most: The most texts of each split, such as ``{"train": 900}``; whole groups are kept.
        mismatched: Where the arm ``mismatched`` takes explanations from: ``any`` other row, or a
            row with the ``same_label``.
        tokenizer: A folder or a Hub name. Lengths are then in tokens, otherwise in words.
        max_prompt_tokens: Longer prompts are cut.
        max_target_tokens: Longer explanations are cut.
        leaks: ``remove`` takes the sentences that name a label out of explanations.
        scopes: ``axis`` or ``setting``: also write one file for each, for separate models.
        per_dataset: Conversations in each dataset of ``"mini"``; other sources ignore it.

    Returns:
        The data folder. ``folder.manifest`` holds counts, lengths and hashes.

    Raises:
        UserError: The source is wrong, an argument names something unknown, or ``out`` holds
            something else than a data folder.

    Example:
        >>> from regreason_plugin import build
        >>> folder = build("mini", "runs/data", arms=["label_only", "explanation"], per_dataset=40)
        >>> sorted(folder.manifest.counts)
        ['test', 'train', 'validation']
    """
    _check_known("arm", arms, ARMS)
    _check_known("order", [order], ORDERS)
    _check_known("mismatched", [mismatched], get_args(Mismatched))
    _check_known("leaks", [leaks], get_args(Leaks))
    _check_known("split", at_most or (), SPLITS)
    _check_known("scope", scopes, SCOPE_KINDS)
    options = BuildOptions(
        seed=seed or 0,
        order=order,
        arms=tuple(arm for arm in ARMS if arm in arms),
        mismatched=mismatched,
        tokenizer=tokenizer,
        max_prompt=max_prompt_tokens,
        max_target=max_target_tokens,
        scopes=tuple(scopes),
        leaks=leaks,
        conversations=at_most or {},
    )
    if source == "mini":
        from regreason_plugin.data_folder.mini import build_mini

        return build_mini(Path(out), options, per_dataset=per_dataset)
    source = Path(source)
    if source.suffix in {".yml", ".yaml"}:
        return build_task(source, Path(out), options, seed=seed)[0]
    return build_ratings(source, Path(out), options)


def score(
    model_args: str,
    tasks: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    task_files: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | str = "auto",
    device: str | None = None,
    apply_chat_template: bool = False,
) -> Path:
    """Score a model on its test set, as `regreason eval --model regreason-hf` does.

    Args:
        model_args: As lm-eval takes them: ``pretrained=BASE,peft=ADAPTER,probe=all``.
        tasks: Names of lm-eval tasks, joined by commas; a glob such as ``regreason_*`` works.
        out: The folder for results and samples.
        data: The data folder; by default the one that the task files name.
        task_files: The folder that `regreason task new` wrote, for a task of your own.
        limit: Score only so many rows of each task.
        batch_size: Rows in a batch, or ``auto``.
        device: Such as ``cpu``; by default a GPU where there is one.
        apply_chat_template: Put the prompt into the model's chat template.

    Returns:
        ``out``, which `compare` and `gate` read.

    Raises:
        UserError: The model, the data or the task do not fit each other.
        RuntimeError: lm-eval ended with an error, which it has printed.

    Example:
        >>> from regreason_plugin import score
        >>> folder = score(
        ...     "pretrained=BASE", "tickets", "results/base", task_files="tickets", device="cpu"
        ... )  # doctest: +ELLIPSIS
        regreason-hf (...
        >>> [file.suffix for file in sorted(folder.rglob("*_*"))]
        ['.json', '.jsonl']
    """
    from regreason_plugin.evaluate.eval_command import main

    flags = {
        "--model": "regreason-hf",
        "--model_args": model_args,
        "--tasks": tasks,
        "--output_path": out,
        "--batch_size": batch_size,
        "--metadata": json.dumps({"data_dir": str(data)}) if data is not None else None,
        "--include_path": task_files,
        "--limit": limit,
        "--device": device,
    }
    arguments = [str(word) for pair in flags.items() if pair[1] is not None for word in pair]
    arguments.append("--log_samples")
    if apply_chat_template:
        arguments.append("--apply_chat_template")
    typed = sys.argv
    try:
        with raising_user_errors():
            code = main(arguments)
    finally:
        sys.argv = typed
    if code:
        raise RuntimeError(f"lm-eval ended with exit code {code}; its messages say why")
    return Path(out)


def compare(
    results: str | Path | Mapping[str, str | Path | Sequence[str | Path]],
    baseline: str | None = None,
    *,
    primary: str | None = None,
    margin: float = comparing.MARGIN,
    difference: float = 0.02,
    tasks: Sequence[str] | None = None,
    group_by: str | None = None,
    calibrated: bool = False,
    out: str | Path | None = None,
) -> Comparison:
    """Compare the results of several arms with a baseline, as `regreason compare` does.

    Args:
        results: A folder of results for each arm by its name, or one folder that holds the
            results of all arms. Several seeds of an arm may lie in one folder. On any tasks of
            lm_eval, an arm may be a list of folders, one for each run.
        baseline: The name of the arm that the others are compared with; by default the first one
            in ``results``.
        primary: The one question that is tested by itself, ``ARM`` or ``ARM:METRIC``. By default
            the accuracy of ``explanation``, or of the only arm beside the baseline; on any tasks
            of lm_eval, the tasks' first metric.
        margin: Two arms that differ by less, in the primary metric, count as the same.
        difference: A difference in pooled accuracy; the result says how many test rows and seeds
            it takes to find it.
        tasks: Compare these tasks of lm_eval, or groups of tasks, such as ``["mmlu*", "gsm8k"]``,
            by the metrics that lm_eval logged. By default RegReason's tasks if the results hold
            any, otherwise all tasks that every arm has.
        group_by: On any tasks of lm_eval, the field of the documents that makes groups, such as
            ``passage``; empty for no groups.
        calibrated: Also report the metrics of the probabilities that each model's temperature
            calibrates (see `calibrate`).
        out: A folder for the page, the tables and the figures; by default nothing is written.

    Returns:
        Every figure, test and sentence. ``comparison.answers`` holds the answers in words, and
        ``comparison.pooled[arm][comparison.main]`` the difference with its confidence interval.
        `to_frame` and `to_markdown` make tables of it.

    Raises:
        UserError: The results cannot be compared: other rows, prompts, versions or training data.
            Or ``results`` is one folder and there is no ``baseline``.

    Example:
        >>> from regreason_plugin import compare
        >>> comparison = compare(
        ...     {"label_only": "results/label_only", "explanation": "results/explanation"},
        ...     baseline="label_only",
        ...     out="report",
        ... )
        >>> comparison.answers[0].short
        'Higher, of these trained models: +0.200'
    """
    if isinstance(results, Mapping):
        named = {
            name: [Path(one) for one in ([of] if isinstance(of, str | Path) else of)]
            for name, of in results.items()
        }
        if not named:
            raise UserError("results: name two arms or more")
        runs = read_named_arms(named, tasks=tasks)
        baseline = baseline or next(iter(named))
    elif baseline is None:
        raise UserError("baseline: name the arm that the others are compared with")
    else:
        runs = read_arms([str(results)], tasks)
    compared = comparing.compare(
        runs,
        baseline,
        primary=primary,
        margin=margin,
        difference=difference,
        group_by=group_by,
        calibrated=calibrated,
    )
    if out is not None:
        from regreason_plugin.render.report_files import write

        write(compared, Path(out))
    return compared.comparison


def to_frame(comparison: Comparison) -> pandas.DataFrame:
    """All figures of a comparison as a pandas frame, with the columns of ``comparison.csv``.

    Args:
        comparison: What `compare` or `load_comparison` returned.

    Returns:
        A row for each task, arm and metric; rows with the task ``pooled`` are the means over the
        tasks. ``value`` is the arm's score and ``difference`` its difference to the arm ``minus``,
        both with the ends of their intervals. What is undefined or does not apply is missing.

    Example:
        >>> from regreason_plugin import load_comparison, to_frame
        >>> frame = to_frame(load_comparison("report/comparison.json"))
        >>> frame.query("task == 'pooled' and role == 'primary'")["difference"].round(3).tolist()
        [0.2]
    """
    import pandas

    from regreason_plugin.render.csv_file import to_csv

    # (A name such as NA is no missing value.)
    texts = dict.fromkeys(("task", "dataset", "axis", "arm", "minus", "metric"), "str")
    return pandas.read_csv(
        io.StringIO(to_csv(comparison)),
        dtype=texts,
        keep_default_na=False,
        na_values=[""],
        float_precision="round_trip",
    )


def to_markdown(comparison: Comparison) -> str:
    """A comparison as the Markdown of ``comparison.md``: the verdict, then the tables.

    Args:
        comparison: What `compare` or `load_comparison` returned.

    Example:
        >>> from regreason_plugin import load_comparison, to_markdown
        >>> to_markdown(load_comparison("report/comparison.json")).startswith("#")
        True
    """
    from regreason_plugin.render import markdown_page

    return markdown_page.to_markdown(comparison)


def gate(
    baseline: str | Path,
    candidate: str | Path,
    *,
    metric: str | None = None,
    max_drop: float = 0.01,
    limit: float | None = None,
    per: str | None = None,
    alpha: float = 0.05,
    tasks: Sequence[str] | None = None,
    group_by: str | None = None,
) -> Decision:
    """Decide whether a model may replace another, as `regreason gate` does.

    Args:
        baseline: The results of the model in use.
        candidate: The results of the model that is to replace it, on the same test set.
        metric: One of ``acc`` (the default), ``macro_f1``, ``qwk``, ``mae``, ``auroc``, ``nll`` and
            ``miscalibration``. On any tasks of lm_eval, a metric that is a mean over documents, by
            default the first one of each task.
        max_drop: How much worse the candidate may be, in the metric's unit, 0 or more.
        limit: A floor for the candidate's own metric (a ceiling where lower is better).
        per: Every part has to pass: ``setting``, ``class``, or a field of the test rows; on any
            tasks of lm_eval ``task``.
        alpha: How often a pass may be wrong, and how often a fail may be, between 0 and 0.5.
        tasks: As in `compare`.
        group_by: As in `compare`.

    Returns:
        The decision. ``decision.verdict`` is ``pass`` (shown to be no worse than allowed), ``fail``
        (shown to be worse) or ``undecided``.

    Raises:
        UserError: The two results cannot be compared, or the metric is unknown or undefined.

    Example:
        >>> from regreason_plugin import gate
        >>> gate("results/label_only", "results/explanation", max_drop=0.02).verdict
        'pass'
    """
    if not (max_drop >= 0 and 0 < alpha < 0.5):
        raise UserError("max_drop has to be 0 or more, and alpha between 0 and 0.5")
    folders = {"baseline": Path(baseline), "candidate": Path(candidate)}
    rule = Rule(max_drop=max_drop, limit=limit, per=per, alpha=alpha, tasks=tuple(tasks or ()))
    if tasks is not None or without_regreason_tasks(folders.items()):
        first, second = (read_logged_run(name, path, tasks) for name, path in folders.items())
        return decide_logged(first, second, [replace(rule, metric=metric or SCORE)], group_by)[0]
    _check_known("metric", [metric or "acc"], GATE_METRICS)
    first, second = (read_run(name, path) for name, path in folders.items())
    return decide(first, second, replace(rule, metric=metric or "acc"))


def _check_known(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}; {nearest(name, list(known))}")
