"""Batches of packed rows: attention mask, position ids, faster attention, out-of-memory errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regreason_plugin.packing.prefix_tree import PrefixRow
from regreason_plugin.probes.anatomy import text_config


def batch_inputs(
    rows: Sequence[PrefixRow], model: nn.Module, device: torch.device, padded_to: int = 0
) -> tuple[dict[str, Any], AbstractContextManager[Any]]:
    """The model's keyword arguments for a batch of rows, padded on the right.

    If no row branches, the batch is plain causal text and gets no mask, as in ``hf``.

    Args:
        rows: One or more rows.
        model: The model that reads the batch.
        device: The device of the model's input.
        padded_to: The smallest length to pad to, in tokens.

    Returns:
        The arguments, and the context manager in which the model must run.
    """
    length = max(padded_to, *(len(row.tokens) for row in rows))
    input_ids = _padded([row.tokens for row in rows], length, device)
    if not any(row.branches for row in rows):
        return {"input_ids": input_ids}, nullcontext()

    positions = _padded([row.positions for row in rows], length, device)
    columns = torch.arange(length, device=device)
    # A padding token is a subtree of one token: no other token attends to it, and it attends to
    # itself, so that no row of the mask is empty.
    ends = torch.stack(
        [
            torch.cat([torch.tensor(row.ends, device=device), columns[len(row.ends) :] + 1])
            for row in rows
        ]
    )
    queries, keys = columns[:, None], columns[None, :]
    seen = (keys <= queries) & (queries < ends[:, None, :])
    full = _additive(seen, model)
    mask: Tensor | dict[str, Tensor] = full
    config = text_config(model)
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window and (not kinds or "sliding_attention" in kinds):
        near = positions[:, :, None] - positions[:, None, :] < window
        windowed = full if near.all() else _additive(seen & near, model)
        mask = {"full_attention": full, "sliding_attention": windowed} if kinds else windowed
    inputs = {"input_ids": input_ids, "attention_mask": mask, "position_ids": positions}
    trunk = min(row.trunk for row in rows)
    return inputs, _CausalTrunk(full, trunk) if trunk else nullcontext()


def _padded(lists: Sequence[list[int]], length: int, device: torch.device) -> Tensor:
    return torch.tensor([one + [0] * (length - len(one)) for one in lists], device=device)


def _additive(seen: Tensor, model: nn.Module) -> Tensor:
    """The additive mask ``[B, 1, T, T]``: 0 where a query sees a key, else the lowest number."""
    dtype: torch.dtype = model.dtype  # type: ignore[assignment]
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


class _CausalTrunk(TorchFunctionMode):
    """A context in which attention is computed without a mask where it is plainly causal.

    The first tokens of all rows in a batch come before any branch. With a mask, torch computes
    the whole square of their attention scores and discards half of it; with ``is_causal`` it
    computes only the half that counts. The results are the same, and long texts are faster.
    Outside the context nothing changes.

    Args:
        mask: The mask of the batch; attention with any other mask is not changed.
        trunk: The number of tokens before the first branch of any row.
    """

    def __init__(self, mask: Tensor, trunk: int) -> None:
        super().__init__()
        self.mask = mask
        self.trunk = trunk

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Split attention that uses our mask in two calls; leave every other call unchanged."""
        kwargs = kwargs or {}
        mask = kwargs.get("attn_mask")
        if (
            func is not F.scaled_dot_product_attention
            or mask is None
            or len(args) < 3
            or mask.data_ptr() != self.mask.data_ptr()
            or mask.shape != self.mask.shape
        ):
            return func(*args, **kwargs)
        query, key, value = args[:3]
        trunk = self.trunk
        of_trunk = func(
            query[:, :, :trunk],
            key[:, :, :trunk],
            value[:, :, :trunk],
            **{**kwargs, "attn_mask": None, "is_causal": True},
        )
        of_branches = func(
            query[:, :, trunk:], key, value, **{**kwargs, "attn_mask": mask[:, :, trunk:]}
        )
        return torch.cat([of_trunk, of_branches], dim=2)


class OutOfMemoryError(Exception):
    """A batch did not fit into memory.

    Attributes:
        batch: The rows of the batch.
    """

    def __init__(self, batch: Sequence[PrefixRow]) -> None:
        super().__init__(f"{len(batch)} rows of at most {len(batch[0].tokens)} tokens")
        self.batch = batch


@contextmanager
def naming_out_of_memory_batch(batch: Sequence[PrefixRow]) -> Iterator[None]:
    """Turn any library's out-of-memory error into one that names the batch.

    Raises:
        OutOfMemoryError: The batch did not fit into memory.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or _out_of_memory(error):
            raise OutOfMemoryError(batch) from error
        raise


def _out_of_memory(error: Exception) -> bool:
    """Whether an error means that a device, or this machine, ran out of memory.

    accelerate recognises most messages that libraries use for this.
    """
    return (
        isinstance(error, MemoryError)
        or should_reduce_batch_size(error)
        or any(text in str(error) for text in ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    )
