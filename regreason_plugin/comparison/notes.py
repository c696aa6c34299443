"""What has to be known to read the numbers of a comparison: its notes, a sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regreason_plugin.comparison.arms import Arms
from regreason_plugin.comparison.comparability import ENTROPIES, describe_data, renyi_alpha
from regreason_plugin.comparison.comparison import Comparison, Setting, some_settings
from regreason_plugin.comparison.crossed_variance import ENOUGH_SEEDS
from regreason_plugin.comparison.finding_words import listed
from regreason_plugin.metrics.metric_names import FORCED, LAYER_CURVES, METRICS

# Worth fewer groups of equal size than this, and an interval that rests on how they vary is rough.
FEW_GROUPS = 20
# As many settings that lack a label are named.
MOST_NAMED = 3


def notes_of(comparison: Comparison, arms: Arms) -> list[str]:
    """What a reader of the numbers has to know, a sentence each.

    Args:
        comparison: The numbers.
        arms: The models that they are of.
    """
    pairs = arms.pairs
    count = len(comparison.settings)
    documents = sum(setting.documents for setting in comparison.settings)
    settings = some_settings(count, comparison.settings_in_paper)
    notes = [f"{describe_data(comparison.data)}; {settings}, {documents:,} documents."]
    notes += _about_left_out(comparison.left_out)
    notes += _about_entropies(comparison, arms)
    few = [arm for arm in comparison.arms if len(pairs[arm].places) < ENOUGH_SEEDS]
    if few:
        notes.append(
            f"Fewer than three seeds: what is said of {listed([f'`{arm}`' for arm in few])} holds "
            "for these trained models only, not for what training again would give."
        )
    if len(few) < len(comparison.arms):
        notes.append(
            "Intervals from three seeds on are over training seeds and groups of documents alike."
        )
    for arm in comparison.arms:
        if not pairs[arm].same:
            notes.append(
                f"`{arm}` and `{comparison.baseline}` have no seed in common; their models are "
                "paired in order."
            )
        if pairs[arm].repeated:
            notes.append(
                f"Of `{arm}` and `{comparison.baseline}`, the one without a training seed stands "
                "against every seed of the other."
            )
        if pairs[arm].left_out:
            notes.append(
                f"Without a partner, and left out of the differences of `{arm}`: seed "
                f"{listed(pairs[arm].left_out)}."
            )
    compared = {setting.task for setting in comparison.settings}
    for arm, runs in arms.runs.items():
        if more := {task for run in runs for task in run.tasks} - compared:
            notes.append(
                f"`{arm}` has {len(more)} more settings than `{comparison.baseline}`, which are "
                "left out: the baseline's are compared."
            )
    notes += _about_train_rows(comparison)
    notes += _about_groups(comparison.settings)
    notes += _about_absent_labels(comparison.settings)
    return notes


def _about_train_rows(comparison: Comparison) -> list[str]:
    """Of which arms and settings the gap to the train rows is not known, where some have one."""
    scored = comparison.generalisation
    without = [arm for arm in (comparison.baseline, *comparison.arms) if arm not in scored]
    if not scored or not without:
        return []
    named = listed([f"`{arm}`" for arm in without])
    return [f"Not every model of {named} was scored on train rows: without a gap to test rows."]


def _about_groups(settings: Sequence[Setting]) -> list[str]:
    """Of what their sizes leave of the groups, where that is few or much less than their number."""
    unequal = [one for one in settings if one.effective_groups < one.groups / 2]
    small = [one for one in settings if one.effective_groups < FEW_GROUPS]
    notes = []
    if unequal:
        least = min(unequal, key=lambda one: one.effective_groups / one.groups)
        where = f"in {len(unequal)} of {len(settings)} settings, as " if len(settings) > 1 else ""
        notes.append(
            f"A few large groups of documents count for much: {where}in {least.title}, "
            f"{worth(least)}."
        )
    if small:
        fewest = min(small, key=lambda one: one.effective_groups)
        notes.append(
            f"{len(small)} of {len(settings)} settings have fewer than {FEW_GROUPS} groups of "
            f"documents, counted as groups of equal size (the least: {worth(fewest)}): their own "
            "intervals are rough."
        )
    return notes


def _about_absent_labels(settings: Sequence[Setting]) -> list[str]:
    """Labels that no document has count 0 in macro-F1, so that it cannot reach 1."""
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
        "A label that no document of a setting has counts 0 in the macro-F1, which therefore "
        f"cannot reach 1: in {listed(places)}."
    ]


def worth(setting: Setting) -> str:
    """Such as ``105 groups, worth 9 of equal size``; the number alone where they are equal."""
    count = f"{setting.groups:,} group{'s' * (setting.groups != 1)}"
    worth_of = f"{setting.effective_groups:.0f}"
    if worth_of == f"{setting.groups}":
        return count
    return f"{count}, worth {worth_of} of equal size"


def _about_left_out(left_out: Mapping[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return [f"Left out, {_titles(names)}: {reason}." for reason, names in by_reason.items()]


def _titles(names: list[str]) -> str:
    """What metrics and entropies are called; all entropies together in a few words."""
    plain = [name.removeprefix(FORCED) for name in names]
    if not {*ENTROPIES} <= {*plain}:
        return listed([_title(name) for name in names])
    forced = ", label forced at once" * any(name.startswith(FORCED) for name in names)
    others = [_title(name) for name in plain if name not in ENTROPIES]
    return listed([*others, f"entropies of the models' layers and output{forced}"])


def _title(name: str) -> str:
    if name in METRICS:
        return METRICS[name].title
    title, _ = LAYER_CURVES[name]
    return title[0].lower() + title[1:]


def _about_entropies(comparison: Comparison, arms: Arms) -> list[str]:
    """How they were measured, as far as that is not always the same."""
    first = arms.models[0]
    without = [
        first.tasks[setting.task].metrics.get("documents_without_probe") or 0
        for setting in comparison.settings
    ]
    notes = []
    if comparison.layers and sum(without):
        notes.append(f"{sum(without):,.0f} documents have no entropies; the means leave them out.")
    alpha = renyi_alpha(first)
    if alpha != 1 and any("matrix_entropy" in name for name in comparison.layers):
        notes.append(f"The matrix entropy is Renyi's of order {alpha:g}.")
    return notes
