"""What a language model is asked: plain files with a place for the conversation.

A prompt's folder holds a file an axis, ``scale-1-5/naturalness.txt``; its name says the scale.
`regreason fetch prompts` copies them, to be changed and named in the config. A text is put in its
place, never formatted, so that no brace of a conversation means anything.

The conversation stands in a block of its own. Inside it, whatever looks like one of the block's
marks or like a special token is broken, so that no message can end the block and speak as the
rubric does: ``<s>`` becomes ``< s>``, and the bracket of a mark, however spaced, another sign.
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
# Of any kind: `</conversation>`, `< / Message from="x"`, `<explanations`.
_MARK = re.compile(r"<(?=\s*/?\s*(?:conversation|context|message|explanations?)\b)", re.IGNORECASE)
# The same, with the marks of the prompt that asks why a text has its label.
_EXPLAIN_MARK = re.compile(
    r"<(?=\s*/?\s*(?:conversation|context|message|explanations?|task|text|label)\b)",
    re.IGNORECASE,
)
# Part of every prompt's hash: a change of how a block is written asks again.
_BLOCK_VERSION = "1"


@dataclass(frozen=True)
class AskingPrompt(RatingPrompt):
    """A prompt for one axis.

    Attributes:
        text: With a place for the conversation.
        sha256: Of the text and of how conversations are put into it; 16 hexadecimal digits.
    """

    text: str = ""

    @property
    def sha256(self) -> str:
        """What is asked beside the conversation."""
        return text_sha256(self.text)

    def render(self, conversation: Conversation) -> str:
        """The whole question about one conversation."""
        before, _, after = self.text.partition(CONVERSATION)
        return f"{before}{conversation_block(conversation)}{after}"


def load_prompts(styles: Sequence[str], folder: Path | None) -> dict[tuple[str, str], AskingPrompt]:
    """Read the prompts of some styles, for every axis.

    Args:
        styles: Names such as ``scale-1-5-examples``.
        folder: Where they are; none for those of the package.

    Returns:
        By style and axis.

    Raises:
        UserError: A file is missing, or has no place for the conversation.
    """
    prompts = {}
    for style in styles:
        scale = _STYLE.fullmatch(style)
        if scale is None or int(scale[1]) < 2:
            raise UserError(
                f"prompt {style!r}: a prompt is named for its scale, as in scale-1-5 or "
                "scale-1-7-short; those of the package are " + ", ".join(STYLES)
            )
        for axis in AXES:
            text = _read(f"{style}/{axis}.txt", (CONVERSATION,), folder)
            prompts[style, axis] = AskingPrompt(style, int(scale[1]), text)
    return prompts


def load_merge_prompt(folder: Path | None) -> str:
    """The text that asks for one explanation out of many.

    Raises:
        UserError: As `load_prompts`.
    """
    return _read(f"{MERGE}.txt", (CONVERSATION, EXPLANATIONS), folder)


def render_merge(
    text: str, conversation: Conversation, axis: str, explanations: Sequence[str], words: int
) -> str:
    """The whole question about some explanations of one conversation."""
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
    """The text that asks why a text has its label.

    Raises:
        UserError: As `load_prompts`.
    """
    return _read(f"{EXPLAIN}.txt", (TEXT, LABEL), folder)


def render_explain(template: str, task: str, text: str, label: str, words: int) -> str:
    """The whole question why a text has its label.

    Args:
        template: As `load_explain_prompt` gives it.
        task: The prompt of the task, with ``{text}`` in the place of a text.
        text: The text.
        label: The text of its label.
        words: The most that the explanation may have.
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
    """Put values in their places, all at once: no value is searched for another's place."""
    places = "|".join(map(re.escape, values))
    return re.sub(places, lambda match: values[match[0]], template)


def explain_sha256(template: str, task: str, label: str, words: int) -> str:
    """What an explanation of a label is determined by beside the text; 16 digits."""
    return text_sha256(template, task, label, str(words))


def _block(name: str, text: str) -> str:
    return f"<{name}>\n{_material(text, _EXPLAIN_MARK)}\n</{name}>"


def conversation_block(conversation: Conversation) -> str:
    """A conversation between its marks; nothing inside it can be taken for a mark."""
    lines = ["<conversation>"]
    if conversation.context and conversation.context.strip():
        lines += ["<context>", _material(conversation.context), "</context>"]
    for turn in conversation.conversation:
        lines += [f'<message from="{turn.role}">', _material(turn.content), "</message>"]
    return "\n".join([*lines, "</conversation>"])


def copy_prompts(destination: Path) -> list[Path]:
    """Copy the package's prompts and configs with every key, to be changed.

    Returns:
        What was written; the `CONFIGS` come last.

    Raises:
        UserError: One of the files is there already.
    """
    ours = files("regreason_plugin.annotate")
    declared = [f"{style}/{axis}.txt" for style in STYLES for axis in AXES]
    # An axis may have been declared that nobody has written a prompt for.
    names = [name for name in declared if ours.joinpath("prompts").joinpath(name).is_file()]
    names += [f"{MERGE}.txt", f"{EXPLAIN}.txt"]
    for name in [*names, *CONFIGS]:
        if (destination / name).exists():
            raise UserError("is there already; name another --out", path=destination / name)
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
                "no such prompt; `regreason fetch prompts` copies those of the package", path=path
            ) from None
        except UnicodeDecodeError:
            raise UserError("is not UTF-8; save the file as UTF-8", path=path) from None
    for placeholder in placeholders:
        if text.count(placeholder) != 1:
            raise UserError(
                f"needs {placeholder} exactly once, and has it {text.count(placeholder)} times",
                path=path,
            )
    return text


def text_sha256(*parts: str) -> str:
    """A prompt by what it says and by how conversations are put into it; 16 digits."""
    return hashlib.sha256("\0".join((_BLOCK_VERSION, *parts)).encode()).hexdigest()[:16]


def merge_sha256(text: str, explanations: Sequence[str], words: int) -> str:
    """What a merged explanation is determined by beside the conversation; 16 digits."""
    return text_sha256(text, str(words), *explanations)
