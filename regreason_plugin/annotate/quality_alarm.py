"""The quality alarm: it rings if too many of a rater's last answers cannot be used.

Such answers are paid like any other. A rater whose `max_tokens` is too small, or whose server sends
no JSON, would otherwise cost a whole run and give no score.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from regreason_plugin.annotate.calls import OK
from regreason_plugin.annotate.config import Alarm
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.core.printable import one_line

_JSON = (
    "set structured to json_schema or to another form that the server knows, or change the prompt"
)
_SCORE = "let the prompt name the scale, or set structured to json_schema"
# What to change in the config, by the state of an answer that arrived but cannot be used.
ADVICE = {
    "truncated": "raise max_tokens",
    "broken_json": _JSON,
    "score_missing": _JSON,
    "score_not_a_number": _SCORE,
    "score_out_of_range": _SCORE,
    "explanation_empty": "let the prompt ask for an explanation",
    "explanation_too_long": "lower max_tokens, or let the prompt ask for a short explanation",
    "answer_too_long": "lower max_tokens",
    "no_answer": "raise max_tokens, or turn thinking off with a request field",
    "only_thinking": "turn thinking off with a request field, or raise max_tokens",
    "refused": "change the prompt, or use another model",
}
_EXAMPLES, _EXAMPLE = 2, 150  # answers that the message quotes, and characters of each


class _Window(NamedTuple):
    states: deque[str]
    examples: deque[tuple[str, str]]


class QualityAlarm:
    """Counts one rater's last answers, over all prompts and for each prompt.

    Calls without a reply do not count, because they cost nothing.

    Args:
        rater: The rater.
        settings: How many answers to count, and how many of them may be unusable.
    """

    def __init__(self, rater: ServerRater, settings: Alarm) -> None:
        self._rater = rater
        self._settings = settings
        self._windows: dict[str | None, _Window] = {}
        self._rung: set[str | None] = set()

    @property
    def stops(self) -> bool:
        """Whether the alarm ends the run; otherwise it warns."""
        return self._settings.action == "stop"

    def ring(self, prompt: str, state: str, answer: str | None) -> str | None:
        """Count an answer.

        Args:
            prompt: The name of the prompt.
            state: The call's state: ``ok``, or why the answer cannot be used.
            answer: The answer's text, if it cannot be used.

        Returns:
            The message of the alarm if the answer makes it ring; None otherwise. For each prompt it
            rings once.
        """
        messages = [self._count(scope, state, answer) for scope in (prompt, None)]
        return next(filter(None, messages), None)

    def _count(self, prompt: str | None, state: str, answer: str | None) -> str | None:
        last = self._settings.last
        window = self._windows.setdefault(
            prompt, _Window(deque(maxlen=last), deque(maxlen=_EXAMPLES))
        )
        window.states.append(state)
        if state == OK:
            return None
        window.examples.append((state, one_line(answer or "", _EXAMPLE)))
        unusable = Counter(one for one in window.states if one != OK)
        # Once so many are unusable, the answers that the window still lacks cannot change it.
        if prompt in self._rung or unusable.total() < self._settings.share * last:
            return None
        self._rung.add(prompt)
        where = f"with the prompt {prompt}" if prompt else "with all its prompts together"
        examples = " and ".join(f"{text!r} ({state})" for state, text in window.examples)
        return (
            f"of the last {len(window.states)} answers of rater {self._rater.name!r} {where}, "
            f"{unusable.total()} cannot be used: {by_state(unusable)}; for example {examples}; "
            f"{advice(unusable)}"
        )


def by_state(states: Counter[str]) -> str:
    """Numbers of calls by state, the commonest first: ``12 truncated, 3 refused``."""
    ordered = sorted(states.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {state}" for state, number in ordered)


def advice(states: Counter[str]) -> str:
    """What to change in the config for the two commonest states."""
    said = [f"{state}: {ADVICE[state]}" for state, _ in states.most_common(2) if state in ADVICE]
    return "; ".join(said) or "change the prompt, or use another model"
