"""The dataset card: the ``README.md`` of a data folder, for its readers and for the Hub.

The card is made from the manifest, the record of the rating (`About`) and the agreement of the
raters; the same three always give the same bytes. Because of its front matter,
``datasets.load_dataset("DATA", "explanation")`` can read the folder.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import PurePath
from typing import Any

from huggingface_hub import DatasetCardData

from regreason_plugin.annotate.agreement import ALL, Agreement
from regreason_plugin.annotate.calls import OK
from regreason_plugin.annotate.provenance import About, RaterProvenance
from regreason_plugin.annotate.quality_alarm import by_state
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.markdown import Markdown, block, code, escape, render
from regreason_plugin.core.numbers import NONE, number, signed
from regreason_plugin.core.splits import SPLITS
from regreason_plugin.data_folder.folder import MANIFEST, TEST, Manifest, OwnSplits

CARD = "README.md"
_LEAKED = {
    "score_phrase": "phrases that state a score",
    "label_word": "the word label",
    "digit": "single digits of 1 to 5",
    "rows": "rows with any of these",
    "own_label": "of these, rows that name their own label",
    "removed": "rows from which these were removed",
    "dropped": "rows dropped because nothing else was left",
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
    """The text of the card.

    Args:
        manifest: The folder's manifest.
        sha256: The sha256 of the manifest file.
        agreement: The agreement of the raters.
        about: The record of how the documents were rated; None if there is no such record.
    """
    declared = manifest.declaration
    labelled = {name for count in manifest.counts.values() for name in count.labels}
    settings = [
        setting for setting in declared.settings if declared.task_name(*setting) in labelled
    ]
    datasets = list(dict.fromkeys(dataset for dataset, _ in settings))
    arm = "explanation" if "explanation" in manifest.arms else manifest.arms[0]
    title = _title(manifest, datasets)
    limits = manifest.limits
    sizes = {"prompts": limits.max_prompt, "targets": limits.max_target}
    return render(
        "data_folder/card.md.j2",
        m=manifest,
        declared=declared,
        about=about,
        agreement=agreement,
        sha256=sha256,
        manifest_name=MANIFEST,
        generated=manifest.origin == "generated",
        front=_front_matter(manifest, title, arm),
        title=title,
        datasets=datasets,
        axes=[
            axis.title
            for name, axis in declared.axes.items()
            if name in {axis for _, axis in settings}
        ],
        sources=[_source(declared, dataset) for dataset in datasets],
        raters=_raters(about) if about else [],
        unusable=_unusable(about) if about else [],
        own_splits=_own_splits(manifest.own_splits),
        counts=[
            [split, *(f"{n:,}" for n in (count.rows, count.conversations, count.groups))]
            for split, count in manifest.counts.items()
        ],
        label_heads=[f"label {label}" for label in declared.labels],
        distribution=[_distribution(manifest, declared, *setting) for setting in settings],
        **_agreement(agreement, declared),
        tokenizer=_tokenizer_name(manifest.tokenizer),
        lengths=[_lengths(manifest, arm) for arm in manifest.arms],
        cut=[f"{what} to {most} {limits.unit}" for what, most in sizes.items() if most],
        changes=_changes(manifest, about),
        arm=arm,
        scoring=_scoring(manifest, declared, settings),
    )


def _title(manifest: Manifest, datasets: list[str]) -> str:
    kind = "GENERATED mini benchmark" if manifest.origin == "generated" else "rated conversations"
    if not manifest.declaration.rated:
        kind = "labelled texts"
    return f"RegReason, {kind}: {', '.join(datasets)}"


def _front_matter(manifest: Manifest, title: str, default_arm: str) -> Markdown:
    """The metadata that the Hub and ``datasets`` read."""
    rows = sum(count.rows for count in manifest.counts.values())
    metadata = DatasetCardData(
        pretty_name=title,
        license="other",
        language=["en"] if manifest.origin == "generated" else None,
        task_categories=["text-classification", "text-generation"],
        size_categories=[next((name for size, name in _SIZES if rows < size), "1M<n<10M")],
        tags=["regreason", "explanations", "llm-as-a-judge", manifest.origin],
        configs=[
            {
                "config_name": arm,
                **({"default": True} if arm == default_arm else {}),
                "data_files": [
                    *({"split": str(s), "path": f"{s}/{arm}.jsonl"} for s in SPLITS[:2]),
                    {"split": "test", "path": TEST},
                ],
            }
            for arm in manifest.arms
        ],
    )
    return Markdown(metadata.to_yaml())


def _source(declared: Declaration, dataset: str) -> list[str]:
    source = declared.datasets[dataset]
    linked = source.home.startswith("https://")
    home = Markdown(f"<{source.home}>") if linked else code(source.home)
    return [code(dataset), source.title, home, source.licence]


def _raters(about: About) -> list[list[str]]:
    """One table row per rater, and a last one for the model that merges explanations, if any."""
    rows = [_rater(rater) for rater in about.raters]
    if about.merged_by is not None:
        name, *rest = _rater(about.merged_by)
        rows.append([Markdown(f"{name}, merges explanations"), *rest])
    return rows


def _rater(rater: RaterProvenance) -> list[str]:
    prompts = ", ".join(f"{escape(name)} {code(sha)}" for name, sha in rater.prompts.items())
    sampling = ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in rater.sampling.items()
    )
    return [
        code(rater.name),
        code(rater.model) if rater.model else "none",
        sampling or NONE,
        Markdown(prompts or NONE),
        Markdown(", ".join(map(code, rater.served)) or NONE),
        " to ".join(sorted({min(rater.days), max(rater.days)})) if rater.days else NONE,
    ]


def _unusable(about: About) -> list[list[str]]:
    """One table row per rater and prompt with missing scores: how many, their share, and why."""
    rows = []
    for rater, prompts in about.answers.items():
        for prompt, states in prompts.items():
            asked = Counter(states)
            missing = asked - Counter({OK: asked[OK]})
            if missing:
                share = f"{missing.total() / asked.total():.1%}"
                counts = f"{asked.total():,}", f"{missing.total():,}"
                rows.append([code(rater), code(prompt), *counts, share, by_state(missing)])
    return rows


def _own_splits(own: OwnSplits | None) -> Markdown | None:
    """Sentences about splits that the user set; None if they were drawn."""
    if own is None:
        return None
    how = f"in the column {code(own.column)}" if own.column else "by separate files"
    text = f"The splits are those of the source table, set {how}."
    if own.validation == "drawn":
        text += " Validation was drawn from its train rows, in whole groups."
    if own.spellings:
        names = (f"{code(name)} as {split}" for name, split in own.spellings.items())
        text += f" Read: {', '.join(names)}."
    if own.dropped:
        rows = " and ".join(f"{number:,} {split}" for split, number in own.dropped.items())
        text += f" Left out, because test or validation has their text or group: {rows}."
    return Markdown(text)


def _distribution(manifest: Manifest, declared: Declaration, dataset: str, axis: str) -> list[str]:
    """A table row with the number of rows of one setting per label."""
    task = declared.task_name(dataset, axis)
    by_split = [count.labels.get(task, {}) for count in manifest.counts.values()]
    labels = [str(place) for place in range(1, len(declared.labels) + 1)]
    by_label = [sum(counts.get(label, 0) for counts in by_split) for label in labels]
    counted = [f"{n:,}" for n in (*by_label, sum(by_label))]
    return [code(dataset), declared.axes[axis].title, *counted]


def _agreement(agreement: Agreement, declared: Declaration) -> dict[str, list[Any]]:
    if not agreement.rows:
        return {}
    titles = {**{name: axis.title for name, axis in declared.axes.items()}, ALL: ALL}
    axes = [axis for axis in titles if axis in agreement.alphas[0].by_axis]
    return {
        "alpha_heads": [titles[axis] for axis in axes],
        "alphas": [
            [alpha.among, str(alpha.coders), *(number(alpha.by_axis.get(axis)) for axis in axes)]
            for alpha in agreement.alphas
        ],
        "left_out": [
            [
                code(left_out.coder.rater),
                code(left_out.coder.prompt),
                f"{left_out.rows:,}",
                signed(left_out.bias),
                *map(number, (left_out.mae, left_out.exact, left_out.qwk)),
            ]
            for left_out in agreement.left_out
        ],
    }


def _tokenizer_name(tokenizer: str | None) -> str | None:
    """The tokenizer's name; of a local path only its last part, since the rest is private."""
    if not tokenizer:
        return None
    path = PurePath(tokenizer)
    return path.name if path.is_absolute() or tokenizer.startswith((".", "~")) else tokenizer


