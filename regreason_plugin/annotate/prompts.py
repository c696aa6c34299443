"""The prompts for language models: text files with placeholders such as ``{conversation}``.

A prompt style is a folder with one file per axis, such as ``scale-1-5/naturalness.txt``; the
folder's name gives the scale. `regreason fetch prompts` copies the package's prompts so that a
user can change them and name their folder in the config. Placeholders are replaced as plain text,
without ``str.format``, so braces in a conversation have no effect.

The conversation is written as a block between marks. Text inside the block that looks like one of
the marks or like a special token is changed, so that no message can close the block and pose as
part of the rubric: ``<s>`` becomes ``< s>``, and the opening bracket of a mark, with or without
spaces, becomes a different character.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from regreason_plugin.annotate.raters import RatingPrompt
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import AXES, QUESTIONS
from regreason_plugin.core.prompt import neutralise
from regreason_plugin.core.records import Conversation
from regreason_plugin.core.whole_files import atomic_writer, together

STYLES = ("scale-1-4", "scale-1-4-examples", "scale-1-5", "scale-1-5-examples")
MERGE = "merge"
EXPLAIN = "explain"
CONFIGS = ("explain.yml", "annotate.yml")
CONVERSATION = "{conversation}"
EXPLANATIONS = "{explanations}"
TEXT = "{text}"
LABEL = "{label}"

_STYLE = re.compile(r"scale-1-([1-9]\d?)(?:-[a-z0-9-]+)?")
# The bracket of any mark: `</conversation>`, `< / Message from="x"`, `<explanations`.
_MARK = re.compile(r"<(?=\s*/?\s*(?:conversation|context|message|explanations?)\b)", re.IGNORECASE)
# The bracket of any mark, including the marks of the prompt that asks why a text has its label.
_EXPLAIN_MARK = re.compile(
    r"<(?=\s*/?\s*(?:conversation|context|message|explanations?|task|text|label)\b)",
    re.IGNORECASE,
)
# Part of every prompt's hash: if the format of a block changes, all calls are made again.
_BLOCK_VERSION = "1"


@dataclass(frozen=True)
class AskingPrompt(RatingPrompt):
    """A prompt for one axis.

    Attributes:
        text: The prompt's text, with the placeholder ``{conversation}``.
        sha256: Hash of the text and of the block format, as 16 hexadecimal digits.
    """

    text: str = ""

    @property
    def sha256(self) -> str:
        """Hash of everything in the prompt except the conversation."""
        return text_sha256(self.text)

    def render(self, conversation: Conversation) -> str:
        """The whole prompt about one conversation."""
        before, _, after = self.text.partition(CONVERSATION)
        return f"{before}{conversation_block(conversation)}{after}"


def scale_of(style: str) -> int | None:
    """The highest score of a style's scale, from its name; None if the name gives no scale."""
    match = _STYLE.fullmatch(style)
    return int(match[1]) if match and int(match[1]) > 1 else None


def load_prompts(styles: Sequence[str], folder: Path | None) -> dict[tuple[str, str], AskingPrompt]:
    """Read the prompts of some styles, for every axis.

    Args:
        styles: Names of styles, such as ``scale-1-5-examples``.
        folder: The folder of the prompts; None for the package's prompts.

    Returns:
        The prompts by style and axis.

    Raises:
        UserError: A style's name gives no scale, a file is missing or not UTF-8, or a file does
            not have ``{conversation}`` exactly once.
    """
    prompts = {}
    for style in styles:
        scale = scale_of(style)
        if scale is None:
            raise UserError(
                f"the name of prompt {style!r} gives no scale; name it like scale-1-5 or "
                "scale-1-7-short. The package's prompts are " + ", ".join(STYLES)
            )
        for axis in AXES:
            text = _read(f"{style}/{axis}.txt", (CONVERSATION,), folder)
            prompts[style, axis] = AskingPrompt(style, scale, text)
    return prompts


def load_merge_prompt(folder: Path | None) -> str:
    """Read the template of the prompt that asks for one explanation made from many.

    Raises:
        UserError: The file is missing or not UTF-8, or lacks a placeholder or has it twice.
    """
    return _read(f"{MERGE}.txt", (CONVERSATION, EXPLANATIONS), folder)


def render_merge(
    text: str, conversation: Conversation, axis: str, explanations: Sequence[str], words: int
) -> str:
    """The whole prompt that asks to merge the explanations of one conversation.

    Args:
        text: The template, from `load_merge_prompt`.
        conversation: The conversation.
        axis: The axis of the explanations.
        explanations: The explanations to merge.
        words: Maximum number of words of the merged explanation.
    """
    block = "\n".join(f"<explanation>\n{_material(one)}\n</explanation>" for one in explanations)
    return _fill(
        text,
        {
            CONVERSATION: conversation_block(conversation),
            EXPLANATIONS: f"<explanations>\n{block}\n</explanations>",
            "{question}": QUESTIONS[axis],
            "{words}": str(words),
        },
    )


