"""The three questions, answered in words that are made from the numbers and no stronger."""

from __future__ import annotations

from collections.abc import Mapping

from regreason_plugin.compare.arms import Arms
from regreason_plugin.compare.comparability import ENTROPIES, describe_data, renyi_alpha
from regreason_plugin.compare.comparison import (
    Answer,
    Comparison,
    Difference,
    Gap,
    some_settings,
)
from regreason_plugin.compare.crossed_variance import ENOUGH_SEEDS
from regreason_plugin.metrics.metric_names import (
    FORCED,
    LAYER_CURVES,
    METRICS,
    OTHER_ACTIVATIONS,
    PRIMARY_ACTIVATION,
)

# Fewer than this, and an interval that rests on how they vary is a guess itself.
FEW_GROUPS = 20
# By name, in a word.
_OTHERS = {
    "macro_f1": "macro-F1",
    "qwk": "kappa",
    "mae": "absolute error",
    "auroc": "area under the ROC curve",
    "ece": "calibration error",
    "nll": "log-likelihood",
}
_OUTPUT = {
    "output_entropy": "over the vocabulary",
    "label_entropy": "over the labels",
    FORCED + "output_entropy": "over the vocabulary",
}
_ENTROPIES_ASKED = "Is the entropy of the middle layers higher, and the output sharper?"


def answers(comparison: Comparison) -> list[Answer]:
    """The answers to what the numbers can answer, the paper's questions first."""
    answered = [_helps(comparison)]
    if comparison.gap:
        answered.append(_keeps(comparison))
    prefix = FORCED if comparison.protocol == "explanation_first" else ""
    if f"{prefix}{PRIMARY_ACTIVATION}_mid" in comparison.metrics:
        answered.append(_entropies(comparison, prefix))
    elif reason := comparison.left_out.get(prefix + PRIMARY_ACTIVATION):
        answered.append(
            Answer(
                question=_ENTROPIES_ASKED,
                short="cannot be said",
                sentences=[f"The activation entropy is not compared: {reason}."],
            )
        )
    return answered


def _helps(comparison: Comparison) -> Answer:
    """Whether the explanation helps; of other arms, whether each does."""
    whole = comparison.gap_of
    arms = [whole] if whole else comparison.arms
    question = f"Does `{arms[0]}` help?" if len(arms) == 1 else "Which arm helps?"
    short = "; ".join(
        (f"{arm}: " if len(arms) > 1 else "")
        + _direction(comparison.pooled[arm]["acc"], "better", "worse")
        for arm in arms
    )
    if all(comparison.pooled[arm]["acc"].over == "groups" for arm in arms):
        short += ", for these trained models"
    sentences = [_accuracy(comparison, arm) for arm in arms]
    for arm in arms:
        sentences += _others(comparison, arm)
    return Answer(question=question, short=short, sentences=sentences)


def _direction(difference: Difference, above: str, below: str) -> str:
    """What an interval shows, in a few words."""
    if difference.low is None or difference.high is None:
        return "cannot be said"
    if difference.low > 0:
        return above
    if difference.high < 0:
        return below
    if difference.low == difference.high == 0:
        return "no difference at all"
    return "no difference shown"


def _accuracy(comparison: Comparison, arm: str) -> str:
    difference, wins = comparison.pooled[arm]["acc"], comparison.wins[arm]
    settings = [of["acc"] for of in comparison.differences[arm].values()]
    where = f"the mean over {wins.of} settings" if wins.of > 1 else "the one setting"
    text = (
        f"In {where}, the accuracy of `{arm}` is {_points(difference)} that of "
        f"`{comparison.baseline}`{_interval(difference)}"
    )
    text += f"; it is higher in {wins.wins} of {wins.of}" + (
        f", tied in {wins.ties}" if wins.ties else ""
    )
    clear = [one for one in settings if one.p_holm is not None and one.p_holm < 0.05]
    if wins.of > 1:
        up = sum((one.value or 0) > 0 for one in clear)
        text += f", clearly so in {up}" if up else ", clearly so in none"
        down = len(clear) - up
        text += f", and clearly lower in {down}" if down else ""
        text += " (Holm-corrected p < 0.05)"
    text += "."
    if difference.detectable and _direction(difference, "", "") == "no difference shown":
        text += (
            f" A true difference of {difference.detectable:.3f} would have been found with a "
            f"probability of {comparison.power:.0%}, a smaller one less often."
        )
    return text


def _points(difference: Difference) -> str:
    value = difference.value or 0.0
    if abs(value) < 5e-4:
        return "within 0.001 of"
    return f"{abs(value):.3f} {'above' if value > 0 else 'below'}"


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return " (no interval: a single group of documents)"
    return f" (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"


def _others(comparison: Comparison, arm: str) -> list[str]:
    """Which other metrics move with it, against it, or cannot be told."""
    better, worse, unclear = [], [], []
    for name, short in _OTHERS.items():
        difference = comparison.pooled[arm].get(name)
        if difference is None or difference.low is None or difference.high is None:
            continue
        sign = 1 if METRICS[name].better == "higher" else -1
        shown = f"{METRICS[name].title} ({difference.value:+.3f})"
        if min(sign * difference.low, sign * difference.high) > 0:
            better.append(shown)
        elif max(sign * difference.low, sign * difference.high) < 0:
            worse.append(shown)
        else:
            unclear.append(short)
    parts = []
    if better:
        parts.append(f"better in {_list(better)}")
    if worse:
        parts.append(f"worse in {_list(worse)}")
    sentences = [f"`{arm}` is {'; '.join(parts)}."] if parts else []
    if unclear:
        have = "has 0 in its interval" if len(unclear) == 1 else "have 0 in their intervals"
        sentences.append(f"No difference is shown in {_list(unclear)}, which {have}.")
    return sentences


