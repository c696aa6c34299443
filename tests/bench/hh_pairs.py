"""Ratings by the rule raters of pairs that people have judged: HH-RLHF, helpful-base, test.

`regreason_plugin.annotate.rules.rate` rates both answers of a pair, as `regreason annotate` does by
default. The printed Markdown table has, by axis, the share of pairs in which the chosen answer is
rated higher than, equal to and lower than the rejected one. A further row compares the lengths of
the two answers, as a trivial baseline.

Pairs that start with the same request are one group. Intervals are the 2.5 and 97.5 percentiles of
a bootstrap over groups.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from regreason_plugin.annotate.rules import rate
from regreason_plugin.core.jsonl import read_records
from regreason_plugin.core.paper import AXES, EIGHTEEN
from regreason_plugin.core.records import Conversation
from regreason_plugin.data.importing import import_dataset, open_source

DATA = Path(os.environ.get("REGREASON_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = DATA / "hh-rlhf" / "helpful-base-test.jsonl.gz"
DRAWS, SEED = 10_000, 0
_LENGTH = "(words in the answer)"

Measures = dict[str, dict[str, float]]  # values by measure, then by pair


def conversations(dataset: str, path: Path) -> Iterator[Conversation]:
    """The conversations of one side of the pairs, read by `regreason import`'s code."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.jsonl"
        import_dataset(dataset, open_source(dataset, path=path), out)
        yield from read_records(out, Conversation, declaration=EIGHTEEN)


def measured(dataset: str, path: Path) -> tuple[Measures, Measures, dict[str, str]]:
    """Rate one side of the pairs.

    Returns:
        The scores and the labels by axis and pair, and the group of each pair.
    """
    scores: Measures = {axis: {} for axis in (*AXES, _LENGTH)}
    labels: Measures = {axis: {} for axis in AXES}
    groups: dict[str, str] = {}
    for conversation in conversations(dataset, path):
        pair = (conversation.meta or {})["pair"]
        groups[pair] = conversation.group
        scores[_LENGTH][pair] = len(conversation.conversation[-1].content.split())
        for rating in rate([conversation]):
            scores[rating.axis][pair] = rating.score
            labels[rating.axis][pair] = rating.label
    return scores, labels, groups


def table(chosen: Measures, rejected: Measures, groups: dict[str, str]) -> Iterator[str]:
    """The lines of a Markdown table with shares of pairs, in per cent."""
    yield "| axis | pairs | groups | at least as high | higher | equal | lower | higher - lower |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for axis in chosen:
        pairs = sorted(chosen[axis].keys() & rejected[axis].keys())
        signs = np.sign([chosen[axis][pair] - rejected[axis][pair] for pair in pairs])
        names = sorted({groups[pair] for pair in pairs})
        numbers = {name: number for number, name in enumerate(names)}
        group = np.array([numbers[groups[pair]] for pair in pairs])
        shares = [f"{100 * np.mean(signs == sign):.1f}" for sign in (1, 0, -1)]
        yield (
            f"| {axis} | {len(pairs)} | {len(names)} | {interval(signs >= 0, group)} "
            f"| {' | '.join(shares)} | {interval(signs, group)} |"
        )


def interval(values: np.ndarray, group: np.ndarray) -> str:
    """The mean in per cent with its 95 % bootstrap interval over groups."""
    sums, sizes = np.bincount(group, values.astype(float)), np.bincount(group)
    random = np.random.default_rng(SEED)
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        drawn = random.integers(len(sizes), size=len(sizes))
        means[draw] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = 100 * np.percentile(means, [2.5, 97.5])
    return f"{100 * values.mean():.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    """Rate both sides of the pairs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, default=REAL, help="a file of HH-RLHF pairs")
    path = parser.parse_args().path
    chosen_scores, chosen_labels, groups = measured("hh_chosen", path)
    rejected_scores, rejected_labels, _ = measured("hh_rejected", path)
    print(f"{path.name}; bootstrap over groups, {DRAWS} draws, seed {SEED}; per cent of pairs\n")
    print("By score, the mean of six ratings:\n")
    print("\n".join(table(chosen_scores, rejected_scores, groups)))
    print("\nBy label, the score rounded to 1..5:\n")
    print("\n".join(table(chosen_labels, rejected_labels, groups)))


if __name__ == "__main__":
    main()
