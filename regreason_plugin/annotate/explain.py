"""Explanations for the rows of a labelled table, written by language models for the given label.

The questions, the store and the loop are those of `regreason annotate`; only the prompt differs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from regreason_plugin.annotate.answers import cut_words
from regreason_plugin.annotate.config import ExplainConfig, ServerRater
from regreason_plugin.annotate.label_leaks import find_leaks, names_label
from regreason_plugin.annotate.lanes import Lane, LanePlan, count, estimate
from regreason_plugin.annotate.prompts import (
    EXPLAIN,
    explain_sha256,
    load_explain_prompt,
    render_explain,
)
from regreason_plugin.annotate.questions import Question, explanation_question
from regreason_plugin.annotate.run import Watcher, ask, spent, store_to_ask_for, store_to_read
from regreason_plugin.annotate.store import OK, Outcome, Store
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.records import Conversation
from regreason_plugin.core.task_file import AXIS, Task
from regreason_plugin.core.whole_files import atomic_writer, check_not_input
from regreason_plugin.core.yaml_file import dump_yaml
from regreason_plugin.data.labelled_table import TableRow, read_labelled


@dataclass
class Explained:
    """What came of it.

    Attributes:
        rows: How many were written; none where the budget ended it.
        given: Rows whose explanation stood in the table already, and stays.
        by: Rows explained now or before, by the rater whose explanation was taken.
        failed: Rows without an explanation, by what went wrong with the last rater.
        cut: Explanations cut to the longest that was asked for.
        leaking: Explanations that name a label.
        own_label: Of those, the ones that name their row's.
        unaffordable: Calls that the budget did not allow.
        cost: Of all calls in the store; none without prices.
    """

    rows: int = 0
    given: int = 0
    by: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    leaking: int = 0
    own_label: int = 0
    unaffordable: int = 0
    cost: float | None = None


def explain(
    task: Task,
    config: ExplainConfig,
    out: Path,
    watcher: Watcher,
    *,
    retry: bool = False,
    budget: float | None = None,
) -> Explained:
    """Ask why each row has its label, and write the rows with their explanations.

    It may be stopped in any way at any time and run again: nothing that was answered is asked
    again, and the file appears whole or not at all. The raters are asked one after the other,
    each only for rows that all before it have failed on. A row that none could explain is
    written without an explanation.

    Args:
        task: As `task_file.read_task` gives it. Rows with an explanation keep theirs.
        config: Who is asked.
        out: A ``.jsonl`` file, with the columns id, group, text, label and explanation.
        watcher: Told of the work as it goes.
        retry: Ask again what failed in an earlier run.
        budget: Make no call that could bring the cost of the whole store above it.

    Raises:
        UserError: The table, the prompt or a key is wrong, a server does nothing but fail, or
            no row could be explained.
    """
    with store_to_ask_for(config.store_path(out), config.raters, budget) as store:
        explaining = _Explaining(task, config, store)
        unaffordable = explaining.ask(watcher, retry, budget)
        if unaffordable:
            return Explained(unaffordable=unaffordable, cost=spent(store, config.raters))
        return explaining.write(out, watcher)


def dry_run(task: Task, config: ExplainConfig, out: Path, *, retry: bool = False) -> list[LanePlan]:
    """What `explain` would ask, without asking.

    A rater after the first is counted for the rows that the ones before it have failed on so far.

    Raises:
        UserError: The table or the prompt is wrong.
    """
    with store_to_read(config.store_path(out)) as store:
        return estimate(store, _Explaining(task, config, store).lanes(), retry=retry)


def check_files(task: Task, task_file: Path, out: Path, task_out: Path | None) -> None:
    """Refuse to write over what is read, or what could not be read back.

    Args:
        task: The task.
        task_file: Where it stands.
        out: The table to be written.
        task_out: The task to be written, if one is.

    Raises:
        UserError: So it would be.
    """
    if out.suffix != ".jsonl":
        raise UserError("holds an object a line; name it .jsonl", path=out)
    table = task.data.path
    if table and table.exists() and out.exists() and table.samefile(out):
        raise UserError(
            "is the table that the task reads; name another file, or the task.yml of the table "
            "as it was before",
            path=out,
        )
    check_not_input(out, [task_file])
    if task_out is None:
        return
    if task_out.suffix not in {".yml", ".yaml"}:
        raise UserError("is to be a task; name it .yml", path=task_out)
    check_not_input(task_out, [task_file, table], "--task-out")


def authors(task: Task, config: ExplainConfig, done: Explained) -> tuple[str, ...]:
    """Who wrote explanations of the table that came of it, by name and model."""
    names = [f"{rater.name} ({rater.model})" for rater in config.raters if done.by[rater.name]]
    return tuple(dict.fromkeys([*task.explained_by, *names]))


def changes(task: Task, out: Path, there: Path, by: tuple[str, ...]) -> dict[str, Any]:
    """The keys of a ``task.yml`` that differ once it reads the table with explanations.

    Args:
        task: The task.
        out: That table.
        there: The folder of the ``task.yml``, from where its path is seen.
        by: From `authors`.
    """
    path = Path(os.path.relpath(out.resolve(), there.resolve())).as_posix()
    names = ("text", "label", "explanation", "id", "group")
    changed: dict[str, Any] = {
        "data": {"path": path},
        "columns": {name: name for name in names},
        "explained_by": list(by),
    }
    return {**changed, "values": {}} if task.values else changed  # labels stand there by now


def write_task(task: Task, out: Path, task_out: Path, by: tuple[str, ...]) -> None:
    """Write the task that reads the table with explanations, whole or not at all."""
    keys = {**task.model_dump(mode="json"), **changes(task, out, task_out.parent, by)}
    head = f"# As the task.yml that it comes from, with the explanations of {out.name}.\n"
    with atomic_writer(task_out) as stream:
        stream.write((head + dump_yaml(keys)).encode("utf-8"))


class _Explaining:
    def __init__(self, task: Task, config: ExplainConfig, store: Store) -> None:
        self._task = task
        self._config = config
        self._store = store
        self._declaration = task.declaration
        self._template = load_explain_prompt(config.prompts)

    def lanes(self) -> list[Lane]:
        """One a rater, in their order."""
        return [
            Lane(rater, partial(self._questions, number))
            for number, rater in enumerate(self._config.raters)
        ]

    def ask(self, watcher: Watcher, retry: bool, budget: float | None) -> int:
        """Ask one rater after the other; returns the calls that the budget did not allow."""
        unaffordable = 0
        for lane in self.lanes():
            # Reads the whole table, so that what is wrong with it is found before any call.
            count(self._store, [lane], retry=retry)
            what = f"Explaining, {lane.rater.name}"
            unaffordable += ask(self._store, [lane], watcher, what, retry, budget)
        return unaffordable

    def write(self, out: Path, watcher: Watcher) -> Explained:
        """Write every row with the first usable explanation."""
        done = Explained(cost=spent(self._store, self._config.raters))
        labels = self._declaration.labels
        with watcher.writing() as written, atomic_writer(out) as stream:
            for row in read_labelled(self._task):
                explanation = row.explanation or self._found(row, done)
                done.rows += 1
                done.given += row.explanation is not None
                leaks = find_leaks(explanation or "", labels)
                done.leaking += bool(leaks)
                done.own_label += names_label(leaks, row.number, labels)
                value = {
                    "id": row.id,
                    "group": row.group,
                    "text": row.text,
                    "label": row.label,
                    "explanation": explanation,
                }
                stream.write(dumps(value).encode("utf-8") + b"\n")
                written()
            if done.failed.total() == done.rows:
                named = ", ".join(f"{number} {kind}" for kind, number in done.failed.most_common())
                raise UserError(
                    f"no row could be explained: {named}; mend the server or the config and run "
                    "the same command with --retry-failed"
                )
        return done

    def _found(self, row: TableRow, done: Explained) -> str | None:
        known = self._outcomes(row)
        for rater, outcome in zip(self._config.raters, known, strict=True):
            if outcome is not None and outcome.state == OK and outcome.explanation is not None:
                done.by[rater.name] += 1
                text, was_cut = cut_words(outcome.explanation, self._config.max_words)
                done.cut += was_cut
                return text
        done.failed[known[-1].state if known[-1] else "not_asked"] += 1
        return None

    def _questions(self, number: int) -> Iterator[list[Question]]:
        """A rater's, a list a row: of rows that no other has explained and all before have not."""
        rater = self._config.raters[number]
        for row in read_labelled(self._task):
            if row.explanation is None and self._is_for(number, row):
                yield [self._question(rater, row)]

    def _is_for(self, number: int, row: TableRow) -> bool:
        if len(self._config.raters) == 1:
            return True
        known = self._outcomes(row)
        if any(one is None or one.state == OK for one in known[:number]):
            return False
        # What it has failed on and a later one has explained is not asked again.
        later = any(one is not None and one.state == OK for one in known[number + 1 :])
        mine = known[number]
        return mine is None or mine.state == OK or not later

    def _outcomes(self, row: TableRow) -> list[Outcome | None]:
        """What each rater has said, in their order; None where it was not asked."""
        keys = [self._question(rater, row).key for rater in self._config.raters]
        return [self._store.outcomes([key]).get(key) for key in keys]

    def _question(self, rater: ServerRater, row: TableRow) -> Question:
        conversation = Conversation.model_validate(
            {
                "id": row.id,
                "dataset": self._task.name,
                "group": row.group,
                "conversation": [{"role": "assistant", "content": row.text}],
            },
            context={"declaration": self._declaration},
        )
        task, label = self._task.prompt, row.label
        template, words = self._template, self._config.max_words
        return explanation_question(
            rater,
            conversation,
            AXIS,
            EXPLAIN,
            explain_sha256(template, task, label, words),
            lambda: render_explain(template, task, row.text, label, words),
        )
