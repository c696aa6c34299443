"""A model's thinking, which its server left in the answer's text.

Models mark their thinking with tags (``<think>...</think>``) or as a channel of its own
(gpt-oss). Chat templates may already write the opening tag, so that an answer has only the closing
one; and a server that drops special tokens leaves of gpt-oss's marks only the words.
"""

from __future__ import annotations

import re

# A tag in quotes is one that the answer speaks of.
_TAG = re.compile(
    r"(?<![`\"'])(?:<(/)?(?:seed:)?(?:think|thinking|thought|reasoning)>|\[(/)?THINK\])",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s{0,9}(\w{1,20})[^<]{0,99}(?:<\|constrain\|>\w{0,9})?")
_BODY = "<|message|>"
_BODY_END = re.compile(r"<\|(?:end|return|call)\|>")
# What is left of "<|channel|>analysis<|message|>We ..." without its special tokens.
_BARE_CHANNEL = re.compile(r"\A\s*analysis(?=[A-Z\"'])")
_BARE_FINAL = "assistantfinal"


def strip_thinking(text: str) -> str:
    """The answer without its thinking; empty if it holds nothing else.

    A tag inside braces belongs to the answer. A closing tag without an opening one ends a thinking
    that began with the text; an opening tag without a closing one makes the rest thinking, and
    leaves no answer, because nobody can know whether the words before it were one.
    """
    return _without_tags(_final_channel(text))


def _final_channel(text: str) -> str:
    if _BARE_CHANNEL.match(text):
        return text.rpartition(_BARE_FINAL)[2] if _BARE_FINAL in text else ""
    channels = list(_CHANNEL.finditer(text))
    if not channels:
        return text
    last = channels[-1]
    if last[1] != "final" or not text.startswith(_BODY, last.end()):
        return ""
    body = text[last.end() + len(_BODY) :]
    return _BODY_END.split(body, maxsplit=1)[0]


def _without_tags(text: str) -> str:
    kept: list[str] = []
    start = braces = 0
    thinking = False
    for tag in _TAG.finditer(text):
        closing = bool(tag[1] or tag[2])
        if thinking:
            if closing:
                thinking, start, braces = False, tag.end(), 0
            continue
        # Counted from tag to tag, so that a text of many tags is read once.
        before = text[start : tag.start()]
        braces += before.count("{") - before.count("}")
        if braces <= 0 and closing:
            kept.clear()
        else:
            kept.append(before)
        start = tag.start() if braces > 0 else tag.end()
        thinking = braces <= 0 and not closing
    return "" if thinking else "".join([*kept, text[start:]])
