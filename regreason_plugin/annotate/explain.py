"""`regreason explain`: language models explain why each row of a table has its label.

Questions, store and calls work as in `regreason annotate`; only the prompt differs.
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
from regreason_plugin.annotate.calls import OK, Outcome
from regreason_plugin.annotate.config import ExplainConfig
from regreason_plugin.annotate.label_leaks import find_leaks, names_label
from regreason_plugin.annotate.lanes import Lane, LanePlan, count, estimate
from regreason_plugin.annotate.prompts import (
    EXPLAIN,
    explain_sha256,
    load_explain_prompt,
    render_explain,
)
from regreason_plugin.annotate.quality_alarm import by_state
from regreason_plugin.annotate.questions import Question, explanation_question
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.records import Conversation
from regreason_plugin.core.task_file import AXIS, Task
from regreason_plugin.core.whole_files import atomic_writer, check_not_input
from regreason_plugin.core.yaml_file import dump_yaml
from regreason_plugin.data.labelled_table import TableRow, read_labelled


@dataclass
class Explained:
    """The result of `explain`, as numbers of rows.

    Attributes:
        rows: Rows written; 0 if the budget ended the run.
        given: Rows that had an explanation in the table and keep it.
        by: Rows explained in this run or before, by the rater that wrote the explanation.
        failed: Rows without an explanation, by the state of the last rater's call.
        cut: Rows whose explanation was cut to ``max_words``.
        leaking: Rows whose explanation names a label.
        own_label: Rows whose explanation names the row's own label.
        unaffordable: Number of calls that the budget did not allow.
        cost: Cost of all calls in the store, in the prices' currency; None without prices.
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
    again: AskedAgain = ONLY_SET_UP,
    budget: float | None = None,
) -> Explained:
    """Ask raters why each row has its label, and write the rows with their explanations.

    The run may be stopped at any time, in any way, and run again: no answered call is made again,
    and the file is written whole or not at all. The raters are asked one after the other, each
    only about the rows on which all earlier raters have failed. A row that no rater could explain
    is written without an explanation.

    Args:
        task: The task, from `task_file.read_task`. Rows that have an explanation keep it.
        config: The raters, the prompt and the maximum length.
        out: The ``.jsonl`` file to write, with the columns id, group, text, label and explanation.
        watcher: Shows the progress.
        again: The failed calls of earlier runs to make again.
        budget: Make no call that could raise the cost of the whole store above this amount.

    Raises:
        UserError: The table, the prompt or a key is wrong; all calls to a server fail; the quality
            alarm rings; or no row could be explained.
    """
    with open_store_for_calls(config.store_path(out), config.raters, budget) as store:
        explaining = _Explaining(task, config, store, again)
        unaffordable = explaining.ask(watcher, budget)
        if unaffordable:
            return Explained(unaffordable=unaffordable, cost=spent(store, config.raters))
        return explaining.write(out, watcher)


def check(
    task: Task,
    config: ExplainConfig,
    out: Path,
    watcher: Watcher,
    *,
    again: AskedAgain = ONLY_SET_UP,
    budget: float | None = None,
) -> None:
    """Ask each rater to explain the first row, and show the answers.

    Args:
        task: The task.
        config: The raters and the prompt.
        out: The table that `explain` would write.
        watcher: Shows the answers.
        again: The failed calls of earlier runs to make again.
        budget: Make no call that could raise the cost of the whole store above this amount.

    Raises:
        UserError: See `explain`; also if a server cannot be reached or refuses the request.
    """
    with open_store_for_calls(config.store_path(out), config.raters, budget) as store:
        lanes = _Explaining(task, config, store, again).lanes(of_all=True)
        count(store, lanes)
        preflight(store, lanes, watcher, budget)


def dry_run(
    task: Task, config: ExplainConfig, out: Path, *, again: AskedAgain = ONLY_SET_UP
) -> list[LanePlan]:
    """Estimate the calls that `explain` would make, without making any.

    Every rater after the first is counted for the rows on which all earlier raters have failed so
    far.

    Returns:
        One plan per rater.

    Raises:
        UserError: The table or the prompt is wrong.
    """
    with open_store_to_read(config.store_path(out), config.raters) as store:
        return estimate(store, _Explaining(task, config, store, again).lanes())


def check_files(task: Task, task_file: Path, out: Path, task_out: Path | None) -> None:
    """Refuse output paths that would overwrite an input, or whose suffix cannot be read back.

    Args:
        task: The task.
        task_file: The task's file.
        out: The table to write.
        task_out: The copy of the task to write; None for no copy.

    Raises:
        UserError: An output path overwrites an input or has the wrong suffix.
    """
    if out.suffix != ".jsonl":
        raise UserError(
            "the table is written as one JSON object per line; give it a name that ends in .jsonl",
            path=out,
        )
    tables = task.data.files()
    if out.exists() and any(table.exists() and table.samefile(out) for table in tables):
        raise UserError(
            "is the table that the task reads; write to another file, or start from the task.yml "
            "that reads the table without these explanations",
            path=out,
        )
    check_not_input(out, [task_file])
    if task_out is None:
        return
    if task_out.suffix not in {".yml", ".yaml"}:
        raise UserError(
            "the task is written as YAML; give it a name that ends in .yml", path=task_out
        )
    check_not_input(task_out, [task_file, *tables], "--task-out")


