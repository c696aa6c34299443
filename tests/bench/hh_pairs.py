"""What the rule raters say of pairs that people have judged: HH-RLHF, helpful-base, test.

Both answers of a pair are rated by `regreason_plugin.annotate.rules.rate` as
`regreason annotate` does by default. Prints by axis in how many pairs the chosen answer
is rated higher than, as high as and lower than the rejected one, as a Markdown table;
and the same for the length of the answers, which is no rating at all.

Pairs that start with the same request are one group; intervals are 2.5 to 97.5 % of a
bootstrap that draws groups.
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

Measures = dict[str, dict[str, float]]  # by measure, then by pair


def conversations(dataset: str, path: Path) -> Iterator[Conversation]:
    """One side of the pairs, imported as a user would."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.jsonl"
        import_dataset(dataset, open_source(dataset, path=path), out)
        yield from read_records(out, Conversation, declaration=EIGHTEEN)


def measured(dataset: str, path: Path) -> tuple[Measures, Measures, dict[str, str]]:
    """Scores and labels of one side by axis and pair, and each pair's group."""
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
    """Lines of Markdown: shares of pairs in per cent."""
    yield "| axis | pairs | groups | at least as high | higher | equal | lower | higher - lower |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for axis in chosen:
        pairs = sorted(chosen[axis].keys() & rejected[axis].keys())
        signs = np.sign([chosen[axis][pair] - rejected[axis][pair] for pair in pairs])
        names = sorted({groups[pair] for pair in pairs})
        place = {name: number for number, name in enumerate(names)}
        group = np.array([place[groups[pair]] for pair in pairs])
        shares = [f"{100 * np.mean(signs == sign):.1f}" for sign in (1, 0, -1)]
        yield (
            f"| {axis} | {len(pairs)} | {len(names)} | {interval(signs >= 0, group)} "
            f"| {' | '.join(shares)} | {interval(signs, group)} |"
        )


def interval(values: np.ndarray, group: np.ndarray) -> str:
    """The mean in per cent and its 95 % interval, groups drawn with replacement."""
    sums, sizes = np.bincount(group, values.astype(float)), np.bincount(group)
    random = np.random.default_rng(SEED)
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        drawn = random.integers(len(sizes), size=len(sizes))
        means[draw] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = 100 * np.percentile(means, [2.5, 97.5])
    return f"{100 * values.mean():.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    """Rate both sides and print."""
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