def _keeps(comparison: Comparison) -> Answer:
    whole = comparison.pooled[comparison.gap_of or ""]["acc"]
    loses = whole.high is not None and whole.high < 0
    sentences = [
        _gap(arm, gap, comparison.gap_of or "", "loses" if loses else "gains")
        for arm, gap in comparison.gap.items()
    ]
    unsure = whole.low is None or whole.high is None or whole.low <= 0 <= whole.high
    if unsure:
        sentences.append(
            f"Whether `{comparison.gap_of}` itself gains anything is not shown, so a share of its "
            "gain has little meaning."
        )
        short = "cannot be said"
    elif loses:
        sentences.append(
            f"`{comparison.gap_of}` loses accuracy: there is no gain of which others could keep a "
            "share."
        )
        short = f"{comparison.gap_of} gains nothing"
    else:
        short = "; ".join(
            f"{arm} {gap.value:.0%}" for arm, gap in comparison.gap.items() if gap.value is not None
        )
    return Answer(
        question=f"How much of what `{comparison.gap_of}` gains does each other arm keep?",
        short=short,
        sentences=sentences,
    )


def _gap(arm: str, gap: Gap, whole: str, does: str) -> str:
    if gap.value is None:
        return f"`{arm}`: no share, as the accuracy of `{whole}` does not differ at all."
    text = f"`{arm}` {does} {gap.value:.2f} times as much, 95 % interval "
    if gap.kind == "everything" or gap.low is None or gap.high is None:
        return text + "unbounded: no share can be excluded."
    if gap.kind == "outside":
        return text + f"unbounded: all but {gap.low:.2f} to {gap.high:.2f}."
    return text + f"{gap.low:.2f} to {gap.high:.2f}."


def _entropies(comparison: Comparison, prefix: str) -> Answer:
    whole = comparison.gap_of
    arms = [whole] if whole else comparison.arms
    at_once = ", its label forced at once" if prefix else ""
    primary = f"{prefix}{PRIMARY_ACTIVATION}_mid"
    beside = [f"{prefix}{name}_mid" for name in OTHER_ACTIVATIONS]
    sentences, shorts = [], []
    for arm in arms:
        differences = comparison.pooled[arm]
        others = {name: differences[name] for name in beside if name in differences}
        outer = {name: differences[name] for name in _OUTPUT if name in differences}
        one, primary_text = _agreement({primary: differences[primary]}, "higher", "lower")
        _, others_text = _agreement(others, "higher", "lower")
        two, outer_text = _agreement(outer, "less sharp", "sharper")
        shorts.append((f"{arm}: " if len(arms) > 1 else "") + f"middle {one}; output {two}")
        sentences.append(
            f"Activation entropy in the middle blocks of `{arm}`{at_once}: {primary_text}"
            + (f"; by the other definition: {others_text}." if others else ".")
        )
        sentences.append(
            f"Entropy of its output, {_list([_OUTPUT[name] for name in outer])}: {outer_text}. "
            "Lower is sharper, which is not the same as better calibrated."
        )
    return Answer(
        question=_ENTROPIES_ASKED,
        short="; ".join(shorts),
        sentences=sentences,
    )


def _agreement(differences: Mapping[str, Difference], above: str, below: str) -> tuple[str, str]:
    """A few words where all definitions agree, and each difference with its interval."""
    directions = {_direction(one, above, below) for one in differences.values()}
    text = ", ".join(
        f"{_short_name(name)} {one.value or 0:+.3f}{_interval(one).replace('95 % interval ', '')}"
        for name, one in differences.items()
    )
    if len(directions) == 1:
        return directions.pop(), text
    clear = directions & {above, below}
    if len(clear) == 1:
        return f"{clear.pop()} by some definitions only", text
    return "definitions disagree" if clear else "no difference shown", text


def _short_name(name: str) -> str:
    title = METRICS[name.removeprefix(FORCED)].title
    return (
        title.removeprefix("activation entropy, ")
        .removesuffix(", middle blocks")
        .removeprefix("entropy ")
    )


def _list(items: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


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
            "Fewer than three seeds: the intervals of "
            f"{_list([f'`{arm}`' for arm in few])} speak of these trained models only, not of "
            "what training again would give."
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
                f"{_list(pairs[arm].left_out)}."
            )
    compared = {setting.task for setting in comparison.settings}
    for arm, runs in arms.runs.items():
        if more := {task for run in runs for task in run.tasks} - compared:
            notes.append(
                f"`{arm}` has {len(more)} more settings than `{comparison.baseline}`, which are "
                "left out: the baseline's are compared."
            )
    small = [setting for setting in comparison.settings if setting.groups < FEW_GROUPS]
    if small:
        fewest = min(setting.groups for setting in small)
        notes.append(
            f"{len(small)} of {count} settings have fewer than {FEW_GROUPS} groups of documents "
            f"(the least: {fewest}): their own intervals are rough."
        )
    return notes


def _about_left_out(left_out: Mapping[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return [f"Left out, {_titles(names)}: {reason}." for reason, names in by_reason.items()]


def _titles(names: list[str]) -> str:
    """What metrics and entropies are called; all entropies together in a few words."""
    plain = [name.removeprefix(FORCED) for name in names]
    if not {*ENTROPIES} <= {*plain}:
        return _list([_title(name) for name in names])
    forced = ", label forced at once" * any(name.startswith(FORCED) for name in names)
    others = [_title(name) for name in plain if name not in ENTROPIES]
    return _list([*others, f"entropies of the models' layers and output{forced}"])


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
