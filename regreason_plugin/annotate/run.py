"""`regreason annotate`: ask what is left, merge the explanations, write the ratings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from regreason_plugin.annotate.aggregate import aggregate_rows
from regreason_plugin.annotate.config import AnnotateConfig, MergeConfig, ServerRater
from regreason_plugin.annotate.cost_estimate import LanePlan, count, count_ratings, estimate
from regreason_plugin.annotate.ensemble import collect
from regreason_plugin.annotate.lanes import Lane, Tally
from regreason_plugin.annotate.prompts import MERGE, load_merge_prompt
from regreason_plugin.annotate.provenance import About, AboutRater, write_about
from regreason_plugin.annotate.questions import (
    AskedRater,
    Question,
    asked_rater,
    distinct,
    merge_question,
    read_conversations,
)
from regreason_plugin.annotate.raters import Rater
from regreason_plugin.annotate.rules import RULE_RATERS
from regreason_plugin.annotate.scores import usable_ratings
from regreason_plugin.annotate.store import OK, Outcome, Store
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256, write_records
from regreason_plugin.core.records import Merged, Rated, Rating
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import pending, together

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)")


class Watcher(Protocol):
    """Who is told of the work as it goes."""

    def asking(self, what: str, tallies: Sequence[Tally]) -> AbstractContextManager[None]:
        """Entered while raters are asked; their tallies change meanwhile."""

    def writing(self) -> AbstractContextManager[Callable[[], object]]:
        """Entered while ratings are written; what it yields is called for every one."""


@dataclass
class Finished:
    """What an annotation came to.

    Attributes:
        ratings: How many were written; none where the budget ended it.
        unaffordable: Calls that the budget did not allow.
        dropped: Conversations x axes without a label, by reason.
        calls: All calls of this config by outcome, in this run or before.
        cost: Of all calls in the store; none without prices.
        written: The files.
    """

    ratings: int = 0
    unaffordable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    cost: float | None = None
    written: list[Path] = field(default_factory=list)


def annotate(
    config: AnnotateConfig, watcher: Watcher, *, retry: bool = False, budget: float | None = None
) -> Finished:
    """Rate every conversation on every axis and write the ratings, whole or not at all.

    What was asked before is not asked again, and what is paid for is in the store at once, so
    this may be stopped in any way at any time and run again.

    Args:
        config: What to rate and by whom.
        watcher: Told of the work as it goes.
        retry: Ask again what failed in an earlier run.
        budget: Make no call that could bring the cost of the whole store above it.

    Raises:
        UserError: A conversation, a prompt or a key is wrong, or a server does nothing but fail.
    """
    check_budget(config.servers, budget)
    if not config.servers:
        return AnnotationRun(config, watcher, None).write()
    check_installed()
    with Store(config.store_path) as store:
        # Also where nothing is left to ask, for the files of killed processes.
        store.take_over()
        run = AnnotationRun(config, watcher, store)
        return run.ask(retry, budget) or run.write()


def dry_run(config: AnnotateConfig, *, retry: bool = False) -> list[LanePlan]:
    """What `annotate` would ask, without asking; merging is not in it, as it needs the answers.

    Raises:
        UserError: A conversation or a prompt is wrong.
    """
    if not config.servers:
        return []
    with TemporaryDirectory() as scratch:
        # A question leaves nothing behind.
        there = config.store_path.is_file()
        with Store(config.store_path if there else Path(scratch) / "none.db") as store:
            return estimate(store, AnnotationRun(config, None, store).lanes(), retry=retry)


def check_installed() -> None:
    """Refuse to start without the packages that a client needs.

    Raises:
        UserError: One is missing.
    """
    for package in ("openai", "tenacity", "aiohttp"):
        if find_spec(package) is None:
            raise UserError(
                f"asking language models needs the package {package}: "
                "pip install 'regreason[annotate]'"
            )


def check_budget(raters: Iterable[ServerRater], budget: float | None) -> None:
    """Refuse a budget where a price is unknown.

    Raises:
        UserError: So it is.
    """
    for rater in raters if budget is not None else ():
        if rater.price is None:
            raise UserError(f"--budget needs the price of rater {rater.name!r}", field="price")


def ask(
    store: Store, lanes: list[Lane], watcher: Watcher, what: str, retry: bool, budget: float | None
) -> int:
    """Make the calls that are left, shown under the name of what is done.

    Returns:
        How many calls the budget did not allow.

    Raises:
        UserError: As `annotate`.
    """
    if not any(lane.tally.left for lane in lanes):
        return 0
    # Here, because rules need no client.
    from regreason_plugin.annotate.ask import ask_all

    with watcher.asking(what, [lane.tally for lane in lanes]):
        return ask_all(store, lanes, retry=retry, budget=budget)


def spent(store: Store, raters: Iterable[ServerRater]) -> float | None:
    """What all calls in the store have cost; None where no rater has a price."""
    # Rounded: a sum of floats depends on the order in which the answers came.
    return round(store.spent(), 6) if any(rater.price for rater in raters) else None


class AnnotationRun:
    """What one run of `regreason annotate` asks, and what it makes of the answers."""

    def __init__(
        self, config: AnnotateConfig, watcher: Watcher | None, store: Store | None
    ) -> None:
        self._config = config
        self._watcher = watcher
        self._store = store
        rules = {rater.name: rater for rater in RULE_RATERS}
        self._raters: list[Rater] = []
        for rater in config.raters:
            if isinstance(rater, ServerRater):
                assert store is not None
                self._raters.append(asked_rater(rater, config.prompts, store))
            else:
                self._raters.append(rules[rater])
        self._template = load_merge_prompt(config.prompts) if config.merge else ""

    def asked(self) -> list[AskedRater]:
        """The raters behind a server."""
        return [rater for rater in self._raters if isinstance(rater, AskedRater)]

    def lanes(self) -> list[Lane]:
        """One for each of them."""
        return [
            Lane(rater.config, partial(self._questions, rater), tally(rater.config))
            for rater in self.asked()
        ]

    def counted_lanes(self, retry: bool) -> list[Lane]:
        """The same, with how much there is to do in their tallies."""
        assert self._store is not None
        lanes = self.lanes()
        count_ratings(
            self._store,
            self.asked(),
            [lane.tally for lane in lanes],
            read_conversations(self._config.conversations),
            retry=retry,
        )
        return lanes

    def ask(self, retry: bool, budget: float | None) -> Finished | None:
        """Make the calls that are left; something is returned if the budget ended it."""
        assert self._store is not None
        unaffordable = self._ask("Rating", self.counted_lanes(retry), retry, budget)
        merger = self._merger()
        if merger and not unaffordable:
            lane = Lane(merger, self.merge_questions, tally(merger))
            count(self._store, [lane], retry=retry)
            unaffordable = self._ask("Merging explanations", [lane], retry, budget)
        return Finished(unaffordable=unaffordable, cost=self._cost()) if unaffordable else None

    def _ask(self, what: str, lanes: list[Lane], retry: bool, budget: float | None) -> int:
        assert self._store is not None
        assert self._watcher is not None
        return ask(self._store, lanes, self._watcher, what, retry, budget)

    def write(self) -> Finished:
        """Write the ratings, and beside them what is said of them."""
        config = self._config
        finished = Finished(cost=self._cost())
        notes: Counter[str] = Counter()
        conversations: Counter[str] = Counter()

        def rows() -> Iterator[Rated]:
            # Read anew as often as the aggregator needs them; counted in the last reading.
            for counts in (finished.calls, notes, conversations):
                counts.clear()
            for rated in self._rated(notes):
                finished.calls.update(one.error or OK for one in rated.ratings)
                conversations[rated.dataset] += 1
                yield rated

        ratings = aggregate_rows(rows, config.aggregate, config.scores_needed, finished.dropped)
        first = next(ratings, None)
        if first is None:
            raise UserError(f"no conversation has a label: {_counted(finished.calls)}")
        assert self._watcher is not None
        with self._watcher.writing() as written:
            counted = _counting(chain([first], ratings), written)
            with together():
                finished.ratings = write_records(config.out, counted)
                about = self._about(finished, notes, conversations)
                finished.written = [config.out, write_about(config.out, about)]
        return finished

    def _rated(self, notes: Counter[str]) -> Iterator[Rated]:
        for rated in collect(read_conversations(self._config.conversations), self._raters):
            question = self._merge_question(rated)
            if question is None:
                yield rated
                continue
            assert self._store is not None
            assert self._config.merge is not None
            outcome = self._store.outcomes([question.key]).get(question.key)
            yield rated.model_copy(update={"merged": _merged(self._config.merge, outcome, notes)})

    def _questions(self, rater: AskedRater) -> Iterator[list[Question]]:
        return distinct(map(rater.questions, read_conversations(self._config.conversations)))

    def merge_questions(self) -> Iterator[list[Question]]:
        """Those that merge several explanations into one, each once."""
        return distinct(self._all_merge_questions())

    def _all_merge_questions(self) -> Iterator[list[Question]]:
        for rated in collect(read_conversations(self._config.conversations), self._raters):
            question = self._merge_question(rated)
            if question is not None:
                yield [question]

    def _merge_question(self, rated: Rated) -> Question | None:
        """None where nothing is merged, or where there will be no label anyway."""
        merger = self._merger()
        usable = usable_ratings(rated.ratings)
        if merger is None or len(usable) < self._config.scores_needed:
            return None
        assert self._config.merge is not None
        explanations = [one.explanation for one in usable]
        words = self._config.merge.max_words
        return merge_question(merger, self._template, words, rated, rated.axis, explanations)

    def _merger(self) -> ServerRater | None:
        merge = self._config.merge
        return next((s for s in self._config.servers if merge and s.name == merge.rater), None)

    def _cost(self) -> float | None:
        return spent(self._store, self._config.servers) if self._store else None

    def _about(self, finished: Finished, notes: Counter[str], conversations: Counter[str]) -> About:
        config = self._config
        merger = self._merger()
        totals = [self._store.totals(server.name) for server in config.servers if self._store]
        from regreason_plugin.core.paper import AXES

        return About(
            ratings_sha256=file_sha256(pending(config.out)),
            raters=[_about_rater(rater) for rater in self._raters],
            merged_by=_about_merger(merger, self._template) if merger else None,
            aggregator=config.aggregate,
            minimum=config.scores_needed,
            conversations={
                name: number // len(AXES) for name, number in sorted(conversations.items())
            },
            calls=dict(sorted(finished.calls.items())),
            dropped=dict(sorted(finished.dropped.items())),
            notes=dict(sorted(notes.items())),
            tokens={
                "prompt": sum(total[1] for total in totals),
                "answer": sum(total[2] for total in totals),
            },
            cost=finished.cost,
            versions={"regreason": __version__},
        )


def _counting(ratings: Iterable[Rating], on_rating: Callable[[], object]) -> Iterator[Rating]:
    for rating in ratings:
        on_rating()
        yield rating


def tally(rater: ServerRater) -> Tally:
    """A rater's, with nothing counted yet."""
    return Tally(rater.name, rater.model, priced=rater.price is not None)


