r"""The one place where the text a model reads is made, for training and evaluation alike.

    Context:
    <story or product, if there is one>

    User: <first turn>
    Assistant: <the response that is rated>

    <the axis's question>
    Assessment: <target>

The conversation comes first, so the axes of one conversation share their longest
possible prefix. The cue ``Assessment:`` commits to neither order of label and
explanation:

    label_first          3\n<explanation>
    explanation_first    <explanation>\nRating: 3

A prompt neither starts nor ends with white space (chat templates strip it), an
explanation is a single line, and no word of a conversation can be read as a special
token, a turn marker or a template (`neutralise`).
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
# Between prompt and target of a model without a chat template; lm-eval's own default.
# Without the space, sentencepiece tokenizers would glue the label to the colon.
TARGET_DELIMITER = " "
# Ends an explanation that comes first; the label follows after TARGET_DELIMITER.
LABEL_CUE = "\nRating:"
CUT_MARK = " [...]"

_ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}

# `<s>`, `</s>`, `<|im_end|>`, `<start_of_turn>`, `<<SYS>>`, `<unk>`, `<h1>`: anything a
# tokenizer could have added between angle brackets. Several tokenizers (Gemma) have HTML
# tags among their added tokens, so the rule knows no list.
_ANGLE = re.compile(r"<(?=[^\s<>]{1,64}>)")
# `[INST]`, `[/INST]`, `[TOOL_CALLS]`, `[CLS]`, `[gMASK]`; not `[sic]`, not `[1]`.
_SQUARE = re.compile(r"\[(?=/?[A-Za-z_]*[A-Z]{2}[A-Za-z_]*\])")
# This prompt's own markers: at the start of a line, or anywhere in an explanation, whose
# words other arms put in another order.
_WORDS = r"(?:System|User|Assistant|Context|Assessment|Rating)"
_MARKER = re.compile(rf"^([ \t]*{_WORDS})(?=:)", re.MULTILINE)
_MARKER_ANYWHERE = re.compile(rf"({_WORDS})(?=:)")
# NUL ends a string in some tokenizers; lone surrogates have no UTF-8.
_UNPRINTABLE = re.compile("[\x00\ud800-\udfff]")


def neutralise(text: str) -> tuple[str, int]:
    """Break whatever could be read as a special token or a turn marker.

    A space after the opening bracket (or before a marker's colon) is enough: no
    tokenizer matches the token any more and a reader still sees what was written.
    NUL and lone surrogates become U+FFFD. Doing it twice changes nothing more.

    Returns:
        The text, and in how many places it was changed.
    """
    text, angles = _ANGLE.subn("< ", text)
    text, squares = _SQUARE.subn("[ ", text)
    text, markers = _MARKER.subn(r"\1 ", text)
    text, unprintable = _UNPRINTABLE.subn("\ufffd", text)
    return text, angles + squares + markers + unprintable


def _clean(text: str) -> str:
    return neutralise(text.replace("\r\n", "\n").strip())[0]


def render_conversation(conversation: Conversation) -> str:
    """The part of the prompt that the axes of a conversation share."""
    turns = "\n".join(
        f"{_ROLES[turn.role]}: {_clean(turn.content)}" for turn in conversation.conversation
    )
    context = _clean(conversation.context or "")
    return f"Context:\n{context}\n\n{turns}" if context else turns


def render_prompt(conversation: Conversation, axis: str, declaration: Declaration) -> str:
    """The prompt: conversation, the axis's question, the cue; or the task's own template.

    Only ``{text}`` of a template is replaced, by the last message; braces elsewhere, and in
    what is put there, are text.
    """
    if declaration.prompt is not None:
        before, _, after = declaration.prompt.partition(TEXT)
        return f"{before}{_clean(conversation.conversation[-1].content)}{after}"
    question = declaration.axes[axis].question
    return f"{render_conversation(conversation)}\n\n{question}\n{CUE}"


def one_line(explanation: str) -> str:
    """An explanation as it may stand in a target: one line, neutralised."""
    text, _ = neutralise(" ".join(explanation.split()))
    return " ".join(_MARKER_ANYWHERE.sub(r"\1 ", text).split())


def render_target(label: str, explanation: str, order: Order) -> str:
    """What the model learns to write after the prompt, the delimiter left out.

    Args:
        label: Its text.
        explanation: One line as `one_line` gives it; empty for the label alone.
        order: Which of the two comes first.
    """
    if order == "label_first":
        return f"{label}\n{explanation}" if explanation else label
    # The label's cue is kept without an explanation too: the model has to learn where
    # the label stands. A target never starts with white space, which templates strip.
    cue = LABEL_CUE if explanation else LABEL_CUE.lstrip()
    return f"{explanation}{cue}{TARGET_DELIMITER}{label}"


def split_target(target: str, order: Order, labels: Sequence[str]) -> tuple[str, str, str]:
    """Cut a target into what precedes the label, the label, and what follows it.

    The inverse of `render_target` as far as the label is concerned; training uses it
    to know which tokens are the label's.

    Raises:
        ValueError: The text is no target of this order.
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
    """Shorten a conversation until its prompt fits, the same for every axis.

    The oldest turns go first, then the context is cut from its end, then the rated
    message from its end; its head and the question always stay.

    Args:
        conversation: What to shorten.
        limit: The longest prompt allowed, in the unit of ``length``.
        length: Measures a text in tokens or in words.
        declaration: Of the prompt.

    Returns:
        The conversation that fits, and what was cut last: ``turns``, ``context``,
        ``response``, or None when all of it fitted.

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
    """The longest head of a text that fits with `CUT_MARK` behind it, cut between words."""
    low, high = 0, len(text)
    while low < high:  # largest number of characters that fits
        middle = (low + high + 1) // 2
        if fits(text[:middle].rstrip() + CUT_MARK):
            low = middle
        else:
            high = middle - 1
    head = text[:low]
    if low < len(text) and not text[low].isspace():
        # Never end inside a word, unless a single word is all there is room for.
        whole_words = head.rsplit(maxsplit=1)
        head = whole_words[0] if len(whole_words) == 2 else head
    head = head.strip()
    return head + CUT_MARK if head else None
