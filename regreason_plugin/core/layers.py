"""The definition of "middle layers", shared by probes, results and figures."""

from __future__ import annotations

from collections.abc import Sequence


def middle_blocks(blocks: int) -> range:
    """Blocks ceil(L/3) to floor(2L/3) of L blocks, counted from 1.

    The range was fixed before any measurement. It is empty for a model of one block.
    """
    return range(-(-blocks // 3), 2 * blocks // 3 + 1)


def middle_mean(by_layer: Sequence[float]) -> float | None:
    """The mean over the middle blocks; None for a model of one block, which has no middle.

    Args:
        by_layer: L + 1 values: the first is of the embeddings, the others of the L blocks.
    """
    blocks = middle_blocks(len(by_layer) - 1)
    return sum(by_layer[block] for block in blocks) / len(blocks) if blocks else None
