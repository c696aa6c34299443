"""One method in this process: learn, score, say what it took."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regreason_plugin.build.folder import DataFolder, open_data_folder
from regreason_plugin.core.cost import MethodCost, measured
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.baselines import SHOTS
from regreason_plugin.evaluate.baselines.training_rows import read_rows, tasks_of
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand

if TYPE_CHECKING:
    from regreason_plugin.core.cost import ScoringClock
    from regreason_plugin.evaluate.baselines.classifier_lm import Classifier


@dataclass(frozen=True)
class Work:
    """What one method is to do.

    Attributes:
        method: Its name.
        data: The data folder.
        out: Where results and ``cost.json`` go.
        tasks: To score; None for all that the data has.
        model: The base model; None of a method without one.
        seed: Of a method with a random draw.
        epochs: Of ``head``.
        learning_rate: Of ``head``.
        batch_size: Of ``head``.
        include_path: A folder of more task files.
        apply_chat_template: Prompts in the base model's chat template.
    """

    method: str
    data: Path
    out: Path
    tasks: tuple[str, ...] | None = None
    model: str | None = None
    seed: int | None = None
    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 16
    include_path: Path | None = None
    apply_chat_template: bool = False

    def arguments(self) -> list[str]:
        """As `parser` reads them."""
        given = [self.method, str(self.data), "--out", str(self.out)]
        if self.tasks is not None:
            given += ["--tasks", ",".join(self.tasks)]
        if self.model is not None:
            given += ["--model", self.model]
        if self.seed is not None:
            given += ["--seed", str(self.seed), "--epochs", str(self.epochs)]
            given += ["--learning_rate", str(self.learning_rate)]
            given += ["--batch_size", str(self.batch_size)]
        if self.include_path is not None:
            given += ["--include_path", str(self.include_path)]
        return given + ["--apply_chat_template"] * self.apply_chat_template


def parser() -> ArgumentParser:
    """Of ``python -m regreason_plugin.evaluate.baselines``, which `regreason baselines` starts."""
    parser = ArgumentParser(
        prog="python -m regreason_plugin.evaluate.baselines", description=__doc__
    )
    parser.add_argument("method", choices=DO)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", type=lambda text: tuple(text.split(",")))
    parser.add_argument("--model")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--epochs", type=int, default=Work.epochs)
    parser.add_argument("--learning_rate", type=float, default=Work.learning_rate)
    parser.add_argument("--batch_size", type=int, default=Work.batch_size)
    parser.add_argument("--include_path", type=Path)
    parser.add_argument("--apply_chat_template", action="store_true")
    return parser


def do(work: Work) -> MethodCost:
    """Do it, and leave ``cost.json`` last.

    Raises:
        UserError: The data or the model will not do.
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
    # Of all settings, whichever are scored: the arms learn from all of them too.
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
    classifier: Classifier,
    model_args: dict[str, Any],
    tokenizer: Any,
) -> ScoringClock:
    """Have lm-eval score a classifier, which has learnt; what it took is in the clock."""
    from regreason_plugin.evaluate.baselines.classifier_lm import ClassifierLM
    from regreason_plugin.evaluate.baselines.scoring import score_classifier

    tasks = tasks_of(folder, work.tasks)
    lm = ClassifierLM(classifier, folder.declaration, tasks, tokenizer)
    score_classifier(
        lm,
        work.method,
        model_args,
        work.data,
        list(tasks),
        work.out,
        work.include_path,
        work.apply_chat_template,
    )
    return lm.clock


def _untrained(shots: int) -> Callable[[Work, DataFolder], MethodCost]:
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
        took = score_base(work.method, command, work.out)
        return measured(work.method, documents=took.documents, scoring_seconds=took.seconds)

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
