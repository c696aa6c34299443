"""`regreason annotate`: make the calls that are left, merge explanations, write the ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from regreason_plugin.annotate.aggregate import aggregate_rows
from regreason_plugin.annotate.answers import cut_words
from regreason_plugin.annotate.asked_again import ONLY_SET_UP, AskedAgain
from regreason_plugin.annotate.call_steps import (
    Watcher,
    ask,
    lane_of,
    open_store_for_calls,
    open_store_to_read,
    preflight,
    spent,
    unproven,
)
from regreason_plugin.annotate.calls import OK, CallKey, conversation_key
from regreason_plugin.annotate.config import AnnotateConfig
from regreason_plugin.annotate.lanes import (
    ANSWER_TOKENS,
    CHARACTERS_A_TOKEN,
    Lane,
    LanePlan,
    count,
    count_ratings,
    estimate,
)
from regreason_plugin.annotate.prompts import (
    MERGE,
    load_merge_prompt,
    load_prompts,
    merge_sha256,
    render_merge,
    text_sha256,
)
from regreason_plugin.annotate.provenance import About, RaterProvenance, write_about
from regreason_plugin.annotate.quality_alarm import by_state
from regreason_plugin.annotate.questions import (
    ModelRater,
    Question,
    distinct,
    explanation_question,
    read_conversations,
    sampling,
)
from regreason_plugin.annotate.raters import Rater, collect
from regreason_plugin.annotate.rules import RULE_RATERS
from regreason_plugin.annotate.scores import usable_ratings
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256, write_records
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.records import Merged, Rated, Rating
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import pending, together


@dataclass
class Finished:
    """The result of an annotation.

    Attributes:
        ratings: Number of ratings written; 0 if the budget ended the run.
        unaffordable: Number of calls that the budget did not allow.
        dropped: Number of conversations x axes without a label, by reason.
        rated: Number of conversations x axes that were rated, by dataset.
        answers: Number of all scores of this config, in this run and before, by rater, prompt and
            state.
        cost: Cost of all calls in the store, in the prices' currency; None without prices.
        written: Paths of the files written.
        waiting: One line for each batch that has no answers yet; the ratings are not written then.
    """

    ratings: int = 0
    unaffordable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rated: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    cost: float | None = None
    written: list[Path] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    @property
    def calls(self) -> Counter[str]:
        """Number of all scores of this config by state."""
        states: Counter[str] = Counter()
        for (_, _, state), number in self.answers.items():
            states[state] += number
        return states

    def by_prompt(self) -> dict[str, dict[str, dict[str, int]]]:
        """`answers` as nested mappings, sorted by rater, prompt and state."""
        nested: dict[str, dict[str, dict[str, int]]] = {}
        for (rater, prompt, state), number in sorted(self.answers.items()):
            nested.setdefault(rater, {}).setdefault(prompt, {})[state] = number
        return nested


def annotate(
    config: AnnotateConfig,
    watcher: Watcher,
    *,
    again: AskedAgain = ONLY_SET_UP,
    budget: float | None = None,
) -> Finished:
    """Rate every conversation on every axis and write the ratings, whole or not at all.

    Every answer is in the store as soon as it arrives, and no answered call is made again. The run
    may therefore be stopped at any time, in any way, and run again.

    Args:
        config: The conversations, the raters and the output.
        watcher: Shows the progress.
        again: The failed calls of earlier runs to make again.
        budget: Make no call that could raise the cost of the whole store above this amount.

    Raises:
        UserError: A conversation, a prompt or a key is wrong, all calls to a server fail, or the
            quality alarm rings.
    """
    if not config.servers:
        return Annotation(config, None).write(watcher)
    with open_store_for_calls(config.store_path, config.servers, budget) as store:
        annotation = Annotation(config, store, again)
        unaffordable = annotation.ask(watcher, budget)
        if unaffordable:
            return Finished(unaffordable=unaffordable, cost=spent(store, config.servers))
        return annotation.write(watcher)


def check(
    config: AnnotateConfig,
    watcher: Watcher,
    *,
    again: AskedAgain = ONLY_SET_UP,
    budget: float | None = None,
) -> None:
    """Ask each rater behind a server its first question, and show the answers.

    Args:
        config: The conversations and the raters.
        watcher: Shows the answers.
        again: The failed calls of earlier runs to make again.
        budget: Make no call that could raise the cost of the whole store above this amount.

    Raises:
        UserError: See `annotate`; also if a server cannot be reached or refuses the request.
    """
    if not config.servers:
        return
    with open_store_for_calls(config.store_path, config.servers, budget) as store:
        lanes = Annotation(config, store, again).counted_lanes()
        preflight(store, lanes, watcher, budget)


def dry_run(config: AnnotateConfig, *, again: AskedAgain = ONLY_SET_UP) -> list[LanePlan]:
    """Estimate the calls that `annotate` would make, without making any.

    Returns:
        One plan per rater behind a server, and one for merging explanations.

    Raises:
        UserError: A conversation or a prompt is wrong.
    """
    if not config.servers:
        return []
    with open_store_to_read(config.store_path, config.servers) as store:
        annotation = Annotation(config, store, again)
        plans = estimate(store, annotation.lanes())
        return [*plans, merging] if (merging := annotation.merge_plan()) else plans


class Annotation:
    """The annotation that a config describes: its questions, calls and ratings.

    Args:
        config: The conversations, the raters and the output.
        store: The store of answers; None if all raters are rules.
        again: The failed calls of earlier runs to make again.

    Raises:
        UserError: A prompt is missing or wrong.
    """

    def __init__(
        self, config: AnnotateConfig, store: Store | None, again: AskedAgain = ONLY_SET_UP
    ) -> None:
        self._again = again
        self._config = config
        self._store = store
        rules = {rater.name: rater for rater in RULE_RATERS}
        self._raters = [
            ModelRater(rater, load_prompts(rater.prompts, config.prompts), self._answers)
            if isinstance(rater, ServerRater)
            else rules[rater]
            for rater in config.raters
        ]
        self._asked = [rater for rater in self._raters if isinstance(rater, ModelRater)]
        merge = config.merge
        self._merger = next((s for s in config.servers if merge and s.name == merge.rater), None)
        self._template = load_merge_prompt(config.prompts) if merge else ""

    @property
    def _answers(self) -> Store:
        assert self._store is not None
        return self._store

    def lanes(self) -> list[Lane]:
        """One lane per rater behind a server."""
        return [self._lane(rater.config, partial(self._questions, rater)) for rater in self._asked]

    def counted_lanes(self) -> list[Lane]:
        """One lane per rater behind a server, with the numbers of calls in their tallies."""
        lanes = self.lanes()
        conversations = read_conversations(self._config.conversations)
        count_ratings(self._answers, self._asked, lanes, conversations)
        return lanes

    def merge_questions(self) -> Iterator[list[Question]]:
        """The questions for the merging rater; the ratings have to be in the store."""
        questions = map(self._merge_question, self._collected())
        return distinct([question] for question in questions if question is not None)

    def merge_lane(self) -> Lane | None:
        """The merging rater's lane; None without merging."""
        return self._lane(self._merger, self.merge_questions) if self._merger else None

    def makes(self, key: CallKey) -> bool:
        """Whether the config makes a call with this key, about whatever conversation."""
        merger = self._merger
        if merger and key.prompt == MERGE:
            return (key.rater, key.model, key.sampling) == (
                merger.name,
                merger.model,
                sampling(merger),
            )
        return any(rater.makes(key) for rater in self._asked)

    def merge_plan(self) -> LanePlan | None:
        """An estimate for merging; None without it. The explanations have the mean length."""
        merge, merging = self._config.merge, self.merge_lane()
        if merge is None or merging is None:
            return None
        rater = merging.rater
        count(self._answers, [merging])
        conversations = read_conversations(self._config.conversations)
        different = {conversation_key(one): one for one in conversations}
        characters = sum(
            len(render_merge(self._template, one, axis, [], merge.max_words))
            for one in different.values()
            for axis in AXES
        )
        plan = LanePlan(f"{rater.name}, merging", len(different) * len(AXES))
        plan.done = merging.tally.before
        plan.left = plan.total - plan.done
        mean = self._answers.mean_answer(rater.name) or ANSWER_TOKENS
        prompt = characters / CHARACTERS_A_TOKEN + plan.total * self._config.scores_asked * mean
        plan.prompt_tokens = round(prompt * plan.left / plan.total)
        plan.answer_tokens = round(plan.left * mean)
        if rater.price:
            plan.cost = rater.price.of(plan.prompt_tokens, plan.answer_tokens)
        return plan

    def ask(self, watcher: Watcher, budget: float | None) -> int:
        """Make the calls that are left; return the number that the budget did not allow."""
        lanes = self.counted_lanes()
        preflight(self._answers, unproven(lanes), watcher, budget)
        unaffordable = ask(self._answers, lanes, watcher, "Rating", budget)
        merging = self.merge_lane()
        if merging is None or unaffordable:
            return unaffordable
        count(self._answers, [merging])
        return ask(self._answers, [merging], watcher, "Merging explanations", budget)

    def _lane(self, rater: ServerRater, questions: Callable[[], Iterator[list[Question]]]) -> Lane:
        return lane_of(self._answers, rater, questions, self._again, self._config.alarm)

    def write(self, watcher: Watcher) -> Finished:
        """Write the ratings, and their provenance in a file beside them."""
        config = self._config
        finished = Finished(cost=spent(self._store, config.servers) if self._store else None)
        notes: Counter[str] = Counter()

        def rows() -> Iterator[Rated]:
            # Some aggregators read the rows twice; the counts are those of the last reading.
            for counts in (finished.answers, notes, finished.rated):
                counts.clear()
            for row in self._collected():
                finished.answers.update(
                    (one.rater, one.prompt, one.error or OK) for one in row.ratings
                )
                finished.rated[row.dataset] += 1
                yield self._with_merged(row, notes)

        ratings = aggregate_rows(rows, config.aggregate, config.scores_needed, finished.dropped)
        first = next(ratings, None)
        if first is None:
            raise UserError(
                "no conversation has enough usable scores for a label: "
                f"{by_state(finished.calls) or 'no scores'}"
            )
        with watcher.writing() as written:
            counted = _counting(chain([first], ratings), written)
            with together():
                finished.ratings = write_records(config.out, counted)
                about = self._about(finished, notes)
                finished.written = [config.out, write_about(config.out, about)]
        return finished

    def _collected(self) -> Iterator[Rated]:
        return collect(read_conversations(self._config.conversations), self._raters)

    def _questions(self, rater: ModelRater) -> Iterator[list[Question]]:
        return distinct(map(rater.questions, read_conversations(self._config.conversations)))

    def _merge_question(self, row: Rated) -> Question | None:
        """None if the config merges nothing, or if the row has too few scores for a label."""
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
        if mended := sum(self._answers.mended(server.name) for server in config.servers):
            notes["answers whose JSON was mended"] = mended
        return About(
            ratings_sha256=file_sha256(pending(config.out)),
            raters=[self._about_rater(rater) for rater in self._raters],
            merged_by=self._about_server(merger, {MERGE: text_sha256(self._template)})
            if merger
            else None,
            aggregator=config.aggregate,
            minimum=config.scores_needed,
            conversations={
                name: number // len(AXES) for name, number in sorted(finished.rated.items())
            },
            calls=dict(sorted(finished.calls.items())),
            answers=finished.by_prompt(),
            dropped=dict(sorted(finished.dropped.items())),
            notes=dict(sorted(notes.items())),
            tokens={
                "prompt": sum(total[1] for total in totals),
                "answer": sum(total[2] for total in totals),
            },
            cost=finished.cost,
            versions={"regreason": __version__},
        )

    def _about_rater(self, rater: Rater) -> RaterProvenance:
        if not isinstance(rater, ModelRater):
            prompts = {one.name: "rules" for one in rater.prompts}
            return RaterProvenance(name=rater.name, prompts=prompts)
        prompts = {f"{style}/{axis}": one.sha256 for (style, axis), one in rater.asking.items()}
        return self._about_server(rater.config, prompts)

    def _about_server(self, config: ServerRater, prompts: dict[str, str]) -> RaterProvenance:
        served, days = self._answers.origins(config.name, config.model, sampling(config))
        return RaterProvenance(
            name=config.name,
            model=config.model,
            sampling={**config.request_options(), "structured": config.structured},
            prompts=prompts,
            served=dict(sorted(served.items())),
            days=dict(sorted(days.items())),
        )


def _counting(ratings: Iterable[Rating], on_rating: Callable[[], object]) -> Iterator[Rating]:
    for rating in ratings:
        on_rating()
        yield rating
