"""Rows that branch as one batch: the mask, the positions, the attention, and too little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regreason_plugin.evaluate.prefix_tree import PrefixRow
from regreason_plugin.probes.anatomy import text_config


def batch_inputs(
    rows: Sequence[PrefixRow], model: nn.Module, device: torch.device, padded_to: int = 0
) -> tuple[dict[str, Any], AbstractContextManager[Any]]:
    """The model's keyword arguments for some rows, padded on the right.

    Rows that do not branch are plain causal text: no mask, as ``hf`` has it.

    Args:
        rows: One or more.
        model: What reads them.
        device: Where it wants them.
        padded_to: Pad to this length at least.

    Returns:
        The arguments, and what the model has to run in.
    """
    length = max(padded_to, *(len(row.tokens) for row in rows))
    input_ids = _padded([row.tokens for row in rows], length, device)
    if not any(row.branches for row in rows):
        return {"input_ids": input_ids}, nullcontext()

    positions = _padded([row.positions for row in rows], length, device)
    columns = torch.arange(length, device=device)
    # A padding token is its own subtree: nothing else sees it, and it sees something.
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
    return inputs, _CausalTrunk(full, min(row.trunk for row in rows))


def _padded(lists: Sequence[list[int]], length: int, device: torch.device) -> Tensor:
    return torch.tensor([one + [0] * (length - len(one)) for one in lists], device=device)


def _additive(seen: Tensor, model: nn.Module) -> Tensor:
    """``[B, 1, T, T]``: 0 where a query sees a key, the lowest number where it does not."""
    dtype: torch.dtype = model.dtype  # type: ignore[assignment]
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


class _CausalTrunk(TorchFunctionMode):
    """Within it, the part of the attention that is plainly causal needs no mask.

    The first tokens of all rows of a batch belong to no branch yet. With a mask, torch
    computes their whole square and throws half of it away; told that they are causal, it
    does not. The numbers are the same, long texts are faster, and nothing outside of this
    context is touched.

    Args:
        mask: The one that may be split; any other is left as it is.
        trunk: How many tokens come before the first branch of any row.
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
        """Split scaled dot-product attention with our mask; pass everything else on."""
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
    """There was too little memory for a batch."""

    def __init__(self, batch: Sequence[PrefixRow]) -> None:
        super().__init__(f"{len(batch)} rows of at most {len(batch[0].tokens)} tokens")
        self.batch = batch


@contextmanager
def noticing_memory(batch: Sequence[PrefixRow]) -> Iterator[None]:
    """Say which batch was too large.

    Raises:
        OutOfMemoryError: Whatever the library calls it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or _out_of_memory(error):
            raise OutOfMemoryError(batch) from error
        raise


def _out_of_memory(error: Exception) -> bool:
    """Whether a device, or this machine, had no memory left.

    accelerate knows most of the texts that libraries have for it.
    """
    return (
        isinstance(error, MemoryError)
        or should_reduce_batch_size(error)
        or any(text in str(error) for text in ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    )
