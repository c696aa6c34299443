"""An answer that was complete under a limit of tokens counts under a higher limit, too."""

from __future__ import annotations

import json
import math
from typing import Any

_LIMITS = ("max_tokens", "max_completion_tokens")


def holds_under(old: str, new: str) -> bool:
    """Return whether usable answers with a sampling count for another sampling.

    They do if the samplings differ in the limit of tokens only, and the new limit is higher. The
    model wrote such an answer to its end, so a higher limit would not have changed it. (At a
    temperature above 0, drawing only the truncated answers anew favours short ones a little.)

    Args:
        old: The sampling of the answers, as in `questions.sampling`.
        new: The other sampling.
    """
    old_limit, old_rest = _split(old)
    new_limit, new_rest = _split(new)
    return old != new and old_rest == new_rest and old_limit <= new_limit


def _split(sampling: str) -> tuple[float, dict[str, Any]]:
    options = json.loads(sampling)
    limits = [limit for name in _LIMITS if (limit := options.pop(name, None)) is not None]
    return min(limits, default=math.inf), options
