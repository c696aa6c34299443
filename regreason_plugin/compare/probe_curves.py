"""Entropies by layer of several models as curves that may be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from regreason_plugin.compare.comparability import (
    check_names,
    check_same_documents,
    check_same_protocol,
    check_same_setup,
    describe_data,
    is_generative,
    tasks_of,
)
from regreason_plugin.compare.document_pairs import check_same_ids
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.layers import middle_blocks
from regreason_plugin.evaluate.results import Run, TaskResult, model_arguments
from regreason_plugin.evaluate.samples import documents_of, scored_ids
from regreason_plugin.evaluate.task_setting import in_paper
from regreason_plugin.render.tables import some_settings

Z = 1.96  # standard errors to either side that hold 95 % of a normal distribution
FORCED = "forced_"
# Title and unit; `<name>_by_layer` are the results, and `<name>_mid` their middle.
PANELS = {
    "activation_entropy": ("Activation entropy, softmax(h)", "entropy / log D"),
    "activation_entropy_abs": ("Activation entropy, |h| / Σ|h|", "entropy / log D"),
    "activation_entropy_square": ("Activation entropy, h² / Σh²", "entropy / log D"),
    "logit_lens_entropy": ("Logit lens entropy", "entropy (nats)"),
    "matrix_entropy": ("Matrix entropy", "entropy / log min(N, D)"),
}
METRICS = (*PANELS, *(FORCED + name for name in PANELS))


class Estimate(NamedTuple):
    """A mean and its standard error, each None where undefined."""

    mean: float | None
    se: float | None

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The ends of the 95 % interval."""
        if self.mean is None or self.se is None:
            return None, None
        return self.mean - Z * self.se, self.mean + Z * self.se


@dataclass(frozen=True)
class Curve:
    """One metric of one model.

    Attributes:
        layers: L + 1 estimates, the first of the embeddings, then one a block.
        middle: Of the mean over the middle blocks.
    """

    layers: list[Estimate]
    middle: Estimate

    @property
    def blocks(self) -> int:
        """L, the model's number of blocks."""
        return len(self.layers) - 1


@dataclass(frozen=True)
class Probes:
    """What is plotted.

    Attributes:
        curves: By metric, then by model.
        left_out: Metrics that some of the models have, and others do not.
        origin: Of the data; "generated" for the mini benchmark.
        settings: How many, in words.
        generative: Whether the models explain first.
        caption: What the numbers were made from and what the band is, a sentence each.
    """

    curves: dict[str, dict[str, Curve]]
    left_out: list[str]
    origin: str
    settings: str
    generative: bool
    caption: list[str]


def pool(estimates: dict[str, Estimate], datasets: dict[str, str]) -> Estimate:
    """The unweighted mean over settings of the tasks' means.

    The standard error is over documents, with the trained models taken as they are. The
    axes of a dataset are asked of the same conversations, so they are taken as fully
    dependent: the error of their mean is at most the mean of their errors. Datasets are
    taken as independent (the two sides of HH-RLHF, which share their prompts, are not
    quite). For k datasets of as many axes each that is ``sqrt(sum(se_d^2)) / k``.

    Args:
        estimates: By task; a mean that is None leaves the whole undefined, because a mean
            over fewer settings would be another quantity.
        datasets: The dataset of each task.
    """
    means = [estimate.mean for estimate in estimates.values() if estimate.mean is not None]
    if len(means) < len(estimates):
        return Estimate(None, None)
    mean = math.fsum(means) / len(means)
    by_dataset: dict[str, float] = {}
    for task, estimate in estimates.items():
        if estimate.se is None:
            return Estimate(mean, None)
        dataset = datasets[task]
        by_dataset[dataset] = by_dataset.get(dataset, 0.0) + estimate.se
    return Estimate(mean, math.hypot(*by_dataset.values()) / len(means))


