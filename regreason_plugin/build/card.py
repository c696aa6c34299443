"""The card of a data folder: ``README.md`` in it, for its readers and for the Hub.

It is made from the manifest, from what is said of the ratings (`about`), and from how far the
raters agree: the same of these gives the same bytes. With its front matter,
``datasets.load_dataset("DATA", "explanation")`` reads the folder itself, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from regreason_plugin.annotate.agreement import ALL, Agreement
from regreason_plugin.annotate.provenance import About, AboutRater
from regreason_plugin.build.folder import MANIFEST, TEST, Manifest
from regreason_plugin.build.split import SPLITS
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.markdown import block, code, escape

CARD = "README.md"
_LEAKED = {
    "score_phrase": "phrases that state a score",
    "label_word": "the word label",
    "digit": "single digits of 1 to 5",
    "rows": "rows with any of these",
    "own_label": "of these, rows that name their own label",
    "removed": "rows from which it was removed",
    "dropped": "rows dropped, since nothing else was left",
}
_ABOUT_PARTS = {
    "calls": "calls of raters",
    "dropped": "conversations x axes without a label",
    "notes": "notes on the rating",
    "tokens": "tokens of the raters",
}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


def data_card(
    manifest: Manifest, sha256: str, agreement: Agreement, about: About | None = None
) -> str:
    """The card's text.

    Args:
        manifest: Of the folder.
        sha256: Of the manifest's file.
        agreement: Among its raters.
        about: What is said of the ratings, if anything is.
    """
    parts = [
        _front_matter(manifest),
        f"# {escape(_title(manifest))}",
        _generated(manifest),
        f"{_what(manifest)} Each row is "
        "a prompt with its label and what follows the label in one arm of a comparison: an "
        "explanation, or text in its place. Made with RegReason "
        f"{escape(manifest.versions.get('regreason', ''))}, an open implementation of "
        "[Regularization Through Reasoning](https://arxiv.org/abs/2511.02044).",
        escape(manifest.note),
        "## Sources and licences",
        _sources(manifest),
        "## Labels",
        _labels(manifest, about),
        _counts(manifest),
        _distribution(manifest),
        "## Agreement of the raters",
        _agreement(agreement, manifest.declaration),
        "## Arms",
        _arms(manifest),
        "## What was cut, neutralised, left out",
        _changes(manifest, about),
        "## Use",
        *_use(manifest),
        "## Verify",
        f"sha256 of `{MANIFEST}`: {code(sha256)}. The manifest has the sha256 of every data file "
        "(this card is not among them). Training and evaluation refuse a folder that differs; by "
        "hand:",
        block(_VERIFY, "bash"),
        f"Made from {code(manifest.source.get('file', ''))}, sha256 of its sorted rows "
        f"{code(manifest.source.get('sha256_of_sorted_rows', ''))}, with seed {manifest.seed}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_VERIFY = """python -c "import json, hashlib, pathlib
