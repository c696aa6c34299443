"""What several training seeds say of a mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

ENOUGH_SEEDS = 3
LEVEL = 0.95


def half_width(values: Sequence[float]) -> float | None:
    """Half of Student's t interval of a mean, at `LEVEL`; None of fewer than three values.

    Args:
        values: One a seed. The test documents are the same, so it holds for these only.
    """
    if len(values) < ENOUGH_SEEDS:
        return None
    from scipy.stats import t

    quantile = float(t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
