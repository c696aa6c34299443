"""Answers to the questions of a comparison, worded from the findings and never stronger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import get_args

from regreason_plugin.comparison.comparison import (
    Answer,
    Comparison,
    Difference,
    Finding,
    Gap,
    run_noun,
    setting_noun,
)
from regreason_plugin.comparison.finding_words import (
    about_family,
    claim,
    listed,
    margin_text,
    p_text,
    primary_question,
    primary_short,
    with_interval,
)
from regreason_plugin.core.numbers import ends
from regreason_plugin.metrics.metric_names import (
    FORCED,
    METRICS,
    OTHER_ACTIVATIONS,
    PRIMARY_ACTIVATION,
)

# The metrics other than accuracy that the answers mention.
_OTHERS = ("macro_f1", "qwk", "mae", "auroc", "miscalibration", "nll")
_OUTPUT = {
    "output_entropy": "over the vocabulary",
    "label_entropy": "over the labels",
    FORCED + "output_entropy": "over the vocabulary",
}
# The number of tasks with the largest differences that an answer names.
_NAMED = 3
# The order in which findings are listed.
_ORDER: tuple[Finding | None, ...] = (*get_args(Finding), None)
_ENTROPIES_ASKED = "Is the entropy of the middle layers higher, and the output sharper?"


def answers(comparison: Comparison) -> list[Answer]:
    """Answer the questions that the figures can answer: the primary one, then the paper's."""
    if comparison.protocol == "logged":
        return [_primary(comparison), *(_by_task(comparison, arm) for arm in comparison.arms)]
    answered = [_primary(comparison), _helps(comparison)]
    if comparison.gap:
        answered.append(_keeps(comparison))
    prefix = FORCED if comparison.protocol == "explanation_first" else ""
    names = [prefix + name for name in (PRIMARY_ACTIVATION, *OTHER_ACTIVATIONS)]
    reasons = [comparison.left_out.get(name) for name in names]
    if any(f"{name}_mid" in comparison.metrics for name in names):
        answered.append(_entropies(comparison, prefix))
    elif reason := next(filter(None, reasons), None):
        answered.append(
            Answer(
                question=_ENTROPIES_ASKED,
                short="cannot be said",
                sentences=[f"The activation entropies are not compared: {reason}."],
            )
        )
    return answered


def _primary(comparison: Comparison) -> Answer:
    """Answer the primary question, and state the number of other tests."""
    primary = comparison.primary
    if primary is None:
        arm = comparison.arms[0]
        sentences = [
            "Name a primary question with `--primary ARM[:METRIC]`, such as "
            f"`--primary {arm}:{comparison.main}`."
        ]
    else:
        difference = comparison.pooled[primary.arm][primary.metric]
        interval = ends(difference.low, difference.high, sign=True)
        figures = [
            f"{100 * comparison.level:g} % interval {interval}" if interval else "",
            p_text(difference.p),
        ]
        count = sum(setting.pooled for setting in comparison.settings)
        noun = setting_noun(comparison)
        over = f"Mean over {count} {noun}s" if count > 1 else f"One {noun}"
        shown = ", ".join(filter(None, figures))
        sentences = [f"{over}: {shown or 'no interval, because all documents are one group'}."]
        if difference.p_same is not None:
            sentences.append(
                f"Equivalence within ±{margin_text(comparison)} (`--margin`, default 0.01), by two "
                f"one-sided tests: {p_text(difference.p_same)}."
            )
        sentences += _detectable(comparison, primary.arm)
    return Answer(
        question=primary_question(comparison),
        short=primary_short(comparison),
        sentences=[*sentences, *about_family(comparison)],
    )


def _detectable(comparison: Comparison, arm: str) -> list[str]:
    """The difference that this many documents and seeds can detect, whatever they found."""
    known = comparison.detectable.get(arm)
    if known is None or known.value is None:
        return []
    between, interval = ends(known.low, known.high), ""
    if between:
        interval = f" ({100 * comparison.level:g} % interval of that difference: {between})"
    return [
        f"With this many documents and {run_noun(comparison)}s, the test finds a true difference "
        f"of {known.value:.3f} with a probability of {100 * comparison.power:g} %{interval}."
    ]