for name, sha256 in json.load(open('manifest.json'))['files'].items():
    assert hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest() == sha256, name\""""


def _settings(manifest: Manifest) -> list[tuple[str, str]]:
    known = {name for count in manifest.counts.values() for name in count.labels}
    declared = manifest.declaration
    return [setting for setting in declared.settings if declared.task_name(*setting) in known]


def _what(manifest: Manifest) -> str:
    declared = manifest.declaration
    if declared.rated:
        return (
            f"Conversations whose last message is rated from {declared.labels[0]} to "
            f"{declared.labels[-1]} on {_axes(manifest)}."
        )
    titles = (dataset.title for dataset in declared.datasets.values())
    kind = "in their order" if declared.ordinal else "in no order"
    return f"{escape(', '.join(titles))}: {len(declared.labels)} labels, {kind}."


def _datasets(manifest: Manifest) -> list[str]:
    return list(dict.fromkeys(dataset for dataset, _ in _settings(manifest)))


def _axes(manifest: Manifest) -> str:
    given = {axis for _, axis in _settings(manifest)}
    axes = manifest.declaration.axes
    return ", ".join(axis.title for name, axis in axes.items() if name in given)


def _title(manifest: Manifest) -> str:
    kind = "GENERATED mini benchmark" if manifest.origin == "generated" else "rated conversations"
    if not manifest.declaration.rated:
        kind = "labelled texts"
    return f"RegReason, {kind}: {', '.join(_datasets(manifest))}"


def _front_matter(manifest: Manifest) -> str:
    rows = sum(count.rows for count in manifest.counts.values())
    front: dict[str, Any] = {"pretty_name": _title(manifest), "license": "other"}
    if manifest.origin == "generated":
        front["language"] = ["en"]
    front["task_categories"] = ["text-classification", "text-generation"]
    front["size_categories"] = [next((name for size, name in _SIZES if rows < size), "1M<n<10M")]
    front["tags"] = ["regreason", "explanations", "llm-as-a-judge", manifest.origin]
    first = "explanation" if "explanation" in manifest.arms else manifest.arms[0]
    front["configs"] = [
        {
            "config_name": arm,
            **({"default": True} if arm == first else {}),
            "data_files": [
                *({"split": str(s), "path": f"{s}/{arm}.jsonl"} for s in SPLITS[:2]),
                {"split": "test", "path": TEST},
            ],
        }
        for arm in manifest.arms
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---"


def _generated(manifest: Manifest) -> str:
    if manifest.origin != "generated":
        return ""
    return (
        "**These conversations are GENERATED, not collected. No number made from them says "
        "anything about real text.**"
    )


def _sources(manifest: Manifest) -> str:
    if manifest.origin == "generated":
        return (
            "All conversations were generated by RegReason (Apache-2.0) in the shape of these "
            f"datasets, of which they hold nothing: {', '.join(_datasets(manifest))}."
        )
    lines = []
    for dataset in _datasets(manifest):
        source = manifest.declaration.datasets[dataset]
        home = f"<{source.home}>" if source.home.startswith("https://") else code(source.home)
        lines.append([code(dataset), escape(source.title), home, escape(source.licence)])
    table = _table(["dataset", "what it is", "home page", "licence"], lines)
    return (
        f"{table}\n\nThe conversations keep the licences of their sources, which hold for every "
        "copy of these files; the licence of each is the one its source states."
    )


def _labels(manifest: Manifest, about: About | None) -> str:
    if not manifest.declaration.rated:
        said = f"{', '.join(map(code, manifest.declaration.labels))}, as the table has them."
        if manifest.explained_by:
            authors = ", ".join(map(code, manifest.explained_by))
            said += f" Explanations that did not come with the texts were written by {authors}."
        return said
    if about is None:
        raters = ", ".join(map(code, manifest.raters)) or "not stated"
        return f"Raters: {raters}. How they were asked and how their scores became one is unknown."
    lines = [_rater(rater) for rater in about.raters]
    if about.merged_by is not None:
        name, *rest = _rater(about.merged_by)
        lines.append([f"{name}, merges explanations", *rest])
    need = "1 usable score" if about.minimum == 1 else f"{about.minimum} usable scores"
    said = (
        f"Scores are mapped linearly onto 1 to 5 and become one by {code(about.aggregator)}; a row "
        f"needs {need}."
    )
    return f"{_table(['rater', 'model', 'sampling', 'prompts, by hash'], lines)}\n\n{said}"


def _rater(rater: AboutRater) -> list[str]:
    prompts = ", ".join(f"{escape(name)} {code(sha)}" for name, sha in rater.prompts.items())
    sampling = ", ".join(
        f"{escape(name)} {escape(value)}" for name, value in rater.sampling.items()
    )
    return [
        code(rater.name),
        code(rater.model) if rater.model else "none",
        sampling or "-",
        prompts or "-",
    ]


def _counts(manifest: Manifest) -> str:
    lines = [
        [split, f"{count.rows:,}", f"{count.conversations:,}", f"{count.groups:,}"]
        for split, count in manifest.counts.items()
    ]
    return (
        _table(["split", "rows", "conversations", "groups"], lines, numbers=3)
        + "\n\nNo group is in two splits. The test file has no answers in its messages and is "
        "the same for every arm."
    )


def _distribution(manifest: Manifest) -> str:
    declared, lines = manifest.declaration, []
    numbers = [str(number + 1) for number in range(len(declared.labels))]
    for dataset, axis in _settings(manifest):
        name = declared.task_name(dataset, axis)
        found = [c.labels.get(name, {}) for c in manifest.counts.values()]
        by_label = [sum(labels.get(label, 0) for labels in found) for label in numbers]
        title = escape(declared.axes[axis].title)
        lines.append([code(dataset), title, *(f"{n:,}" for n in by_label), f"{sum(by_label):,}"])
    names = [f"label {label}" for label in declared.labels]
    head = ["dataset", "axis", *map(escape, names), "rows"]
    return _table(head, lines, numbers=len(numbers) + 1)


def _agreement(found: Agreement, declared: Declaration) -> str:
    if not found.rows:
        return "No rater's own scores came with the ratings, so none can be computed."
    titles = {**{name: axis.title for name, axis in declared.axes.items()}, ALL: ALL}
    axes = [axis for axis in titles if axis in found.alphas[0].by_axis]
    alphas = _table(
        ["among", "coders", *(titles[axis] for axis in axes)],
        [
            [escape(a.among), str(a.coders), *(_number(a.by_axis.get(axis)) for axis in axes)]
            for a in found.alphas
        ],
        numbers=1 + len(axes),
    )
    left_out = _table(
        ["rater", "prompt", "rows", "bias", "MAE", "exact", "QWK"],
        [
            [
                code(one.coder.rater),
                code(one.coder.prompt),
                f"{one.rows:,}",
                f"{round(one.bias, 3) + 0.0:+.3f}",
                *map(_number, (one.mae, one.exact, one.qwk)),
            ]
            for one in found.left_out
        ],
        numbers=5,
    )
    return (
        f"Krippendorff's alpha (ordinal, scores rounded to labels) over {found.rows:,} rows:\n\n"
        f"{alphas}\n\nEach rater and prompt against the mean of all other scores of the row:\n\n"
        f"{left_out}"
    )


def _arms(manifest: Manifest) -> str:
    first = "label" if manifest.order == "label_first" else "explanation"
    lines = []
    for arm in manifest.arms:
        length = manifest.lengths[arm]
        tokens = ["-" if n is None else f"{n:g}" for n in (length.tokens_mean, length.tokens_max)]
        lines.append([code(arm), f"{length.words_mean:g}", str(length.words_max), *tokens])
    table = _table(["arm", "words, mean", "most", "tokens, mean", "most"], lines, numbers=4)
    tokenizer = ""
    if manifest.tokenizer:
        # Of a folder on somebody's machine only the name.
        place = PurePath(manifest.tokenizer)
        local = place.is_absolute() or manifest.tokenizer.startswith((".", "~"))
        tokenizer = f" Tokens are those of {code(place.name if local else manifest.tokenizer)}."
    return (
        "All arms have the same rows, prompts and labels; they differ in what goes with the label, "
        f"whose lengths in the train file are below. The {first} comes first.{tokenizer} "
        f"`mismatched` takes its text from {'any row' if manifest.mismatched == 'any' else 'rows'} "
        f"{'' if manifest.mismatched == 'any' else 'with the same label '}of the same setting."
        f"\n\n{table}"
    )


def _changes(manifest: Manifest, about: About | None) -> str:
    unit = manifest.limits.unit
    limits = [
        f"prompts to {manifest.limits.max_prompt} {unit}" if manifest.limits.max_prompt else "",
        f"targets to {manifest.limits.max_target} {unit}" if manifest.limits.max_target else "",
    ]
    cut = " and ".join(filter(None, limits))
    said = [
        f"Cut: {cut}, the oldest turns first." if cut else "Nothing was cut for its length.",
        "Neutralised: text that looks like a special token or a turn marker.",
        "An explanation that names a label gives it away; such sentences were "
        + (
            "removed from the train and validation explanations."
            if manifest.leaks == "remove"
            else "counted and kept."
        ),
    ]
    lines = [
        *(["cut", what, f"{n:,}"] for what, n in manifest.cut.items()),
        *(["neutralised, places", what, f"{n:,}"] for what, n in manifest.neutralised.items()),
        *(
            ["names a label", _LEAKED.get(what, what), f"{n:,}"]
            for what, n in manifest.leaked.items()
        ),
    ]
    for part, title in _ABOUT_PARTS.items() if about else ():
        counts: dict[str, int] = getattr(about, part)
        lines.extend([title, what, f"{n:,}"] for what, n in counts.items())
    escaped = [[escape(cell) for cell in line] for line in lines]
    return " ".join(said) + "\n\n" + _table(["what", "", "times"], escaped, numbers=1)


def _use(manifest: Manifest) -> Iterable[str]:
    arm = "explanation" if "explanation" in manifest.arms else manifest.arms[0]
    declared, settings = manifest.declaration, _settings(manifest)
    twins = manifest.order == "explanation_first"
    tasks = ",".join(declared.task_names(settings, generative=twins))
    if len(settings) == len(declared.settings):
        tasks = declared.all_tasks(generative=twins)
    yield "Here, `DATA` is this folder. Its rows:"
    yield block(
        f'from datasets import load_dataset\n\nrows = load_dataset("DATA", "{arm}")["train"]',
        "python",
    )
    yield "With Axolotl and RegReason's plugin:"
    yield block(
        "plugins: [regreason_plugin.train.RegReasonPlugin]\n"
        f"datasets:\n  - path: DATA/train/{arm}.jsonl\n    ds_type: json\n"
        "    type: regreason_plugin.train.strategy",
        "yaml",
    )
    yield "A trained model on the test file, with lm-eval:"
    yield block(
        "lm_eval --model hf --model_args pretrained=MODEL \\\n"
        f"    --tasks '{tasks}' \\\n"
        f"    --metadata {_quoted({'data_dir': 'DATA'})} --log_samples --output_path RESULTS",
        "bash",
    )
    yield (
        "The test file chooses nothing: no checkpoint, no hyperparameter, no example in a prompt. "
        "The validation file is for that."
    )


def _quoted(value: dict[str, str]) -> str:
    return f"'{json.dumps(value)}'"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table; its last ``numbers`` columns to the right."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
