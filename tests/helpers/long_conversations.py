"""Conversations of 200 to 500 tokens on three axes, for benchmarks of scoring and training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from transformers import AutoTokenizer

from regreason_plugin.annotate.rules import rate
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.core.paper import DATASETS
from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.mini import mini_conversations
from regreason_plugin.data_folder.build import build

TOKENIZER = Path(__file__).parents[2] / "axolotl_configs" / "cpu" / "tiny-base"
LENGTHS = (200, 500)  # tokens of a conversation


def build_data(data: Path, each: int, times: int) -> None:
    """Build a data folder of ``each`` conversations per dataset on three axes, rated by rules."""
    ratings = data.with_name("ratings.jsonl")
    # Without the scores of single raters, which only the card would need, with another package.
    rated = (one.model_copy(update={"ratings": []}) for one in rate(conversations(each, times)))
    write_records(ratings, rated)
    build(ratings, data)


def conversations(each: int, times: int) -> Iterator[Conversation]:
    """Conversations made of the mini benchmark's sentences, with evenly spread lengths."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    sentences = cycle(
        turn.content for one in mini_conversations(0, 50) for turn in one.conversation
    )
    low, high = (times * length for length in LENGTHS)
    for dataset in DATASETS:
        for number in range(each):
            wanted = low + (high - low) * number // max(each - 1, 1)
            text: list[str] = []
            tokens = 0
            while tokens < wanted:
                text.append(next(sentences))
                tokens += len(tokenizer(text[-1]).input_ids)
            question, answer = " ".join(text[: len(text) // 2]), " ".join(text[len(text) // 2 :])
            yield Conversation(
                id=f"{dataset}-{number}",
                dataset=dataset,
                group=f"{dataset}-{number}",
                conversation=[
                    Turn(role="user", content=question),
                    Turn(role="assistant", content=answer),
                ],
            )
