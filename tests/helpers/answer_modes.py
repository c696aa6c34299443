"""Ways in which a language model answers, and how each is read; expectations written by hand.

`python tests/helpers/answer_modes.py` writes docs/reference/answers.md, the same as a table.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "answers.md"
SCALE = 5
WELL = "It reads well."
GOOD = '{"explanation": "It reads well.", "score": 4}'
SORRY = "I'm sorry, but I can't help with that."


class Read(NamedTuple):
    """What is stored of an answer that can be used.

    Attributes:
        explanation: The explanation.
        score: The score on `SCALE`; None where none is asked for.
        mended: Whether the answer's JSON was mended.
    """

    explanation: str
    score: int | None = None
    mended: bool = False


class AnswerMode(NamedTuple):
    """One way to answer.

    Attributes:
        name: What is special about the answer.
        text: The server's text.
        rating: What `annotate` stores, or the state of an answer that cannot be used.
        explained: The same for `explain` and merging, which ask for no score.
    """

    name: str
    text: str
    rating: Read | str
    explained: Read | str


def _both(name: str, text: str, rating: Read | str) -> AnswerMode:
    """The same with and without a score."""
    explained = rating if isinstance(rating, str) else rating._replace(score=None)
    return AnswerMode(name, text, rating, explained)


def _good(name: str, text: str) -> AnswerMode:
    return _both(name, text, Read(WELL, 4))


def _mended(name: str, text: str, explanation: str = WELL) -> AnswerMode:
    return _both(name, text, Read(explanation, 4, True))


def _unscored(name: str, text: str, state: str) -> AnswerMode:
    """An answer whose score is wrong, which matters only where one is asked for."""
    return AnswerMode(name, text, state, Read(WELL))


def _prose(name: str, text: str, explained: Read | str) -> AnswerMode:
    """Prose without a score."""
    state = explained if explained in ("refused", "only_thinking", "no_answer") else "broken_json"
    return AnswerMode(name, text, str(state), explained)


MODES = {
    "JSON": [
        _good("JSON as asked for", GOOD),
        _good("the score first", '{"score": 4, "explanation": "It reads well."}'),
        _good("a code fence", f"```json\n{GOOD}\n```"),
        _good("prose around the object", f"Sure! Here it is:\n\n{GOOD}\n\nI hope this helps!"),
        _good("a brace in the prose before", f"I thought {{hard}} about it. {GOOD}"),
        _good("the same object twice", f"{GOOD}\n{GOOD}"),
        _good("the same name twice, with one value", GOOD[:-1] + ', "score": 4}'),
        _good("another name in the object", GOOD[:-1] + ', "sure": true}'),
        _good("the score as text", '{"explanation": "It reads well.", "score": "4"}'),
        _good("the score with its scale", '{"explanation": "It reads well.", "score": "4/5"}'),
        _good("the score with a decimal", '{"explanation": "It reads well.", "score": 4.0}'),
        _good("white space in the explanation", GOOD.replace(" reads ", " \\n\\t reads ")),
        _good("a brace too many", GOOD + "}"),
        _both(
            "escaped quotes", GOOD.replace("well", 'as \\"well\\"'), Read('It reads as "well".', 4)
        ),
        _both("an escaped letter", GOOD.replace("well", "caf\\u00e9"), Read("It reads café.", 4)),
        _both("a brace in a string", GOOD.replace("well", "{well}"), Read("It reads {well}.", 4)),
        _unscored("no score", '{"explanation": "It reads well."}', "score_missing"),
        _unscored("a score of null", GOOD.replace("4", "null"), "score_missing"),
        _unscored("a score in words", GOOD.replace("4", '"four"'), "score_not_a_number"),
        _unscored("a half score", GOOD.replace("4", "3.5"), "score_not_a_number"),
        _unscored("a score of true", GOOD.replace("4", "true"), "score_not_a_number"),
        _unscored("two scores in one", GOOD.replace("4", '"3-4"'), "score_not_a_number"),
        _unscored("a score of 0", GOOD.replace("4", "0"), "score_out_of_range"),
        _unscored("a score above the scale", GOOD.replace("4", "9"), "score_out_of_range"),
        _unscored("a score on another scale", GOOD.replace("4", '"4/10"'), "score_out_of_range"),
        _both("an object with other names", '{"answer": 4}', "score_missing")._replace(
            explained="explanation_empty"
        ),
        _both("an empty object", "{}", "score_missing")._replace(explained="explanation_empty"),
    ],
    "JSON that is mended": [
        _mended("a trailing comma", '{"explanation": "It reads well.", "score": 4,}'),
        _mended(
            "a trailing comma, on lines", '{\n  "explanation": "It reads well.",\n  "score": 4,\n}'
        ),
        _mended("a raw line end in a string", GOOD.replace("reads well", "reads\nwell")),
        _mended(
            "paragraphs in a string",
            GOOD.replace("reads well.", "reads:\n\n- well,\n- short."),
            "It reads: - well, - short.",
        ),
        _mended("a raw tab in a string", GOOD.replace("reads well", "reads\twell")),
        _mended("single quotes", GOOD.replace('"', "'")),
        _mended(
            "an apostrophe in single quotes",
            "{'explanation': 'It's short, isn't it.', 'score': 4}",
            "It's short, isn't it.",
        ),
        _mended("curly quotes", "{“explanation”: “It reads well.”, “score”: 4}"),
        _mended("names without quotes", '{explanation: "It reads well.", score: 4}'),
        _mended("a comment of //", '{"explanation": "It reads well.", // yes\n"score": 4}'),
        _mended("a comment of /* */", '{"explanation": "It reads well.", "score": 4 /* of 5 */}'),
        _mended("a comment of #", '{"explanation": "It reads well.", "score": 4 # good\n}'),
        _mended(
            "an address in a string",
            GOOD.replace("well.", "like https://a.org/b").replace("}", ",}"),
            "It reads like https://a.org/b",
        ),
        _mended("no closing brace", GOOD[:-1]),
        _mended("no closing brace in a fence", f"```json\n{GOOD[:-1]}\n```"),
        _mended(
            "no closing brace, the score first", '{"score": 4, "explanation": "It reads well."'
        ),
        _mended("no comma", '{"explanation": "It reads well."\n "score": 4}'),
        _mended("no braces at all", GOOD.strip("{}")),
        _mended("doubled braces", "{" + GOOD + "}"),
        _mended("the score unquoted with its scale", GOOD.replace("4", "4/5")),
        _mended(
            "an unknown escape",
            GOOD.replace("It", "It \\delta").replace("}", ",}"),
            "It \\delta reads well.",
        ),
        _mended("a mended object after a fence", f"Here:\n```\n{GOOD[:-1]},}}\n```\nDone."),
        _unscored(
            "a mended score in words", GOOD.replace("4", "four"), "score_not_a_number"
        )._replace(explained=Read(WELL, None, True)),
    ],
    "JSON that is refused": [
        _both(
            "a string that was never closed", '{"score": 4, "explanation": "It rea', "broken_json"
        ),
        _both(
            "a whole sentence, never closed",
            '{"score": 4, "explanation": "It reads well.',
            "broken_json",
        ),
        _both("an explanation that was cut", '{"explanation": "It rea', "broken_json"),
        _both("a name that was cut", '{"explanation": "It reads well.", "sco', "broken_json"),
        _both("a score that was cut", GOOD.replace("4}", '"4'), "broken_json"),
        _both("a minus that was cut", GOOD.replace("4}", "-"), "broken_json"),
        _both("only a brace", "{", "broken_json"),
        _both("a mended object with another name", GOOD[:-1] + ', "sure": true,}', "broken_json"),
        _both("a quoted comma in a string", GOOD.replace("well", '"," well'), "broken_json"),
        _both("the same name twice", GOOD[:-1] + ', "score": 5}', "broken_json"),
        _both(
            "two explanations",
            '{"explanation": "Good.", "explanation": "Bad.", "score": 4}',
            "broken_json",
        ),
        _both(
            "two objects that differ",
            '{"explanation": "Good.", "score": 4}\n{"explanation": "Bad.", "score": 1}',
            "broken_json",
        ),
        _both("two objects, the last one cut", GOOD + ' Or: {"explanation": "It is', "broken_json"),
        _both(
            "two objects, both to be mended",
            "{'explanation': 'A good one', 'score': 4}\n{'explanation': 'A bad one', 'score': 1}",
            "broken_json",
        ),
        _both("raw quotes in a string", GOOD.replace("well", 'as "well"'), "broken_json"),
        _both(
            "a quoted score in a string",
            '{"explanation": "He says "score": 5", "score": 4}',
            "broken_json",
        ),
        _both(
            "a quoted object in a cut string",
            "{\"explanation\": \"He wrote {'explanation': 'Bad', 'score': 1} and",
            "broken_json",
        ),
        _both("strings that are added", '{"explanation": "It " + "is", "score": 4}', "broken_json"),
        _both(
            "an explanation without quotes",
            "{explanation: It reads well., score: 4}",
            "broken_json",
        ),
        _both("a triple quote", '{"explanation": """It reads well.""", "score": 4}', "broken_json"),
        _both("two scores unquoted", GOOD.replace("4", "4 5"), "broken_json"),
        _both("a brace before prose", "{I think it is good.}\nScore: 4", "broken_json"),
        _both(
            "the object in an object",
            '{"a": {"explanation": "It reads well.", "score": 4},}',
            "broken_json",
        ),
    ],
    "Thinking": [
        _good("thinking before the object", f"<think>It is short.</think>\n{GOOD}"),
        _good("tags of another name", f"<thinking>It is short.</thinking>{GOOD}"),
        _good("reasoning tags", f"<reasoning>\nIt is short.\n</reasoning>\n\n{GOOD}"),
        _good("tags in brackets", f"[THINK]It is short.[/THINK]{GOOD}"),
        _good("tags in capitals", f"<THINK>It is short.</THINK>{GOOD}"),
        _good("empty thinking", f"<think>\n\n</think>\n\n{GOOD}"),
        _good("the opening tag is missing", f"It is short.\n</think>\n\n{GOOD}"),
        _good(
            "a draft object in the thinking",
            f'<think>Perhaps {{"explanation": "Bad.", "score": 1}}?</think>{GOOD}',
        ),
        _good(
            "a draft before a closing tag alone",
            f'Perhaps {{"explanation": "Bad.", "score": 1}}?\n</think>\n{GOOD}',
        ),
        _good("thinking twice", f"<think>One.</think><think>Two.</think>{GOOD}"),
        _good("thinking that names its end", f"<think>I close </think> soon.</think>{GOOD}"),
        _both(
            "a tag in a string",
            GOOD.replace("well", "a <think> tag"),
            Read("It reads a <think> tag.", 4),
        ),
        _both(
            "both tags in a string",
            GOOD.replace("well", "<think>x</think>"),
            Read("It reads <think>x</think>.", 4),
        ),
        _both("only thinking", "<think>It is short.</think>", "only_thinking"),
        _both("thinking that was never closed", f"<think>Perhaps {GOOD}", "only_thinking"),
        _both(
            "a draft in thinking that was never closed",
            f"<think>\n{GOOD}\nNo, wait",
            "only_thinking",
        ),
        _both(
            "words before thinking that was never closed", f"Sure. <think>{GOOD}", "only_thinking"
        ),
        _both("a closing tag alone", "It is short.</think>\n", "only_thinking"),
        AnswerMode(
            "thinking before prose", "<think>Hm.</think>It reads well.", "broken_json", Read(WELL)
        ),
        AnswerMode(
            "words before thinking that names its end",
            "Sure. <think>I close </think> soon.</think>It reads well.",
            "broken_json",
            Read(WELL),
        ),
        AnswerMode(
            "a closing tag before prose",
            "Hm.\n</think>\n\nIt reads well.",
            "broken_json",
            Read(WELL),
        ),
        AnswerMode(
            "thinking before a stated score",
            "<think>Score: 1</think>\nIt reads well.\nScore: 4",
            Read(WELL, 4),
            Read("It reads well. Score: 4"),
        ),
        _good(
            "channels",
            "<|channel|>analysis<|message|>Short.<|end|><|start|>assistant"
            f"<|channel|>final<|message|>{GOOD}<|return|>",
        ),
        _good(
            "channels with a draft",
            f"<|channel|>analysis<|message|>{GOOD.replace('4', '1')}<|end|>"
            f"<|start|>assistant<|channel|>final <|constrain|>json<|message|>{GOOD}",
        ),
        _good("channels without their marks", f"analysisWe rate it.assistantfinal{GOOD}"),
        _both(
            "only the analysis channel",
            f"<|channel|>analysis<|message|>Perhaps {GOOD}",
            "only_thinking",
        ),
    ],
    "Refusals": [
        _prose("a refusal", SORRY, "refused"),
        _prose("a typographic apostrophe", SORRY.replace("'", "\u2019"), "refused"),
        _prose("a refusal in quotes", f'"{SORRY}"', "refused"),
        _prose("a refusal after a heading", f"**Explanation:** {SORRY}", "refused"),
        _prose("a refusal after thinking", f"<think>Unsafe.</think>{SORRY}", "refused"),
        _prose(
            "a language model's excuse",
            "As an AI language model, I cannot judge people.",
            "refused",
        ),
        _prose(
            "a refusal in German", "Es tut mir leid, aber dabei kann ich nicht helfen.", "refused"
        ),
        _prose("a refusal in French", "Je suis désolé, mais je ne peux pas vous aider.", "refused"),
        _prose("a refusal in Spanish", "Lo siento, pero no puedo ayudar con eso.", "refused"),
        _prose("a refusal in Chinese", "很抱歉\uff0c我无法协助您完成这个请求。", "refused"),
        _both("a refusal in JSON", GOOD.replace(WELL, SORRY), "refused"),
        _both(
            "a refusal in JSON without a score",
            GOOD.replace(WELL, SORRY).replace("4", "null"),
            "refused",
        ),
        _both("a refusal with a stated score", f"{SORRY}\nScore: 1", "refused"),
        _both(
            "words about a refusal",
            GOOD.replace(WELL, "The reply is a refusal: it says it can't help."),
            Read("The reply is a refusal: it says it can't help.", 4),
        ),
        _both(
            "a refusal that is quoted",
            GOOD.replace(WELL, "'I can't help with that.' is no answer."),
            Read("'I can't help with that.' is no answer.", 4),
        ),
    ],
    "Prose": [
        AnswerMode(
            "a stated score",
            "It reads well.\nScore: 4",
            Read(WELL, 4),
            Read("It reads well. Score: 4"),
        ),
        AnswerMode(
            "a score before the explanation",
            "**Score:** 4/5\n**Explanation:** It reads well.",
            Read(WELL, 4),
            Read("**Score:** 4/5 **Explanation:** It reads well."),
        ),
        AnswerMode(
            "quotes around the explanation",
            'Rating: 4\nExplanation: "It reads well."',
            Read(WELL, 4),
            Read('Rating: 4 Explanation: "It reads well."'),
        ),
        AnswerMode(
            "two stated scores",
            "Score: 3\nIt reads well.\nScore: 4",
            "broken_json",
            Read("Score: 3 It reads well. Score: 4"),
        ),
        AnswerMode(
            "a range of scores",
            "It reads well.\nScore: 3-4",
            "broken_json",
            Read("It reads well. Score: 3-4"),
        ),
        AnswerMode("only a score", "Score: 4", "explanation_empty", Read("Score: 4")),
        _prose("prose without a score", WELL, Read(WELL)),
        _prose("prose in a fence", f"```\n{WELL}\n```", Read(WELL)),
        _prose("prose in quotes", f'"{WELL}"', Read(WELL)),
        _prose("prose with its heading", f"Explanation: {WELL}", Read(WELL)),
        _prose("a number alone", "4", "explanation_empty"),
        _prose("null", "null", "explanation_empty"),
        _prose("dots", "...", "explanation_empty"),
        _prose("dots in quotes", '"..."', "explanation_empty"),
        _prose("not available", "N/A", "explanation_empty"),
        _prose("none", "None.", "explanation_empty"),
        _both("nothing", "", "no_answer"),
        _both("white space", " \n\t", "no_answer"),
        _both("an endless answer", "word " * 25_000, "answer_too_long"),
    ],
    "Explanations without words": [
        _both("an empty explanation", GOOD.replace(WELL, ""), "explanation_empty"),
        _both("an explanation of dots", GOOD.replace(WELL, "..."), "explanation_empty"),
        _both("an explanation of null", '{"explanation": null, "score": 4}', "explanation_empty"),
        _both("the word null", GOOD.replace(WELL, "null"), "explanation_empty"),
        _both(
            "the placeholder of the prompt",
            GOOD.replace(WELL, "<explanation>"),
            "explanation_empty",
        ),
        _both("a list", '{"explanation": ["It reads well."], "score": 4}', "explanation_empty"),
        _both("an emoji", GOOD.replace(WELL, "👍"), "explanation_empty"),
        _both(
            "only control characters", GOOD.replace(WELL, "\\u001b[31m\\u202e"), "explanation_empty"
        ),
        _both("too many words", GOOD.replace(WELL, "word " * 1_001), "explanation_too_long"),
    ],
    "Control characters": [
        _good("a terminal's colours", GOOD.replace("well", "\\u001b[31mwell\\u001b[0m")),
        _good("a terminal's title", GOOD.replace("It", "\\u001b]0;title\\u0007It")),
        _good("a bell and a NUL", GOOD.replace("well", "\\u0007we\\u0000ll")),
        _good("the writing direction", GOOD.replace("well", "\\u202ewell\\u202c")),
        _good("isolates", GOOD.replace("well", "\u2066well\u2069")),
        _good("marks of direction", GOOD.replace("well", "\u200ewell\u200f")),
        _good("a byte order mark", "\ufeff" + GOOD.replace("It", "\ufeffIt")),
        _both("half a character", GOOD.replace("well", "\\ud800"), Read("It reads \ufffd.", 4)),
        _both(
            "a joined emoji stays",
            GOOD.replace("well", "👩\u200d🔬"),
            Read("It reads 👩\u200d🔬.", 4),
        ),
        _prose("control characters in prose", "It \x1b[1mreads\x1b[0m\x07 well.\u202e", Read(WELL)),
    ],
}


def page() -> str:
    """The page of the documentation that shows every mode."""
    lines = [
        "# How answers are read",
        "",
        "`annotate` asks for a score and an explanation, `explain` and merging for an explanation",
        "alone. This page shows by example how each reads a server's text. The",
        "[guide](../guides/annotate.md#how-answers-are-read) has the rules. The scale is 1 to 5.",
        "Control characters are shown as escapes, and long texts are cut.",
    ]
    for title, modes in MODES.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| answer | the server's text | `annotate` | `explain`, merging |",
            "| --- | --- | --- | --- |",
        ]
        for mode in modes:
            cells = (mode.name, _code(mode.text), _shown(mode.rating), _shown(mode.explained))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(read: Read | str) -> str:
    if isinstance(read, str):
        return f"`{read}`"
    mended = ", mended" if read.mended else ""
    score = "" if read.score is None else f"{read.score}: "
    return f"{score}{_code(read.explanation)}{mended}"


def _code(text: str) -> str:
    """A text as inline code, in a cell of a table."""
    text = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
    text = f"{text[:117]}..." if len(text) > 120 else text
    if not text.strip():
        return f'`"{text}"`'
    if "|" in text:  # would end the cell, and an escaped one would show its backslash
        return f"<code>{escape(text, quote=False).replace('|', '&#124;')}</code>"
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
