"""Too little memory for a batch, whatever a library calls it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from accelerate.utils.memory import should_reduce_batch_size

from regreason_plugin.evaluate.prefix_tree import Row


class OutOfMemoryError(Exception):
    """There was too little memory for a batch."""

    def __init__(self, batch: Sequence[Row]) -> None:
        super().__init__(f"{len(batch)} rows of at most {len(batch[0].tokens)} tokens")
        self.batch = batch


@contextmanager
def noticing_memory(batch: Sequence[Row]) -> Iterator[None]:
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