def _asked(comparison: Comparison) -> list[str]:
    """The arms that the paper's questions are about: `explanation` if present, else all arms."""
    return [comparison.gap_of] if comparison.gap_of else comparison.arms


def _of_arm(arm: str, arms: list[str], text: str) -> str:
    return f"{arm}: {text}" if len(arms) > 1 else text


def _helps(comparison: Comparison) -> Answer:
    """Whether `explanation` improves the accuracy; without it, whether each arm does."""
    arms = _asked(comparison)
    question = f"Does `{arms[0]}` help?" if len(arms) == 1 else "Which arm helps?"
    claims = {arm: claim(comparison, comparison.pooled[arm]["acc"], "acc") for arm in arms}
    sentences = [sentence for arm in arms for sentence in _accuracy(comparison, arm)]
    for arm in arms:
        sentences += _others(comparison, arm)
    return Answer(
        question=question,
        short="Accuracy: " + "; ".join(_of_arm(arm, arms, claims[arm]) for arm in arms),
        sentences=sentences,
    )


def _by_task(comparison: Comparison, arm: str) -> Answer:
    """In how many tasks an arm's main metric is higher or lower."""
    by_task = {
        task: of[comparison.main]
        for task, of in comparison.differences[arm].items()
        if comparison.main in of
    }
    in_order = sorted(by_task.values(), key=lambda one: _ORDER.index(one.finding))
    counts = Counter(claim(comparison, one, comparison.main) for one in in_order)
    largest = sorted(by_task, key=lambda task: -abs(by_task[task].value or 0))[:_NAMED]
    return Answer(
        question=f"In which tasks does `{arm}` differ from `{comparison.baseline}`?",
        short="; ".join(f"{said} in {count}" for said, count in counts.items()),
        sentences=[
            f"{task}: {with_interval(comparison, by_task[task])}: "
            f"{claim(comparison, by_task[task], comparison.main)}."
            for task in largest
        ],
    )


def _accuracy(comparison: Comparison, arm: str) -> list[str]:
    difference = comparison.pooled[arm]["acc"]
    by_setting = {
        task: of["acc"] for task, of in comparison.differences[arm].items() if "acc" in of
    }
    several = len(by_setting) > 1
    where = f"On average over {len(by_setting)} settings" if several else "In the one setting"
    sentences = [
        f"{where}, the accuracy of `{arm}` minus that of `{comparison.baseline}` is "
        f"{with_interval(comparison, difference)}: {claim(comparison, difference, 'acc')}."
    ]
    if several:
        in_order = sorted(by_setting.values(), key=lambda one: _ORDER.index(one.finding))
        counts = Counter(claim(comparison, one, "acc") for one in in_order)
        told = "; ".join(f"{said} in {count}" for said, count in counts.items())
        sentences.append(f"By setting, the accuracy of `{arm}` is: {told}.")
    return sentences


def _others(comparison: Comparison, arm: str) -> list[str]:
    """The findings for other metrics than accuracy: one sentence per kind of finding."""
    by_claim: dict[str, list[str]] = {}
    for name in _OTHERS:
        difference = comparison.pooled[arm].get(name)
        if difference is None or difference.low is None:
            continue
        shown = f"{METRICS[name].title} {with_interval(comparison, difference)}"
        by_claim.setdefault(claim(comparison, difference, name), []).append(shown)
    return [f"For `{arm}`, {said}: {listed(shown)}." for said, shown in by_claim.items()]