def load_explain_prompt(folder: Path | None) -> str:
    """Read the template of the prompt that asks why a text has its label.

    Raises:
        UserError: The file is missing or not UTF-8, or lacks a placeholder or has it twice.
    """
    return _read(f"{EXPLAIN}.txt", (TEXT, LABEL), folder)


def render_explain(template: str, task: str, text: str, label: str, words: int) -> str:
    """The whole prompt that asks why a text has its label.

    Args:
        template: The template, from `load_explain_prompt`.
        task: The task's prompt, with the placeholder ``{text}``.
        text: The text.
        label: The label, in words.
        words: Maximum number of words of the explanation.
    """
    return _fill(
        template,
        {
            "{task}": _block("task", task.replace(TEXT, "(the text)")),
            TEXT: _block("text", text),
            LABEL: _block("label", label),
            "{words}": str(words),
        },
    )


def _fill(template: str, values: dict[str, str]) -> str:
    """Replace all placeholders in one pass, so that a placeholder inside a value stays as text."""
    placeholders = "|".join(map(re.escape, values))
    return re.sub(placeholders, lambda match: values[match[0]], template)


def explain_sha256(template: str, task: str, label: str, words: int) -> str:
    """Hash of everything except the text that determines an explanation; 16 hexadecimal digits."""
    return text_sha256(template, task, label, str(words))


def _block(name: str, text: str) -> str:
    return f"<{name}>\n{_material(text, _EXPLAIN_MARK)}\n</{name}>"


def conversation_block(conversation: Conversation) -> str:
    """A conversation as a block between marks; no text inside the block looks like a mark."""
    lines = ["<conversation>"]
    if conversation.context and conversation.context.strip():
        lines += ["<context>", _material(conversation.context), "</context>"]
    for turn in conversation.conversation:
        lines += [f'<message from="{turn.role}">', _material(turn.content), "</message>"]
    return "\n".join([*lines, "</conversation>"])


def copy_prompts(destination: Path) -> list[Path]:
    """Copy the package's prompts and its config templates, for a user to change.

    Returns:
        The paths of all files written; the `CONFIGS` come last.

    Raises:
        UserError: One of the files exists already. Nothing is written then.
    """
    ours = files("regreason_plugin.annotate")
    declared = [f"{style}/{axis}.txt" for style in STYLES for axis in AXES]
    # A declared axis may have no prompt yet.
    names = [name for name in declared if ours.joinpath("prompts").joinpath(name).is_file()]
    names += [f"{MERGE}.txt", f"{EXPLAIN}.txt"]
    for name in [*names, *CONFIGS]:
        if (destination / name).exists():
            raise UserError(
                "exists already; choose another folder with --out", path=destination / name
            )
    texts = {name: ours.joinpath("prompts").joinpath(name).read_bytes() for name in names}
    texts.update({name: ours.joinpath(name).read_bytes() for name in CONFIGS})
    with together():
        for name, text in texts.items():
            with atomic_writer(destination / name) as stream:
                stream.write(text)
    return [destination / name for name in texts]


def _material(text: str, mark: re.Pattern[str] = _MARK) -> str:
    return mark.sub("\u2039", neutralise(text.replace("\r\n", "\n").strip())[0])


def _read(name: str, placeholders: Sequence[str], folder: Path | None) -> str:
    with as_file(files("regreason_plugin.annotate").joinpath("prompts")) as ours:
        path = (folder or ours) / name
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                "no such prompt; `regreason fetch prompts` copies the package's prompts", path=path
            ) from None
        except UnicodeDecodeError:
            raise UserError("is not UTF-8; save the file as UTF-8", path=path) from None
    for placeholder in placeholders:
        if text.count(placeholder) != 1:
            raise UserError(
                f"needs {placeholder} exactly once, but has it {text.count(placeholder)} times",
                path=path,
            )
    return text


def text_sha256(*parts: str) -> str:
    """Hash of a prompt's parts and of the block format; 16 hexadecimal digits."""
    return hashlib.sha256("\0".join((_BLOCK_VERSION, *parts)).encode()).hexdigest()[:16]


def merge_sha256(text: str, explanations: Sequence[str], words: int) -> str:
    """Hash of everything except the conversation that determines a merged explanation."""
    return text_sha256(text, str(words), *explanations)
