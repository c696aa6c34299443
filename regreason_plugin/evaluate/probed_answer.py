"""A loglikelihood answer that carries the document's entropy probes."""

from __future__ import annotations

from typing import Any


class Scored(tuple[float, bool]):
    """A pair (log-likelihood, is greedy) with the probes of its document as an attribute.

    To lm-eval and in JSON it is the plain pair that every model returns. The probes stay
    with it through pickling (``--use_cache``, gathering from other processes) and copying.

    Attributes:
        probe: Values by probe name, as `probe_metrics` reads them; None where the document
            has no probe.
    """

    probe: dict[str, Any] | None

    def __new__(cls, score: float, is_greedy: bool, probe: dict[str, Any] | None) -> Scored:
        """The pair; the class says what the probe is."""
        scored = super().__new__(cls, (score, is_greedy))
        scored.probe = probe
        return scored

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self, self.probe)
