"""`regreason annotate`: ask what is left, merge the explanations, write the ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from regreason_plugin.annotate.aggregate import aggregate_rows
from regreason_plugin.annotate.answers import cut_words
from regreason_plugin.annotate.config import AnnotateConfig, ServerRater
from regreason_plugin.annotate.lanes import Lane, LanePlan, Tally, count, count_ratings, estimate
from regreason_plugin.annotate.prompts import (
    MERGE,
    load_merge_prompt,
    load_prompts,
    merge_sha256,
    render_merge,
    text_sha256,
)
from regreason_plugin.annotate.provenance import About, AboutRater, write_about
from regreason_plugin.annotate.questions import (
    AskedRater,
    Question,
    distinct,
    explanation_question,
    read_conversations,
)
from regreason_plugin.annotate.raters import Rater, collect
from regreason_plugin.annotate.rules import RULE_RATERS
from regreason_plugin.annotate.scores import usable_ratings
from regreason_plugin.annotate.store import OK, Store
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256, write_records
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.records import Merged, Rated, Rating
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import pending, together


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
        rated: Conversations x axes that were rated, by dataset.
        calls: All calls of this config by outcome, in this run or before.
        cost: Of all calls in the store; none without prices.
        written: The files.
    """

    ratings: int = 0
    unaffordable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rated: Counter[str] = field(default_factory=Counter)
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
    if not config.servers:
        return Annotation(config, None).write(watcher)
    with store_to_ask_for(config.store_path, config.servers, budget) as store:
        annotation = Annotation(config, store)
        unaffordable = annotation.ask(watcher, retry, budget)
        if unaffordable:
            return Finished(unaffordable=unaffordable, cost=spent(store, config.servers))
        return annotation.write(watcher)


def dry_run(config: AnnotateConfig, *, retry: bool = False) -> list[LanePlan]:
    """What `annotate` would ask, without asking; merging is not in it, as it needs the answers.

    Raises:
        UserError: A conversation or a prompt is wrong.
    """
    if not config.servers:
        return []
    with store_to_read(config.store_path) as store:
        return estimate(store, Annotation(config, store).lanes(), retry=retry)


@contextmanager
def store_to_ask_for(
    path: Path, raters: Iterable[ServerRater], budget: float | None
) -> Iterator[Store]:
    """The store, once nothing stands against asking.

    Raises:
        UserError: A budget is set and a price is unknown, or a package is missing.
    """
    for rater in raters if budget is not None else ():
        if rater.price is None:
            raise UserError(f"--budget needs the price of rater {rater.name!r}", field="price")
    for package in ("openai", "tenacity", "aiohttp"):
        if find_spec(package) is None:
            raise UserError(
                f"asking language models needs the package {package}: "
                "pip install 'regreason[annotate]'"
            )
    with Store(path) as store:
        # Also where nothing is left to ask, for the files of killed processes.
        store.take_over()
        yield store


@contextmanager
def store_to_read(path: Path) -> Iterator[Store]:
    """The store, or an empty one elsewhere where there is none: nothing is left behind."""
    with (
        TemporaryDirectory() as scratch,
        Store(path if path.is_file() else Path(scratch) / "none.db") as store,
    ):
        yield store


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


