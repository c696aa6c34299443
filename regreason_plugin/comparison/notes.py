"""The notes of a comparison: what a reader must know about the figures, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regreason_plugin.comparison.arms import Arms
from regreason_plugin.comparison.comparability import ENTROPIES, describe_data, renyi_alpha
from regreason_plugin.comparison.comparison import (
    Comparison,
    Setting,
    run_noun,
    setting_noun,
    some_settings,
)
from regreason_plugin.comparison.crossed_variance import ENOUGH_SEEDS
from regreason_plugin.comparison.finding_words import listed
from regreason_plugin.core.numbers import ends, number
from regreason_plugin.metrics.metric_names import FORCED, LAYER_CURVES, METRICS

# With fewer effective groups than this, intervals over groups are only approximate.
FEW_GROUPS = 20
# The number of settings with a missing label that a note names.
MOST_NAMED = 3


def notes_of(comparison: Comparison, arms: Arms) -> list[str]:
    """Write the notes of a comparison, one sentence each.

    Args:
        comparison: The figures.
        arms: The arms and their models.
    """
    pairs = arms.pairs
    count = len(comparison.settings)
    documents = sum(setting.documents for setting in comparison.settings)
    settings = some_settings(count, comparison.settings_in_paper)
    notes = [f"{about_data(comparison)}; {settings}, {documents:,} documents."]
    notes += _about_left_out(comparison.left_out)
    if comparison.protocol == "logged":
        notes += _about_logged(comparison, arms)
    else:
        notes += _about_entropies(comparison, arms)
    run, logged = run_noun(comparison), comparison.protocol == "logged"
    few = [arm for arm in comparison.arms if len(pairs[arm].places) < ENOUGH_SEEDS]
    if few:
        named = listed([f"`{arm}`" for arm in few])
        notes.append(
            f"Fewer than three {run}s: conclusions about {named} hold "
            f"for {'these runs' if logged else 'these trained models'} only, not for "
            f"{'other runs' if logged else 'models trained again'}."
        )
    if len(few) < len(comparison.arms):
        notes.append(
            f"With three {run}s or more, intervals account for both "
            f"{'runs' if logged else 'training seeds'} and groups of documents."
        )
    for arm in comparison.arms:
        if not pairs[arm].same:
            notes.append(
                f"`{arm}` and `{comparison.baseline}` have no {run} in common; their models are "
                "paired in order."
            )
        if pairs[arm].repeated:
            notes.append(
                f"Of `{arm}` and `{comparison.baseline}`, one is a single model without a "
                f"{'number' if logged else 'training seed'}; it is paired with every {run} of the "
                "other."
            )
        if pairs[arm].left_out:
            notes.append(
                f"{run.capitalize()}s without a partner are left out of the differences of "
                f"`{arm}`: {run} {listed(pairs[arm].left_out)}."
            )
    compared = {setting.task for setting in comparison.settings}
    for arm, runs in arms.runs.items() if comparison.protocol != "logged" else ():
        if more := {task for run in runs for task in run.tasks} - compared:
            notes.append(
                f"`{arm}` has {len(more)} settings that `{comparison.baseline}` lacks; they are "
                "left out."
            )
    notes += _about_temperatures(comparison)
    notes += _about_train_rows(comparison)
    notes += _about_groups(comparison.settings, setting_noun(comparison))
    notes += _about_absent_labels(comparison.settings, setting_noun(comparison))
    return notes


def _about_temperatures(comparison: Comparison) -> list[str]:
    """What the metrics of calibrated probabilities are, and each model's temperature."""
    by_arm: dict[str, list[str]] = {}
    for run in comparison.runs:
        if (one := run.temperature) is not None:
            interval = f" ({ends(one.low, one.high)})" if ends(one.low, one.high) else ""
            by_arm.setdefault(run.arm, []).append(f"{number(one.value)}{interval}")
    if not by_arm:
        return []
    named = "; ".join(f"`{arm}` {listed(of)}" for arm, of in by_arm.items())
    return [
        "Metrics named calibrated are of probabilities whose scores are divided by each model's "
        f"own temperature, fitted on validation rows: {named}. They are exploratory; a "
        "temperature changes no prediction."
    ]


def about_data(comparison: Comparison) -> str:
    """The origin of the documents in a few words; for any tasks of lm_eval, its version."""
    if comparison.protocol != "logged":
        return describe_data(comparison.data)
    return f"lm_eval {comparison.runs[0].environment.get('lm_eval_version')}"


def _about_logged(comparison: Comparison, arms: Arms) -> list[str]:
    """Tasks that are not compared or not averaged, and the groups of documents."""
    notes = []
    compared = {setting.task for setting in comparison.settings}
    for arm, runs in arms.runs.items():
        if more := sorted({task for run in runs for task in run.logged} - compared):
            notes.append(
                f"Not compared, because not every model has them: {_named(more)} of `{arm}`."
            )
    settings = {_generation_settings(run.config.get("gen_kwargs")) for run in arms.models}
    if len(settings) > 1:
        notes.append(
            f"The models generated with different settings ({' and '.join(sorted(settings))}), so "
            "differences in generated answers may come from them."
        )
    if apart := [setting.task for setting in comparison.settings if not setting.pooled]:
        notes.append(
            f"The mean over the tasks leaves out {_named(apart)}: only first metrics that are "
            "means of values from 0 to 1, of which higher ones are better, can be averaged."
        )
    return notes + group_notes({one.task: one.group_field for one in comparison.settings})


