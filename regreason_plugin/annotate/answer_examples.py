"""Examples of the answers in the store, for a person to look at before the other calls are paid."""

from __future__ import annotations

from dataclasses import dataclass

from regreason_plugin.annotate.calls import CallKey, Outcome, conversation_key
from regreason_plugin.annotate.config import AnnotateConfig
from regreason_plugin.annotate.questions import read_conversations, sampling
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.records import Conversation


@dataclass(frozen=True)
class AnswerExample:
    """An answer, and the conversation that it is about.

    Attributes:
        key: The call's key, with axis and prompt.
        outcome: The answer as read.
        conversation: The conversation.
    """

    key: CallKey
    outcome: Outcome
    conversation: Conversation


@dataclass(frozen=True)
class StateExamples:
    """Examples of a rater's answers with one state.

    Attributes:
        rater: The rater's name.
        state: The state.
        number: The number of all its answers with this state.
        examples: Some of them.
    """

    rater: str
    state: str
    number: int
    examples: list[AnswerExample]


def answer_examples(config: AnnotateConfig, store: Store, number: int) -> list[StateExamples]:
    """Draw answers of each rater and state; the same store gives the same ones.

    Args:
        config: The conversations and the raters.
        store: The store of answers.
        number: The largest number of answers of a rater with one state.

    Returns:
        The examples by rater, in the config's order, and by state, the commonest first. Answers
        about conversations that the config does not name any more are left out.

    Raises:
        UserError: A conversation is wrong.
    """
    drawn = {
        rater.name: store.draw(rater.name, rater.model, sampling(rater), number)
        for rater in config.servers
    }
    keys = {key for states in drawn.values() for _, of_state in states.values() for key in of_state}
    wanted = {key.conversation for key in keys}
    conversations = {
        key: one
        for one in read_conversations(config.conversations)
        if (key := conversation_key(one)) in wanted
    }
    return [
        StateExamples(
            rater,
            state,
            count,
            [
                AnswerExample(key, outcome, conversations[key.conversation])
                for key in of_state
                if key.conversation in conversations and (outcome := store.outcome(key))
            ],
        )
        for rater, states in drawn.items()
        for state, (count, of_state) in states.items()
    ]