def read_probes(runs: list[Run], wanted: list[str] | None = None) -> Probes:
    """Hold the models' curves side by side.

    Args:
        runs: One or more models.
        wanted: The metrics, such as ``matrix_entropy``; all that every model has if None.

    Raises:
        UserError: A name stands twice or cannot be printed; the models were not measured
            on the same documents, tokens and tasks in the same way (several models that
            explain first only where the label is forced at once); a metric is missing.
    """
    check_names(runs)
    tasks = _same_tasks(runs)
    present = {run.name: _curves(run, tasks) for run in runs}
    if is_generative(runs[0]) and len(runs) > 1:
        # After explanations of their own, models have read different tokens.
        if own := [name for name in wanted or [] if not name.startswith(FORCED)]:
            raise UserError(
                f"{own[0]!r} is measured after each model's own explanation, so the models read "
                f"different tokens; plot them apart, or name {FORCED + own[0]!r}"
            )
        present = {
            model: {name: curve for name, curve in curves.items() if name.startswith(FORCED)}
            for model, curves in present.items()
        }
    shared = [name for name in METRICS if all(name in curves for curves in present.values())]
    some = [name for name in METRICS if any(name in curves for curves in present.values())]
    for name in wanted or []:
        for run in runs:
            if name not in present[run.name]:
                raise UserError(
                    f"{run.name!r} has no metric {name!r} by layer; it has "
                    f"{', '.join(present[run.name])}",
                    path=run.folder,
                )
    metrics = shared if wanted is None else [name for name in METRICS if name in wanted]
    if not metrics:
        have = "; ".join(f"{name!r} has {', '.join(curves)}" for name, curves in present.items())
        raise UserError(f"the models have no metric in common: {have}; score all with probe=all")
    if any(name.endswith("matrix_entropy") for name in metrics):
        _check_alpha(runs)
    curves = {name: {run.name: present[run.name][name] for run in runs} for name in metrics}
    return Probes(
        curves=curves,
        left_out=[name for name in some if name not in shared] if wanted is None else [],
        origin="+".join(sorted({str(runs[0].tasks[task].data.get("origin")) for task in tasks})),
        settings=_settings(runs[0], tasks),
        generative=is_generative(runs[0]),
        caption=_caption(runs[0], tasks, curves),
    )


def _same_tasks(runs: list[Run]) -> list[str]:
    """The tasks, after every check that the runs can stand in one picture."""
    base, *others = runs
    for run in runs:
        if not run.name.isprintable() or not run.name.strip():
            raise UserError(
                f"the name {run.name!r} cannot be printed; give it another with NAME=",
                path=run.folder,
            )
    tasks = tasks_of(base)
    for run in others:
        check_same_protocol(base, run)
        check_same_setup(base, run)
        for task in tasks:
            check_same_documents(base, run, task)
            _check_same_documents_scored(base, run, task)
            _check_same_probes(base, run, task)
        for task in tasks_of(run):
            check_same_documents(run, base, task)
        for key, theirs in run.inputs.items():
            ours = base.inputs.get(key, theirs)
            if ours != theirs:
                raise UserError(
                    f"{run.name!r} and {base.name!r} differ in {key} ({theirs!r} and {ours!r}), "
                    "so they read different tokens; score both with the same tokenizer "
                    "(tokenizer= in --model_args) and system instruction",
                    path=run.folder,
                )
    return tasks


def _check_same_documents_scored(base: Run, run: Run, task: str) -> None:
    """Refuse results of other documents: which ones, where there are samples, else how many."""
    ours, theirs = base.tasks[task], run.tasks[task]
    ids = scored_ids(ours), scored_ids(theirs)
    if ids[0] is not None and ids[1] is not None:
        check_same_ids(task, ids[0], ids[1], (base.name, run.name), theirs.source)
    elif ours.documents != theirs.documents:
        raise UserError(
            f"{task} of {run.name!r} and of {base.name!r} differ in number of documents "
            f"({theirs.documents} and {ours.documents}); score both on the same data with the "
            "same --limit",
            path=theirs.source,
        )


def _check_same_probes(base: Run, run: Run, task: str) -> None:
    ours, theirs = base.tasks[task], run.tasks[task]
    for what, a, b in (
        ("the token at which they decide", ours.deciding_token, theirs.deciding_token),
        ("the number of documents without probes", _without_probe(ours), _without_probe(theirs)),
    ):
        # Results of a model without probes have neither; that is said elsewhere, and better.
        if a is not None and b is not None and a != b:
            raise UserError(
                f"{task} of {run.name!r} and of {base.name!r} differ in {what} ({b!r} and {a!r}); "
                "only models with the same tokenizer and prompts can be compared",
                path=theirs.source,
            )


def _without_probe(result: TaskResult) -> float | None:
    return result.metrics.get("documents_without_probe")


def _alpha(run: Run) -> float:
    return float(model_arguments(run.config).get("renyi_alpha", 1.0))