def _merged(merge: MergeConfig, outcome: Outcome | None, notes: Counter[str]) -> Merged:
    if outcome is None or outcome.state != OK or outcome.explanation is None:
        notes["explanations that could not be merged"] += 1
        return Merged(rater=merge.rater, error=outcome.state if outcome else "not_asked")
    text, was_cut = cut_words(outcome.explanation, merge.max_words)
    notes["merged explanations"] += 1
    notes["merged explanations cut to their limit"] += was_cut
    return Merged(rater=merge.rater, explanation=text)


def cut_words(text: str, limit: int) -> tuple[str, bool]:
    """Cut a text after so many words: behind its last whole sentence, or between words.

    Returns:
        The text, and whether it was cut.
    """
    words = text.split()
    if len(words) <= limit:
        return text, False
    head = " ".join(words[:limit])
    ends = [match.end() for match in _SENTENCE_END.finditer(head + " ")]
    return (head[: ends[-1]] if ends else head), True


def _about_rater(rater: Rater) -> AboutRater:
    if not isinstance(rater, AskedRater):
        return AboutRater(name=rater.name, prompts={one.name: "rules" for one in rater.prompts})
    prompts = {f"{style}/{axis}": one.sha256 for (style, axis), one in rater.asking.items()}
    config = rater.config
    return AboutRater(
        name=config.name, model=config.model, sampling=_sampling(config), prompts=prompts
    )


def _about_merger(merger: ServerRater, template: str) -> AboutRater:
    from regreason_plugin.annotate.prompts import text_sha256

    return AboutRater(
        name=merger.name,
        model=merger.model,
        sampling=_sampling(merger),
        prompts={MERGE: text_sha256(template)},
    )


def _sampling(config: ServerRater) -> dict[str, float | int | str]:
    return {**config.request_options(), "structured": config.structured}


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "no scores"