def _keeps(comparison: Comparison) -> Answer:
    whole = comparison.gap_of or ""
    gain = comparison.pooled[whole]["acc"]
    gains = gain.finding in ("higher", "higher and same")
    known = {arm: gap for arm, gap in comparison.gap.items() if gap.value is not None}
    shares = [_share(arm, whole, gap) for arm, gap in comparison.gap.items()]
    if gains:
        told = "; ".join(f"{arm} {gap.value:.0%}" for arm, gap in known.items()) or "none is known"
        short, sentences = f"exploratory: {told}", shares
    else:
        said = claim(comparison, gain, "acc")
        short = "cannot be said"
        sentences = [
            f"No gain of `{whole}` is found (its accuracy: {said}), so a fraction of that gain "
            "means little.",
            *shares,
        ]
    for one in comparison.contrasts:
        if whole in (one.arm, one.minus) and "acc" in one.differences:
            difference = one.differences["acc"]
            sentences.append(
                f"The accuracy of `{one.arm}` minus that of `{one.minus}` is "
                f"{with_interval(comparison, difference)}: {claim(comparison, difference, 'acc')}."
            )
    return Answer(
        question=f"How much of what `{whole}` gains does each other arm keep?",
        short=short,
        sentences=sentences,
    )


def _share(arm: str, whole: str, gap: Gap) -> str:
    """An arm's difference as a multiple of another's, with its Fieller set; exploratory.

    The words hold for a gain as for a loss.
    """
    if gap.value is None:
        return f"`{arm}`: undefined, because the difference of `{whole}` is exactly 0."
    if gap.kind == "everything" or gap.low is None or gap.high is None:
        interval = "unbounded: no value can be excluded"
    elif gap.kind == "outside":
        interval = f"unbounded: everything except {gap.low:.2f} to {gap.high:.2f}"
    else:
        interval = f"{gap.low:.2f} to {gap.high:.2f}"
    return (
        f"`{arm}`: {gap.value:.2f} times the difference of `{whole}`, exploratory, 95 % interval "
        f"{interval}."
    )


def _entropies(comparison: Comparison, prefix: str) -> Answer:
    arms = _asked(comparison)
    at_once = ", with the label forced at once" if prefix else ""
    primary = f"{prefix}{PRIMARY_ACTIVATION}_mid"
    sentences, shorts = [], []
    if reason := comparison.left_out.get(prefix + PRIMARY_ACTIVATION):
        sentences.append(f"The activation entropy is not compared: {reason}.")
    for arm in arms:
        pooled = comparison.pooled[arm]
        inner = pooled.get(primary)
        outer = {name: pooled[name] for name in _OUTPUT if name in pooled}
        middle = claim(comparison, inner, primary) if inner else "not compared"
        said = [f"middle blocks {middle}"]
        if inner:
            sentences.append(
                f"Activation entropy in the middle blocks of `{arm}`{at_once}: "
                f"{with_interval(comparison, inner)}: {middle}."
            )
        others = [f"{prefix}{name}_mid" for name in OTHER_ACTIVATIONS]
        if explored := {name: pooled[name] for name in others if name in pooled}:
            sentences.append(f"With the other definition: {_figures(comparison, explored)}.")
        for name, one in outer.items():
            sentences.append(
                f"Entropy of the output {_OUTPUT[name]}: {with_interval(comparison, one)}: "
                f"{claim(comparison, one, name)}."
            )
        if outer:
            name = next(iter(outer))
            said.append(f"output {_OUTPUT[name]} {claim(comparison, outer[name], name)}")
        shorts.append(_of_arm(arm, arms, "; ".join(said)))
    sentences.append(
        "An output with less entropy is sharper, which says nothing about its calibration."
    )
    return Answer(question=_ENTROPIES_ASKED, short="; ".join(shorts), sentences=sentences)


def _figures(comparison: Comparison, differences: Mapping[str, Difference]) -> str:
    """Differences with their intervals and findings, in one phrase."""
    return "; ".join(
        [
            f"{_short_name(name)} {with_interval(comparison, one)}, {claim(comparison, one, name)}"
            for name, one in differences.items()
        ]
    )


def _short_name(name: str) -> str:
    title = METRICS[name.removeprefix(FORCED)].title
    return title.removeprefix("activation entropy, ").removesuffix(", middle blocks")
