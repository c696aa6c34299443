"""Makes a model compute logits at chosen positions only, with its own output head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regreason_plugin.probes.anatomy import output_head


@contextmanager
def head_at(
    model: nn.Module, shape: torch.Size, rows: Tensor, columns: Tensor
) -> Iterator[list[torch.dtype]]:
    """Pass only the wanted positions ``[1, n, D]`` to the head if its input is ``[B, T, D]``.

    The ``with`` block has to run the model once. Its logits are then ``[1, n, V]``.

    Args:
        model: A causal language model of transformers, which peft may have wrapped.
        shape: B and T of the model's input.
        rows: ``[n]``; rows of the wanted positions.
        columns: ``[n]``; columns of the wanted positions.

    Yields:
        A list that is empty until the head's input was narrowed, and then holds the input's dtype.
    """
    narrowed: list[torch.dtype] = []

    def narrow(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = args
        # A head that is also the embedding layer is first called with token ids.
        if narrowed or not hidden.is_floating_point() or hidden.shape[:-1] != shape:
            return args
        narrowed.append(hidden.dtype)
        kept = hidden[rows.to(hidden.device), columns.to(hidden.device)]
        return (kept[None], *others)

    head = output_head(model)
    handle = head.register_forward_pre_hook(narrow) if head is not None else None
    try:
        yield narrowed
    finally:
        if handle is not None:
            handle.remove()