def _check_alpha(runs: list[Run]) -> None:
    base, *others = runs
    for run in others:
        if _alpha(run) != _alpha(base):
            raise UserError(
                f"{run.name!r} and {base.name!r} differ in renyi_alpha, the order of the matrix "
                f"entropy ({_alpha(run):g} and {_alpha(base):g}); score both with the same one, "
                "or name other metrics with --metric",
                path=run.folder,
            )


def _curves(run: Run, tasks: list[str]) -> dict[str, Curve]:
    """A run's curves by metric: those that all its tasks have, with a value somewhere."""
    results = {task: run.tasks[task] for task in tasks}
    datasets = {task: result.setting.dataset for task, result in results.items()}
    curves = {}
    for name in METRICS:
        key = f"{name}_by_layer"
        if not all(key in result.layers for result in results.values()):
            continue
        layers = {task: _estimates(result, key) for task, result in results.items()}
        pooled = [
            pool(dict(zip(layers, at_layer, strict=True)), datasets)
            for at_layer in zip(*_same_length(run, key, layers), strict=True)
        ]
        middle = {
            task: Estimate(result.metrics.get(f"{name}_mid"), result.stderrs.get(f"{name}_mid"))
            for task, result in results.items()
        }
        if any(estimate.mean is not None for estimate in pooled):
            curves[name] = Curve(pooled, pool(middle, datasets))
    if not curves:
        # Of a folder that holds results of several models, some may have probes.
        lacking = next((task for task in tasks if not run.tasks[task].layers), tasks[0])
        raise UserError(
            f"{lacking} of {run.name!r} has no probes by layer; score it with regreason eval "
            "--model regreason-hf --model_args pretrained=...,probe=all",
            path=run.folder,
        )
    if len({curve.blocks for curve in curves.values()}) > 1:
        raise UserError(f"the metrics of {run.name!r} have unequal layers", path=run.folder)
    return curves


def _same_length(run: Run, key: str, layers: dict[str, list[Estimate]]) -> list[list[Estimate]]:
    lengths = {len(estimates): task for task, estimates in layers.items()}
    if len(lengths) > 1:
        tasks = " and ".join(f"{length} in {task}" for length, task in lengths.items())
        raise UserError(
            f"{key} of {run.name!r} has unequal numbers of layers ({tasks}), so they are not "
            "of one model",
            path=run.folder,
        )
    return list(layers.values())


def _estimates(result: TaskResult, key: str) -> list[Estimate]:
    means = result.layers[key]
    errors = result.layers.get(f"{key}_se", [None] * len(means))
    if len(errors) != len(means):
        raise UserError(
            f"{result.task} has {len(means)} values of {key} and {len(errors)} standard errors",
            path=result.source,
        )
    return [Estimate(*pair) for pair in zip(means, errors, strict=True)]


def _settings(run: Run, tasks: list[str]) -> str:
    return some_settings(len(tasks), in_paper(run.tasks[task].setting for task in tasks))


def _caption(base: Run, tasks: list[str], curves: dict[str, dict[str, Curve]]) -> list[str]:
    results = [base.tasks[task] for task in tasks]
    data = {result.data["sha256"]: describe_data(result.data) for result in results}
    documents = sum(documents_of(result) for result in results)
    without = sum(int(_without_probe(result) or 0) for result in results)
    caption = [
        f"Made from {' and '.join(data.values())}; {_settings(base, tasks)}, "
        f"n = {documents:,} documents" + (f", {without:,} without probes." if without else "."),
        "A curve is the unweighted mean over settings; its band, the 95 % interval over "
        "documents of these trained models; axes of a dataset taken as fully dependent, "
        "datasets as independent.",
        "h: the hidden state of D units at the deciding position; N: tokens of the prompt.",
    ]
    depths = sorted({curve.blocks for by_model in curves.values() for curve in by_model.values()})
    middles = [
        f"{'-'.join(map(str, sorted({middle[0], middle[-1]})))} of {blocks}"
        for blocks in depths
        if (middle := middle_blocks(blocks))
    ]
    if middles:
        caption.append(f"Shaded: the middle blocks, {', '.join(middles)}.")
    if is_generative(base):
        several = any(len(by_model) > 1 for by_model in curves.values())
        caption.append(
            "Generative protocol: several models are held side by side only where the label is "
            "forced at once; after explanations of their own they read different tokens."
            if several
            else "Generative protocol: after the model's own explanation, and forced at once."
        )
    alpha = _alpha(base)
    if alpha != 1 and any(name.endswith("matrix_entropy") for name in curves):
        caption.append(f"The matrix entropy is Renyi's of order {alpha:g}.")
    return caption
