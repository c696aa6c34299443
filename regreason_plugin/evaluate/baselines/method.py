"""Runs one method in this process: trains it, scores it, and measures its cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from regreason_plugin.core.cost import MethodCost, measured
from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.folder import DataFolder, open_data_folder
from regreason_plugin.evaluate.baselines import SHOTS
from regreason_plugin.evaluate.baselines.training_rows import read_rows, tasks_of
from regreason_plugin.evaluate.baselines.work import Work
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand

if TYPE_CHECKING:
    from regreason_plugin.core.cost import ScoringClock
    from regreason_plugin.evaluate.baselines.classifier_lm import LabelScorer


def do(work: Work) -> MethodCost:
    """Run one method and, at the end, write its ``cost.json``.

    Raises:
        UserError: The data or the model cannot be used.
    """
    cost = DO[work.method](work, open_data_folder(work.data))
    cost.write(work.out)
    return cost


def _tfidf(work: Work, folder: DataFolder) -> MethodCost:
    from regreason_plugin.evaluate.baselines.classifier_lm import in_template
    from regreason_plugin.evaluate.baselines.tfidf import fit

    tasks = tasks_of(folder, work.tasks)
    tokenizer = None
    if work.apply_chat_template:
        from regreason_plugin.evaluate.baselines.head import load_tokenizer

        tokenizer = load_tokenizer(_model_of(work))
    started = time.perf_counter()
    rows = read_rows(folder, list(tasks.values()))
    if tokenizer is not None:
        for examples in (*rows.train.values(), *rows.validation.values()):
            examples.prompts = [
                in_template(tokenizer, [{"role": "user", "content": text}])
                for text in examples.prompts
            ]
    classifier = fit(rows, len(folder.declaration.labels))
    seconds = time.perf_counter() - started
    names = {setting: task for task, setting in tasks.items()}
    model_args = {"pretrained": "tfidf", **classifier.hyperparameters(names)}
    clock = _score(work, folder, classifier, model_args, tokenizer)
    return measured(
        "tfidf",
        training_seconds=seconds,
        training_tokens=None,
        training_rows=sum(len(examples.labels) for examples in rows.train.values()),
        documents=clock.documents,
        scoring_seconds=clock.seconds,
    )


def _head(work: Work, folder: DataFolder) -> MethodCost:
    from regreason_plugin.evaluate.baselines.head import HEAD, HeadOptions, train, write_record

    base = _model_of(work)
    assert work.seed is not None
    options = HeadOptions(
        work.seed, work.epochs, work.learning_rate, work.batch_size, work.apply_chat_template
    )
    # Train on all settings, even if only some are scored, because the arms are trained on all.
    rows = read_rows(folder, folder.settings())
    trained = train(base, rows, len(folder.declaration.labels), work.out, options)
    write_record(trained, work.out, folder, base, options)
    model_args = {"pretrained": base, "peft": str(work.out), "head": HEAD}
    tokenizer = trained.head.tokenizer if work.apply_chat_template else None
    clock = _score(work, folder, trained.head, model_args, tokenizer)
    return measured(
        "head",
        seed=work.seed,
        training_seconds=trained.seconds,
        training_tokens=trained.tokens,
        training_rows=trained.rows,
        documents=clock.documents,
        scoring_seconds=clock.seconds,
    )


def _score(
    work: Work,
    folder: DataFolder,
    classifier: LabelScorer,
    model_args: dict[str, Any],
    tokenizer: Any,
) -> ScoringClock:
    """Score a trained classifier with lm-eval; returns the clock that measured the scoring."""
    from regreason_plugin.evaluate.baselines.classifier_lm import ClassifierLM
    from regreason_plugin.evaluate.baselines.scoring import score_classifier

    tasks = tasks_of(folder, work.tasks)
    lm = ClassifierLM(classifier, folder.declaration, tasks, tokenizer)
    score_classifier(lm, work, list(tasks), model_args)
    return lm.clock


def _untrained(shots: int) -> Callable[[Work, DataFolder], MethodCost]:
    """A method that prompts the untrained base model, with ``shots`` examples."""

    def score(work: Work, folder: DataFolder) -> MethodCost:
        from regreason_plugin.evaluate.baselines.scoring import score_base

        command = LmEvalCommand(
            model_args={"pretrained": _model_of(work), "probe": "none"},
            tasks=list(tasks_of(folder, work.tasks)),
            data_dir=folder.path,
            shots=shots,
            include_path=work.include_path,
            chat_template=work.apply_chat_template,
            output_path=work.out,
        )
        cost = score_base(work.method, command, work.out)
        return measured(work.method, documents=cost.documents, scoring_seconds=cost.seconds)

    return score


def _model_of(work: Work) -> str:
    if work.model is None:
        raise UserError(f"{work.method} needs --model BASE")
    return work.model


DO: dict[str, Callable[[Work, DataFolder], MethodCost]] = {
    "tfidf": _tfidf,
    "head": _head,
    "zero_shot": _untrained(0),
    "few_shot": _untrained(SHOTS),
}
