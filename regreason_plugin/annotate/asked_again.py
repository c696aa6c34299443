"""Which failed calls of earlier runs are made again."""

from __future__ import annotations

from dataclasses import dataclass

from regreason_plugin.annotate.calls import OK
from regreason_plugin.annotate.quality_alarm import ADVICE
from regreason_plugin.annotate.server_rater import ServerRater

# No conversation can cause these: the server is not reached, or the key or the account is refused.
OF_NO_CONVERSATION = frozenset(
    {"unreachable", "unknown_host", "tls_error", "unauthorized", "quota_used_up"}
)
# The server refused the request. Wrong are the address, the model's name, the key's rights or the
# request's options; or, if other requests are answered, this one conversation.
REFUSED_REQUEST = frozenset(
    {
        "bad_request",
        "refused_request",
        "forbidden",
        "not_found",
        "wrong_content_type",
        "redirected",
        "bad_http",
    }
)
SET_UP = OF_NO_CONVERSATION | REFUSED_REQUEST
# The server may answer the same request another time.
_PASSING = frozenset(
    {
        "rate_limited",
        "server_error",
        "unavailable",
        "request_timeout",
        "conflict",
        "connection_lost",
        "stalled",
        "broken_body",
        "no_completion",
    }
)
FAILED_STATES = SET_UP | _PASSING | {"request_too_large"} | ADVICE.keys()


@dataclass(frozen=True)
class AskedAgain:
    """Which failed calls of earlier runs a run makes again.

    Calls that failed because of the set-up are always made again. This covers every mend: of the
    config, of the key, and of the server itself, which a record of the config would not show. It
    costs nothing, as the server answered none of these calls, and within one run no failed call is
    made again.

    Attributes:
        failed: Make failed calls again. With a temperature of 0 this leaves out the answers that
            arrived and could not be used: the same request gives the same answer.
        states: Make calls with these states again, with any temperature.
    """

    failed: bool = False
    states: frozenset[str] = frozenset()

    def includes(self, state: str, rater: ServerRater, *, answered: bool) -> bool:
        """Return whether a call is made again.

        Args:
            state: The call's state.
            rater: The call's rater.
            answered: Whether the store has a usable answer of this rater. Its set-up is right
                then, so the cause of a refused request is the conversation.
        """
        if state == OK:
            return False
        if state in self.states or state in OF_NO_CONVERSATION:
            return True
        if state in REFUSED_REQUEST and not answered:
            return True
        return self.failed and not is_in_vain(state, rater)


ONLY_SET_UP = AskedAgain()


def is_in_vain(state: str, rater: ServerRater) -> bool:
    """Return whether the same request would give the same unusable answer."""
    return rater.temperature == 0 and state in ADVICE
