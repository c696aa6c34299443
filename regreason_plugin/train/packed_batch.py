"""Packs the rows of a training batch that share a prefix, so that it is computed only once.

The batch comes as Axolotl makes it: padded rows, or several samples in one row with sample
packing. `packing.prefix_tree` describes a packed row. The loss needs no change: every target token
of every sample keeps its own position, at which the model computes logits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from regreason_plugin.packing.prefix_tree import LONGEST_ROW, Tokens, joined, packed_rows
from regreason_plugin.packing.row_batch import batch_inputs
from regreason_plugin.probes.anatomy import text_config
from regreason_plugin.train.row_tokens import IGNORE

Batch = dict[str, Any]


@dataclass(frozen=True)
class PackedBatch:
    """A batch whose samples were packed.

    Attributes:
        inputs: The model's keyword arguments, without labels.
        within: The context manager in which the model must run.
        rows: ``[B, T]``; for each position of the batch as it was, its row in ``inputs``.
        columns: ``[B, T]``; its column in ``inputs``.
        tokens: Number of tokens that the model reads, without padding.
    """

    inputs: Batch
    within: AbstractContextManager[Any]
    rows: Tensor
    columns: Tensor
    tokens: int


def pack(inputs: Batch, model: nn.Module) -> PackedBatch | None:
    """Pack a batch; None if its samples share too little.

    Args:
        inputs: ``input_ids`` and ``labels``, ``[B, T]``, with ``attention_mask`` or
            ``position_ids``, from which `samples` finds the samples.
        model: The model that reads the batch.
    """
    ids = inputs["input_ids"]
    tokens = ids.tolist()
    found = {(row, start): tuple(tokens[row][start:stop]) for row, start, stop in samples(inputs)}
    linear = 6 * text_config(model).hidden_size
    if len({row for row, _ in found}) == len(found):
        trees = packed_rows(found.values(), linear, LONGEST_ROW)
    else:  # several samples in a row: the row stays one row, of several trees
        by_row: dict[int, list[Tokens]] = defaultdict(list)
        for (row, _), sample in found.items():
            by_row[row].append(sample)
        trees = [joined(packed_rows(ours, linear, LONGEST_ROW)) for ours in by_row.values()]
    read = sum(len(tree.tokens) for tree in trees)
    if read == sum(map(len, found.values())):
        return None
    # A sample that occurs in several trees is read in the last of them.
    places = {
        sample: (number, path)
        for number, tree in enumerate(trees)
        for sample, path in tree.paths.items()
    }
    rows, columns = torch.zeros_like(ids, device="cpu"), torch.zeros_like(ids, device="cpu")
    for (row, start), sample in found.items():
        number, path = places[sample]
        rows[row, start : start + len(sample)] = number
        columns[row, start : start + len(sample)] = torch.tensor(path)
    arguments, within = batch_inputs(trees, model, ids.device)
    return PackedBatch(arguments, within, rows.to(ids.device), columns.to(ids.device), read)


def samples(inputs: Batch) -> Iterator[tuple[int, int, int]]:
    """The samples of a batch: their row, first column, and the column after their last.

    A sample begins where the position is 0, or where padding ends. Padding has no targets.
    """
    labels = inputs["labels"]
    begins = torch.zeros_like(labels, dtype=torch.bool)
    begins[:, 0] = True
    mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if mask is not None:
        begins[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    if positions is not None:
        begins |= positions == 0
    target = (labels != IGNORE).tolist()
    for row, starts in enumerate(begins.tolist()):
        bounds = [column for column, begin in enumerate(starts) if begin] + [len(starts)]
        for start, stop in pairwise(bounds):
            if any(target[row][start:stop]):
                yield row, start, stop
