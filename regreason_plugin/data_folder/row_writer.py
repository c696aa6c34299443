"""The second pass over labelled documents: writes one file per arm, and makes the manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from regreason_plugin.annotate.label_leaks import find_leaks, kinds_of, names_label, without_leaks
from regreason_plugin.annotate.rules import RULES_NOTE
from regreason_plugin.core.jsonl import dumps, file_sha256
from regreason_plugin.core.prompt import (
    Order,
    cut,
    neutralise,
    one_line,
    render_prompt,
    render_target,
)
from regreason_plugin.core.records import Conversation, Rating
from regreason_plugin.core.splits import SPLITS, Split
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.arms import (
    ARMS,
    Mismatched,
    Vocabulary,
    arm_words,
    other_explanation,
    row_random,
)
from regreason_plugin.data_folder.document_index import Entry, Index
from regreason_plugin.data_folder.folder import TEST, Leaks, Length, Limits, Manifest, OwnSplits
from regreason_plugin.data_folder.lengths import Measure
from regreason_plugin.data_folder.scopes import write_scopes
from regreason_plugin.data_folder.split import PARTS

Progress = Callable[[str, int], object]


@dataclass(frozen=True)
class BuildOptions:
    """The options of `regreason build`.

    Attributes:
        seed: The seed of the split and of every draw.
        order: Whether the label or the explanation comes first in a target.
        arms: The arms to write.
        mismatched: The rows from which the arm ``mismatched`` takes explanations: any other row,
            or only rows with the same label.
        tokenizer: The folder or Hub name of the tokenizer that counts lengths in tokens; None to
            count words.
        max_prompt: The longest prompt, in tokens or words; None for no limit.
        max_target: The longest target, in tokens or words; None for no limit.
        scopes: The kinds of scopes (`scopes.SCOPE_KINDS`) that get files as well.
        leaks: Whether sentences of an explanation that name a label are kept or removed
            (`label_leaks`).
        explained_by: Who wrote the explanations that did not come with the texts, for the card.
        parts: The relative size of each split, in conversations.
        conversations: The most conversations of each split. Groups stay whole, and every arm has
            the same conversations.
    """

    seed: int = 0
    order: Order = "label_first"
    arms: tuple[str, ...] = ARMS
    mismatched: Mismatched = "any"
    tokenizer: str | None = None
    max_prompt: int | None = None
    max_target: int | None = None
    scopes: tuple[str, ...] = ()
    leaks: Leaks = "keep"
    explained_by: tuple[str, ...] = ()
    parts: Mapping[Split, float] = field(default_factory=lambda: PARTS)
    conversations: Mapping[Split, int] = field(default_factory=dict)


class RowWriter:
    """Cuts and renders each document, and writes it to the files of all arms."""

    def __init__(
        self,
        index: Index,
        read: Callable[[Entry], Rating],
        options: BuildOptions,
        measure: Measure,
    ) -> None:
        self.index = index
        self.read = read
        self.options = options
        self.measure = measure
        self.cut: Counter[str] = Counter(turns=0, context=0, response=0, explanation=0)
        self.neutralised: Counter[str] = Counter(conversations=0, explanations=0)
        self.declaration = index.declaration
        self.leaked: Counter[str] = Counter(dict.fromkeys(kinds_of(self.declaration.labels), 0))
        self.leaked.update(rows=0, own_label=0, removed=0, dropped=index.dropped)
        self.lengths: dict[str, list[int]] = {arm: [0, 0, 0, 0] for arm in options.arms}
        self.train: dict[tuple[str, str, int | None], list[int]] = defaultdict(list)
        self.vocabularies: dict[tuple[str, str], Vocabulary] = {}

    def write(self, folder: Path, on_progress: Progress) -> Manifest:
        """Write all data files, and return the manifest (which this does not write)."""
        self._gather_train_words()
        names = [f"{split}/{arm}.jsonl" for split in SPLITS[:2] for arm in self.options.arms]
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(atomic_writer(folder / name)) for name in [*names, TEST]
            }
            conversation: Conversation | None = None
            for entry in self.index.entries:
                rating = self.read(entry)
                if conversation is None or conversation.id != entry.id:
                    conversation = self._fit(rating, entry)
                self._write_row(files, entry, rating, conversation)
                on_progress("write", 1)
        scoped = [
            scope_name
            for name in (names if self.options.scopes else ())
            for scope_name in write_scopes(folder, name, self.options.scopes)
        ]
        written = [*names, TEST, *scoped]
        return self._manifest({name: file_sha256(folder / name) for name in written})

    def _gather_train_words(self) -> None:
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for number, entry in enumerate(self.index.entries):
            if self.index.split[entry.group] != "train":
                continue
            label = entry.label if self.options.mismatched == "same_label" else None
            self.train[entry.dataset, entry.axis, label].append(number)
            counts[entry.dataset, entry.axis].update(self._words_of(number))
        self.vocabularies = {setting: Vocabulary(words) for setting, words in counts.items()}

    def _words_of(self, number: int) -> list[str]:
        entry = self.index.entries[number]
        return self._explanation(self.read(entry), entry)[0]

    def _explanation(self, rating: Rating, entry: Entry) -> tuple[list[str], bool]:
        """The words of an explanation after removing leaks and cutting, and whether it was cut."""
        text = rating.explanation
        if self.options.leaks == "remove":
            text = without_leaks(text, self.declaration.labels)
        words = one_line(text).split()
        limit = self.options.max_target
        if limit is None:
            return words, False

        def fits(count: int) -> bool:
            label = self.declaration.written[rating.label - 1]
            target = render_target(label, " ".join(words[:count]), self.options.order)
            return self.measure.target(target) <= limit

        if fits(len(words)):
            return words, False
        longest = len(words) - 1
        while longest and not fits(longest):
            longest -= 1
        if not longest:
            raise self.index.error(
                f"--max-target-tokens {limit} leaves no room for a word of the explanation",
                entry,
                "explanation",
            )
        return words[:longest], True

    def _fit(self, rating: Rating, entry: Entry) -> Conversation:
        conversation: Conversation = rating
        if self.options.max_prompt is not None:
            try:
                conversation, what = cut(
                    rating, self.options.max_prompt, self.measure.prompt, self.declaration
                )
            except ValueError as error:
                raise self.index.error(f"--max-prompt-tokens: {error}", entry) from None
            if what:
                self.cut[what] += 1
        texts = [turn.content for turn in conversation.conversation] + [conversation.context or ""]
        self.neutralised["conversations"] += sum(neutralise(text)[1] for text in texts)
        return conversation

    def _write_row(
        self,
        files: dict[str, BinaryIO],
        entry: Entry,
        rating: Rating,
        conversation: Conversation,
    ) -> None:
        prompt = render_prompt(conversation, entry.axis, self.declaration)
        row = {
            "id": entry.id,
            "dataset": entry.dataset,
            "group": entry.group,
            "axis": entry.axis,
            "label": rating.label,
            "score": rating.score,
        }
        user = {"role": "user", "content": prompt}
        split = self.index.split[entry.group]
        if split == "test":
            line = dumps({**row, "explanation": rating.explanation, "messages": [user]})
            files[TEST].write(line.encode("utf-8") + b"\n")
            return
        words, was_cut = self._explanation(rating, entry)
        self.cut["explanation"] += was_cut
        self.neutralised["explanations"] += neutralise(rating.explanation)[1]
        self._count_leaks(rating)
        for arm in self.options.arms:
            text = self._text(arm, entry, words)
            label = self.declaration.written[rating.label - 1]
            target = render_target(label, text, self.options.order)
            messages = [user, {"role": "assistant", "content": target}]
            line = dumps({**row, "explanation": text, "messages": messages})
            files[f"{split}/{arm}.jsonl"].write(line.encode("utf-8") + b"\n")
            if split == "train":
                self._count(arm, text)

    def _text(self, arm: str, entry: Entry, words: list[str]) -> str:
        rng = row_random(self.options.seed, arm, entry.id, entry.axis)
        if arm != "mismatched":
            vocabulary = self.vocabularies[entry.dataset, entry.axis]
            return " ".join(arm_words(arm, words, vocabulary, self.measure.word, rng))
        label = entry.label if self.options.mismatched == "same_label" else None
        text = other_explanation(
            " ".join(words),
            self.train[entry.dataset, entry.axis, label],
            lambda number: " ".join(self._words_of(number)),
            rng,
        )
        if text is None:
            same = f" with label {label}" if label else ""
            name = self.declaration.task_name(entry.dataset, entry.axis)
            raise self.index.error(
                f"{name} has no train explanation{same} that differs from this one, so the arm "
                "mismatched cannot be made; leave it out with --arms",
                entry,
                "explanation",
            )
        return text

    def _count_leaks(self, rating: Rating) -> None:
        labels = self.declaration.labels
        leaks = find_leaks(rating.explanation, labels)
        self.leaked.update(leak.kind for leak in leaks)
        self.leaked["rows"] += bool(leaks)
        self.leaked["own_label"] += names_label(leaks, rating.label, labels)
        self.leaked["removed"] += bool(leaks) and self.options.leaks == "remove"

    def _count(self, arm: str, text: str) -> None:
        words = text.split()
        tokens = sum(map(self.measure.word, words)) if self.measure.unit == "tokens" else 0
        totals = self.lengths[arm]
        totals[0] += len(words)
        totals[1] = max(totals[1], len(words))
        totals[2] += tokens
        totals[3] = max(totals[3], tokens)

    def _manifest(self, files: dict[str, str]) -> Manifest:
        counts = {str(split): self.index.count(split) for split in SPLITS}
        rows = counts["train"].rows
        by_tokens = self.measure.unit == "tokens"
        return Manifest(
            origin="generated" if self.index.generated else "rated",
            note=_note(self.index),
            seed=self.options.seed,
            at_most={str(part): n for part, n in self.options.conversations.items()} or None,
            order=self.options.order,
            arms=list(self.options.arms),
            mismatched=self.options.mismatched,
            tokenizer=self.options.tokenizer,
            limits=Limits(
                unit="tokens" if by_tokens else "words",
                max_prompt=self.options.max_prompt,
                max_target=self.options.max_target,
            ),
            raters=self.index.raters,
            counts=counts,
            lengths={
                arm: Length(
                    words_mean=round(words / rows, 3),
                    words_max=words_max,
                    tokens_mean=round(tokens / rows, 3) if by_tokens else None,
                    tokens_max=tokens_max if by_tokens else None,
                )
                for arm, (words, words_max, tokens, tokens_max) in self.lengths.items()
            },
            cut=dict(self.cut),
            neutralised=dict(self.neutralised),
            leaks=self.options.leaks,
            leaked=dict(self.leaked),
            source={"file": self.index.source.name, "sha256_of_sorted_rows": self.index.sha256},
            declaration=self.declaration,
            own_splits=_own_splits(self.index),
            stratified=self.index.stratified_for or None,
            explained_by=list(self.options.explained_by) or None,
            files=files,
            versions={"regreason": __version__},
        )


def _own_splits(index: Index) -> OwnSplits | None:
    splits = index.source.splits
    if splits is None:
        return None
    return OwnSplits(
        column=splits.column,
        validation="drawn" if index.validation_drawn else "own",
        spellings={name: str(split) for name, split in sorted(splits.spellings.items())},
        on_overlap=splits.on_overlap,
        dropped={str(split): number for split, number in sorted(splits.overlap.items())},
    )


def _note(index: Index) -> str:
    """A caution for readers of any number computed from this data; may be empty."""
    notes = ["Conversations are generated, not collected."] if index.generated else []
    if any(rater.startswith("rules-") for rater in index.raters):
        notes.append(RULES_NOTE)
    return " ".join(notes)