def _lengths(manifest: Manifest, arm: str) -> list[str]:
    length = manifest.lengths[arm]
    tokens = (NONE if n is None else f"{n:g}" for n in (length.tokens_mean, length.tokens_max))
    return [code(arm), f"{length.words_mean:g}", str(length.words_max), *tokens]


def _changes(manifest: Manifest, about: About | None) -> list[list[str]]:
    """Table rows that count the changes made to the texts: the kind, the detail, the number."""
    counts = {
        "cut": manifest.cut,
        "neutralised, places": manifest.neutralised,
        "names a label": {_LEAKED.get(what, what): n for what, n in manifest.leaked.items()},
        **({title: getattr(about, part) for part, title in _ABOUT_PARTS.items()} if about else {}),
    }
    return [[title, what, f"{n:,}"] for title, by in counts.items() for what, n in by.items()]


def _scoring(
    manifest: Manifest, declared: Declaration, settings: list[tuple[str, str]]
) -> Markdown:
    generative = manifest.order == "explanation_first"
    tasks = declared.tasks_argument(settings, generative=generative)
    return block(
        "lm_eval --model hf --model_args pretrained=MODEL \\\n"
        f"    --tasks '{tasks}' \\\n"
        """    --metadata '{"data_dir": "DATA"}' --log_samples --output_path RESULTS""",
        "bash",
    )