def _generation_settings(kwargs: object) -> str:
    if isinstance(kwargs, dict):
        kwargs = ", ".join(f"{key}={value}" for key, value in sorted(kwargs.items()))
    return str(kwargs or "none")


def group_notes(fields: Mapping[str, str | None]) -> list[str]:
    """Say how the documents of any tasks of lm_eval are grouped.

    Args:
        fields: For each task, the field by which its documents are grouped; None without groups.
    """
    by_field: dict[str, list[str]] = {}
    for task, field in fields.items():
        if field:
            by_field.setdefault(field, []).append(task)
    notes = [
        f"Documents of {_named(tasks)} with the same `{field}` are one group; `--group-by` names "
        "another field."
        for field, tasks in by_field.items()
    ]
    if alone := [task for task, field in fields.items() if not field]:
        notes.append(
            f"Every document of {_named(alone)} is its own group: intervals assume that these "
            "documents are independent."
        )
    return notes


def _named(tasks: Sequence[str]) -> str:
    """Up to `MOST_NAMED` tasks by name, and the number of the others."""
    more = len(tasks) - MOST_NAMED
    return listed([*tasks[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


def _about_train_rows(comparison: Comparison) -> list[str]:
    """Name the arms without a generalisation gap, if some arms have one."""
    scored = comparison.generalisation
    without = [arm for arm in (comparison.baseline, *comparison.arms) if arm not in scored]
    if not scored or not without:
        return []
    named = listed([f"`{arm}`" for arm in without])
    return [f"No generalisation gap for {named}: not every model was scored on train rows."]


def _about_groups(settings: Sequence[Setting], noun: str) -> list[str]:
    """Name settings with few effective groups, or far fewer effective groups than groups."""
    unequal = [one for one in settings if one.effective_groups < one.groups / 2]
    small = [one for one in settings if one.effective_groups < FEW_GROUPS]
    notes = []
    if unequal:
        least = min(unequal, key=lambda one: one.effective_groups / one.groups)
        name = least.task if noun == "task" else least.title
        where = f"{len(unequal)} of {len(settings)} {noun}s, such as " if len(settings) > 1 else ""
        notes.append(f"A few large groups of documents dominate {where}{name}: {worth(least)}.")
    if small:
        fewest = min(small, key=lambda one: one.effective_groups)
        notes.append(
            f"{len(small)} of {len(settings)} {noun}s have fewer than {FEW_GROUPS} groups of "
            f"documents, counted as groups of equal size (the fewest: {worth(fewest)}): the "
            f"intervals of these {noun}s are only approximate."
        )
    return notes


def _about_absent_labels(settings: Sequence[Setting], noun: str) -> list[str]:
    """Name the labels that no document has: they count as 0 in the macro-F1."""
    absent = {
        one.task: [
            name for name, count in zip(one.label_names, one.labels, strict=True) if not count
        ]
        for one in settings
    }
    absent = {task: names for task, names in absent.items() if names}
    if not absent:
        return []
    places = [
        f"{task} (no {' or '.join(map(repr, names))})"
        for task, names in list(absent.items())[:MOST_NAMED]
    ]
    if more := len(absent) - len(places):
        places.append(f"{more} more")
    return [
        f"A label that no document of a {noun} has counts as 0 in the macro-F1, which therefore "
        f"cannot reach 1: in {listed(places)}."
    ]


def worth(setting: Setting) -> str:
    """The groups of a setting, such as ``105 groups, worth 9 of equal size``."""
    count = f"{setting.groups:,} group{'s' * (setting.groups != 1)}"
    worth_of = f"{setting.effective_groups:.0f}"
    if worth_of == f"{setting.groups}":
        return count
    return f"{count}, worth {worth_of} of equal size"


def _about_left_out(left_out: Mapping[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        f"Not compared: {_titles(names)}. Reason: {reason}." for reason, names in by_reason.items()
    ]


def _titles(names: list[str]) -> str:
    """The titles of metrics and entropies; one short phrase for all entropies together."""
    plain = [name.removeprefix(FORCED) for name in names]
    if not {*ENTROPIES} <= {*plain}:
        return listed([_title(name) for name in names])
    forced = ", label forced at once" * any(name.startswith(FORCED) for name in names)
    others = [_title(name) for name in plain if name not in ENTROPIES]
    return listed([*others, f"entropies of the models' layers and output{forced}"])


def _title(name: str) -> str:
    if name in METRICS:
        return METRICS[name].title
    if name not in LAYER_CURVES:
        return name
    title, _ = LAYER_CURVES[name]
    return title[0].lower() + title[1:]


def _about_entropies(comparison: Comparison, arms: Arms) -> list[str]:
    """Documents without entropies, and a Renyi order other than 1."""
    first = arms.models[0]
    without = [
        first.tasks[setting.task].metrics.get("documents_without_probe") or 0
        for setting in comparison.settings
    ]
    notes = []
    if comparison.layers and sum(without):
        notes.append(
            f"{sum(without):,.0f} documents have no entropies; means of entropies leave them out."
        )
    alpha = renyi_alpha(first)
    if alpha != 1 and any("matrix_entropy" in name for name in comparison.layers):
        notes.append(f"The matrix entropy is the Renyi entropy of order {alpha:g}.")
    return notes