def authors(task: Task, config: ExplainConfig, done: Explained) -> tuple[str, ...]:
    """The raters that wrote explanations of the new table, each as ``name (model)``."""
    names = [f"{rater.name} ({rater.model})" for rater in config.raters if done.by[rater.name]]
    return tuple(dict.fromkeys([*task.explained_by, *names]))


def changes(task: Task, out: Path, there: Path, by: tuple[str, ...]) -> dict[str, Any]:
    """The keys of a ``task.yml`` that change when it reads the table with explanations.

    Args:
        task: The task.
        out: The table with explanations.
        there: The folder of the ``task.yml``; the table's path is relative to it.
        by: The raters that wrote explanations, from `authors`.
    """
    path = Path(os.path.relpath(out.resolve(), there.resolve())).as_posix()
    names = ["text", "label", "explanation", "id", "group", *(["split"] if task.own_splits else [])]
    changed: dict[str, Any] = {
        "data": {"path": path},
        "columns": {name: name for name in names},
        "explained_by": list(by),
    }
    # The new table holds the labels themselves, so no value of it has to be mapped to a label.
    return {**changed, "values": {}} if task.values else changed


def write_task(task: Task, out: Path, task_out: Path, by: tuple[str, ...]) -> None:
    """Write a copy of the task that reads the table with explanations, whole or not at all."""
    keys = task.model_dump(mode="json", exclude={"split"})
    keys["split"] = task.split.model_dump(exclude_unset=task.own_splits)
    keys |= changes(task, out, task_out.parent, by)
    head = f"# A copy of a task.yml that reads the table with explanations, {out.name}.\n"
    with atomic_writer(task_out) as stream:
        stream.write((head + dump_yaml(keys)).encode("utf-8"))


class _Explaining:
    def __init__(self, task: Task, config: ExplainConfig, store: Store, again: AskedAgain) -> None:
        self._again = again
        self._task = task
        self._config = config
        self._store = store
        self._declaration = task.declaration
        self._template = load_explain_prompt(config.prompts)

    def lanes(self, *, of_all: bool = False) -> list[Lane]:
        """One lane per rater, in the config's order.

        Args:
            of_all: Whether every rater gets all rows; otherwise a rater gets the rows on which all
                earlier raters have failed.
        """
        return [
            lane_of(
                self._store,
                rater,
                partial(self._questions, number, of_all),
                self._again,
                self._config.alarm,
            )
            for number, rater in enumerate(self._config.raters)
        ]

    def ask(self, watcher: Watcher, budget: float | None) -> int:
        """Ask one rater after the other; return the number of calls that the budget forbade."""
        unaffordable = 0
        for one in self.lanes():
            # Counting reads the whole table, so an error in it is found before any call is made.
            count(self._store, [one])
            preflight(self._store, unproven([one]), watcher, budget)
            what = f"Explaining, {one.rater.name}"
            unaffordable += ask(self._store, [one], watcher, what, budget)
        return unaffordable

    def write(self, out: Path, watcher: Watcher) -> Explained:
        """Write every row with the first usable explanation."""
        done = Explained(cost=spent(self._store, self._config.raters))
        labels = self._declaration.labels
        with watcher.writing() as written, atomic_writer(out) as stream:
            for row in read_labelled(self._task):
                explanation = row.explanation or self._explanation(row, done)
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
                    **({"split": row.split} if row.split else {}),
                }
                stream.write(dumps(value).encode("utf-8") + b"\n")
                written()
            if done.failed.total() == done.rows:
                raise UserError(
                    f"no row could be explained: {by_state(done.failed)}; correct the "
                    "server or the config, then run the same command with --retry-failed"
                )
        return done

    def _explanation(self, row: TableRow, done: Explained) -> str | None:
        """The first rater's explanation that succeeded, counted in ``done``; None if none did."""
        known = self._outcomes(row)
        for rater, outcome in zip(self._config.raters, known, strict=True):
            if outcome is not None and outcome.state == OK and outcome.explanation is not None:
                done.by[rater.name] += 1
                text, was_cut = cut_words(outcome.explanation, self._config.max_words)
                done.cut += was_cut
                return text
        done.failed[known[-1].state if known[-1] else "not_asked"] += 1
        return None

    def _questions(self, number: int, of_all: bool) -> Iterator[list[Question]]:
        """A rater's questions: one list for each row, of all rows or of those in `_is_for`."""
        rater = self._config.raters[number]
        for row in read_labelled(self._task):
            if row.explanation is None and (of_all or self._is_for(number, row)):
                yield [self._question(rater, row)]

    def _is_for(self, number: int, row: TableRow) -> bool:
        """Return whether a rater is asked about a row: all earlier raters have failed on it."""
        if len(self._config.raters) == 1:
            return True
        known = self._outcomes(row)
        if any(one is None or one.state == OK for one in known[:number]):
            return False
        # A row on which this rater has failed and that a later rater has explained is left alone.
        later = any(one is not None and one.state == OK for one in known[number + 1 :])
        mine = known[number]
        return mine is None or mine.state == OK or not later

    def _outcomes(self, row: TableRow) -> list[Outcome | None]:
        """The outcome of each rater's call, in the config's order; None for a call not made."""
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
