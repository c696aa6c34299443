r"""Prompts and targets: this module makes every text that a model reads or learns to write.

Training and evaluation both use it, so their prompts are the same. A prompt with its target:

    Context:
    <story or product, if there is one>

    User: <first turn>
    Assistant: <the response that is rated>

    <the axis's question>
    Assessment: <target>

The conversation comes first, so the prompts of a conversation's axes share the longest possible
prefix. The cue ``Assessment:`` fits both orders of label and explanation:

    label_first          3\n<explanation>
    explanation_first    <explanation>\nRating: 3

A prompt neither starts nor ends with white space, because chat templates strip it. An explanation
is a single line. No part of a conversation can be read as a special token or a turn marker
(`neutralise`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from regreason_plugin.core.declaration import TEXT, Declaration
from regreason_plugin.core.records import Conversation, Turn

Order = Literal["label_first", "explanation_first"]
ORDERS: tuple[Order, ...] = ("label_first", "explanation_first")

CUE = "Assessment:"
# Separates prompt and target of a model without a chat template; it is lm-eval's default.
# Without the space, sentencepiece tokenizers would merge the label with the colon.
TARGET_DELIMITER = " "
# Follows an explanation that comes first; TARGET_DELIMITER and the label follow it.
LABEL_CUE = "\nRating:"
CUT_MARK = " [...]"

_ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}

# Any word between angle brackets: `<s>`, `</s>`, `<|im_end|>`, `<start_of_turn>`, `<<SYS>>`,
# `<unk>`, `<h1>`. A list would not do, because some tokenizers (Gemma's) even have HTML tags among
# their added tokens.
_ANGLE = re.compile(r"<(?=[^\s<>]{1,64}>)")
# `[INST]`, `[/INST]`, `[TOOL_CALLS]`, `[CLS]`, `[gMASK]`; not `[sic]`, not `[1]`.
_SQUARE = re.compile(r"\[(?=/?[A-Za-z_]*[A-Z]{2}[A-Za-z_]*\])")
# Markers of this prompt at the start of a line; in an explanation anywhere, because some arms
# change the order of its words.
_WORDS = r"(?:System|User|Assistant|Context|Assessment|Rating)"
_MARKER = re.compile(rf"^([ \t]*{_WORDS})(?=:)", re.MULTILINE)
_MARKER_ANYWHERE = re.compile(rf"({_WORDS})(?=:)")
# NUL ends a string in some tokenizers; lone surrogates have no UTF-8.
_UNPRINTABLE = re.compile("[\x00\ud800-\udfff]")


def neutralise(text: str) -> tuple[str, int]:
    """Change a text so that nothing in it can be read as a special token or a turn marker.

    A space after the opening bracket, or before a marker's colon, is enough: no tokenizer
    recognises the token any more, and people can still read the text. NUL and lone surrogates
    become U+FFFD. A second call changes nothing more.

    Returns:
        The changed text, and the number of places that were changed.
    """
    text, angles = _ANGLE.subn("< ", text)
    text, squares = _SQUARE.subn("[ ", text)
    text, markers = _MARKER.subn(r"\1 ", text)
    text, unprintable = _UNPRINTABLE.subn("\ufffd", text)
    return text, angles + squares + markers + unprintable


def _clean(text: str) -> str:
    return neutralise(text.replace("\r\n", "\n").strip())[0]


def render_conversation(conversation: Conversation) -> str:
    """The context and the turns: the part of the prompt that is the same for every axis."""
    turns = "\n".join(
        f"{_ROLES[turn.role]}: {_clean(turn.content)}" for turn in conversation.conversation
    )
    context = _clean(conversation.context or "")
    return f"Context:\n{context}\n\n{turns}" if context else turns


def render_prompt(conversation: Conversation, axis: str, declaration: Declaration) -> str:
    """The prompt: the conversation, the axis's question and the cue, or the task's own template.

    In a template, the last message replaces ``{text}``. All other braces, in the template and in
    the message, stay as they are.
    """
    if declaration.prompt is not None:
        before, _, after = declaration.prompt.partition(TEXT)
        return f"{before}{_clean(conversation.conversation[-1].content)}{after}"
    question = declaration.axes[axis].question
    return f"{render_conversation(conversation)}\n\n{question}\n{CUE}"


def one_line(explanation: str) -> str:
    """An explanation in the form that targets need: on one line and neutralised."""
    text, _ = neutralise(" ".join(explanation.split()))
    return " ".join(_MARKER_ANYWHERE.sub(r"\1 ", text).split())


def render_target(label: str, explanation: str, order: Order) -> str:
    """The target: the text that the model learns to write after the prompt and the delimiter.

    Args:
        label: The label's text.
        explanation: The explanation as `one_line` returns it; empty for a target without one.
        order: Whether the label or the explanation comes first.
    """
    if order == "label_first":
        return f"{label}\n{explanation}" if explanation else label
    # The cue stays even without an explanation, because the model has to learn to write the label
    # after it. It loses its line break, because templates strip white space at the start.
    cue = LABEL_CUE if explanation else LABEL_CUE.lstrip()
    return f"{explanation}{cue}{TARGET_DELIMITER}{label}"


def split_target(target: str, order: Order, labels: Sequence[str]) -> tuple[str, str, str]:
    """Split a target into the text before the label, the label, and the text after it.

    Training uses it to find the label's tokens.

    Raises:
        ValueError: The text is not a target of this order.
    """
    if order == "label_first":
        label, newline, rest = target.partition("\n")
        before, after = "", newline + rest
    else:
        before, cue, label = target.rpartition(LABEL_CUE.lstrip() + TARGET_DELIMITER)
        before, after = before + cue, ""
    if label not in labels:
        raise ValueError(f"no label where order {order} has it: {target[:60]!r}")
    return before, label, after


def cut(
    conversation: Conversation,
    limit: int,
    length: Callable[[str], int],
    declaration: Declaration,
) -> tuple[Conversation, str | None]:
    """Shorten a conversation until its prompt fits, to the same length for every axis.

    First the oldest turns are removed, then the context is cut from its end, then the rated
    message is cut from its end. The beginning of the rated message and the question always stay.

    Args:
        conversation: The conversation to shorten.
        limit: Longest allowed prompt, in the unit of ``length``.
        length: Returns the length of a text in tokens or in words.
        declaration: The task, which determines the prompt.

    Returns:
        The conversation that fits, and the part that was cut last: ``turns``, ``context`` or
        ``response``; None if nothing was cut.

    Raises:
        ValueError: Not even the question with the first word of the response fits.
    """
    axes = declaration.axes
    longest_question = max(axes, key=lambda axis: length(axes[axis].question))

    def fits(candidate: Conversation) -> bool:
        return length(render_prompt(candidate, longest_question, declaration)) <= limit

    if fits(conversation):
        return conversation, None
    turns = list(conversation.conversation)
    while len(turns) > 1:
        turns = turns[1:]
        shorter = conversation.model_copy(update={"conversation": turns})
        if fits(shorter):
            return shorter, "turns"
    shorter = conversation.model_copy(update={"conversation": turns})

    if conversation.context:
        without = shorter.model_copy(update={"context": None})
        if fits(without):
            context = _longest_head(
                conversation.context,
                lambda text: fits(shorter.model_copy(update={"context": text})),
            )
            return shorter.model_copy(update={"context": context or None}), "context"
        shorter = without

    def with_response(text: str) -> Conversation:
        return shorter.model_copy(update={"conversation": [Turn(role="assistant", content=text)]})

    head = _longest_head(turns[-1].content, lambda text: fits(with_response(text)))
    if head is None:
        raise ValueError(f"a limit of {limit} leaves no room for the question and the response")
    return with_response(head), "response"


def _longest_head(text: str, fits: Callable[[str], bool]) -> str | None:
    """The longest beginning of a text that fits with `CUT_MARK` after it, cut between words.

    Returns:
        The beginning with `CUT_MARK`; None if not even one character fits.
    """
    low, high = 0, len(text)
    while low < high:  # bisection for the largest number of characters that fits
        middle = (low + high + 1) // 2
        if fits(text[:middle].rstrip() + CUT_MARK):
            low = middle
        else:
            high = middle - 1
    head = text[:low]
    if low < len(text) and not text[low].isspace():
        # Do not end inside a word, unless there is not even room for the first word.
        whole_words = head.rsplit(maxsplit=1)
        head = whole_words[0] if len(whole_words) == 2 else head
    head = head.strip()
    return head + CUT_MARK if head else None