class Annotation:
    """The work of one config: its questions, and the ratings out of their answers.

    Args:
        config: What to rate and by whom.
        store: Where the answers are; none where all raters are rules.

    Raises:
        UserError: A prompt is missing or wrong.
    """

    def __init__(self, config: AnnotateConfig, store: Store | None) -> None:
        self._config = config
        self._store = store
        rules = {rater.name: rater for rater in RULE_RATERS}
        self._raters = [
            AskedRater(rater, load_prompts(rater.prompts, config.prompts), self._answers)
            if isinstance(rater, ServerRater)
            else rules[rater]
            for rater in config.raters
        ]
        self._asked = [rater for rater in self._raters if isinstance(rater, AskedRater)]
        merge = config.merge
        self._merger = next((s for s in config.servers if merge and s.name == merge.rater), None)
        self._template = load_merge_prompt(config.prompts) if merge else ""

    @property
    def _answers(self) -> Store:
        assert self._store is not None
        return self._store

    def lanes(self) -> list[Lane]:
        """One for each rater behind a server."""
        return [Lane(rater.config, partial(self._questions, rater)) for rater in self._asked]

    def counted_lanes(self, retry: bool) -> list[Lane]:
        """The same, with how much there is to do in their tallies."""
        lanes = self.lanes()
        tallies = [lane.tally for lane in lanes]
        conversations = read_conversations(self._config.conversations)
        count_ratings(self._answers, self._asked, tallies, conversations, retry=retry)
        return lanes

    def merge_questions(self) -> Iterator[list[Question]]:
        """What the merging rater is asked, once the ratings are there."""
        questions = map(self._merge_question, self._collected())
        return distinct([question] for question in questions if question is not None)

    def ask(self, watcher: Watcher, retry: bool, budget: float | None) -> int:
        """Make the calls that are left; returns how many the budget did not allow."""
        lanes = self.counted_lanes(retry)
        unaffordable = ask(self._answers, lanes, watcher, "Rating", retry, budget)
        if self._merger is None or unaffordable:
            return unaffordable
        lane = Lane(self._merger, self.merge_questions)
        count(self._answers, [lane], retry=retry)
        return ask(self._answers, [lane], watcher, "Merging explanations", retry, budget)

    def write(self, watcher: Watcher) -> Finished:
        """Write the ratings, and beside them what is said of them."""
        config = self._config
        finished = Finished(cost=spent(self._store, config.servers) if self._store else None)
        notes: Counter[str] = Counter()

        def rows() -> Iterator[Rated]:
            # Read anew as often as the aggregator needs them; counted in the last reading.
            for counts in (finished.calls, notes, finished.rated):
                counts.clear()
            for row in self._collected():
                finished.calls.update(one.error or OK for one in row.ratings)
                finished.rated[row.dataset] += 1
                yield self._with_merged(row, notes)

        ratings = aggregate_rows(rows, config.aggregate, config.scores_needed, finished.dropped)
        first = next(ratings, None)
        if first is None:
            raise UserError(f"no conversation has a label: {_counted(finished.calls)}")
        with watcher.writing() as written:
            counted = _counting(chain([first], ratings), written)
            with together():
                finished.ratings = write_records(config.out, counted)
                about = self._about(finished, notes)
                finished.written = [config.out, write_about(config.out, about)]
        return finished

    def _collected(self) -> Iterator[Rated]:
        return collect(read_conversations(self._config.conversations), self._raters)

    def _questions(self, rater: AskedRater) -> Iterator[list[Question]]:
        return distinct(map(rater.questions, read_conversations(self._config.conversations)))

    def _merge_question(self, row: Rated) -> Question | None:
        """None where nothing is merged, or where there will be no label anyway."""
        merge, usable = self._config.merge, usable_ratings(row.ratings)
        if merge is None or self._merger is None or len(usable) < self._config.scores_needed:
            return None
        explanations = [one.explanation for one in usable]
        return explanation_question(
            self._merger,
            row,
            row.axis,
            MERGE,
            merge_sha256(self._template, explanations, merge.max_words),
            lambda: render_merge(self._template, row, row.axis, explanations, merge.max_words),
        )

    def _with_merged(self, row: Rated, notes: Counter[str]) -> Rated:
        question, merge = self._merge_question(row), self._config.merge
        if question is None or merge is None:
            return row
        outcome = self._answers.outcomes([question.key]).get(question.key)
        if outcome is None or outcome.state != OK or outcome.explanation is None:
            notes["explanations that could not be merged"] += 1
            merged = Merged(rater=merge.rater, error=outcome.state if outcome else "not_asked")
        else:
            text, was_cut = cut_words(outcome.explanation, merge.max_words)
            notes["merged explanations"] += 1
            notes["merged explanations cut to their limit"] += was_cut
            merged = Merged(rater=merge.rater, explanation=text)
        return row.model_copy(update={"merged": merged})

    def _about(self, finished: Finished, notes: Counter[str]) -> About:
        config, merger = self._config, self._merger
        totals = [self._answers.totals(server.name) for server in config.servers]
        return About(
            ratings_sha256=file_sha256(pending(config.out)),
            raters=[_about_rater(rater) for rater in self._raters],
            merged_by=_about_server(merger, {MERGE: text_sha256(self._template)})
            if merger
            else None,
            aggregator=config.aggregate,
            minimum=config.scores_needed,
            conversations={
                name: number // len(AXES) for name, number in sorted(finished.rated.items())
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


def _about_rater(rater: Rater) -> AboutRater:
    if not isinstance(rater, AskedRater):
        return AboutRater(name=rater.name, prompts={one.name: "rules" for one in rater.prompts})
    prompts = {f"{style}/{axis}": one.sha256 for (style, axis), one in rater.asking.items()}
    return _about_server(rater.config, prompts)


def _about_server(config: ServerRater, prompts: dict[str, str]) -> AboutRater:
    sampling: dict[str, float | int | str] = {
        **config.request_options(),
        "structured": config.structured,
    }
    return AboutRater(name=config.name, model=config.model, sampling=sampling, prompts=prompts)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "no scores"
