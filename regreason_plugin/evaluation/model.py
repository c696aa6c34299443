"""``regreason-hf``: lm-eval's ``hf`` under this project's name.

It takes the same arguments and gives the same numbers; it is where a faster scorer and
the probes go.
"""

from __future__ import annotations

from lm_eval.models.huggingface import HFLM

NAME = "regreason-hf"


class RegReasonHF(HFLM):  # type: ignore[misc]
    """A drop-in for ``hf``."""


def register() -> None:
    """Make ``--model regreason-hf`` known to lm-eval in this process.

    The released lm-eval reads no entry points. Its own models must be registered
    first: it does so only once, on import.
    """
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=f"{__name__}:{RegReasonHF.__name__}")
