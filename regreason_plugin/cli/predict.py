"""The command `predict`, which labels new rows."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from regreason_plugin.cli.console import (
    SPREADSHEET_SAFE,
    batch_size,
    errors,
    positive,
    progress,
    say,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import check_not_input

if TYPE_CHECKING:
    from regreason_plugin.predict.prediction_task import Question
    from regreason_plugin.predict.progress import OutputProgress


def add_predict(predict: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    predict.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="the rows to label: .csv (with a header), .tsv, .jsonl, .json or .parquet, also .gz",
    )
    predict.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="F",
        help="the file to write; its name ends with .jsonl or .csv",
    )
    predict.add_argument(
        "--model_args",
        required=True,
        metavar="ARGS",
        help="the model, as lm_eval takes it: pretrained=BASE,peft=ADAPTER[,dtype=...]",
    )
    what = predict.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--data", type=Path, metavar="DATA", help="the data folder that the model was trained on"
    )
    what.add_argument(
        "--task",
        type=Path,
        metavar="task.yml",
        help="instead of --data, for a model trained label first and without a prompt limit",
    )
    predict.add_argument(
        "--setting",
        nargs=2,
        metavar=("DATASET", "AXIS"),
        help="which setting to label, if the data folder holds several",
    )
    predict.add_argument(
        "--text", metavar="COL", help="the column with the text; default: the task's own, or text"
    )
    predict.add_argument(
        "--id",
        metavar="COL",
        help="the column with a unique id; default: the task's own, or id, or the line number",
    )
    predict.add_argument(
        "--explain",
        action="store_true",
        help="also let the model explain each label; a model that explains first always does",
    )
    predict.add_argument(
        "--apply_chat_template",
        action="store_true",
        help="put each prompt into the model's chat template, for models trained with it",
    )
    predict.add_argument(
        "--calibrated",
        action="store_true",
        help="divide the labels' scores by the temperature that `regreason calibrate` has fitted; "
        "the labels stay the same",
    )
    predict.add_argument(
        "--allow-misfit",
        action="store_true",
        help="allow a base model or a prompt other than in training; F.progress.json records it",
    )
    predict.add_argument(
        "--batch_size",
        type=batch_size,
        default="auto",
        metavar="N",
        help="rows in a batch; default: auto",
    )
    predict.add_argument(
        "--device", metavar="D", help="cpu, cuda, ...; default: a GPU if there is one"
    )
    predict.add_argument(
        "--spreadsheet-safe",
        action="store_true",
        help=f"{SPREADSHEET_SAFE}. Only for --out F.csv; changed ids no longer equal the input's",
    )
    predict.add_argument("--limit", type=positive, metavar="N", help="label only the first N rows")


def run_predict(args: argparse.Namespace) -> int:
    r"""Label new rows.

    Reads a table and a model, and writes one line for each row to --out, in the
    order of the rows: the label, the probability of every label and, with
    --explain, an explanation. The same command continues where a stopped one
    ended; F.progress.json next to the output holds its progress and its inputs. A
    row without a text gets an error instead of a label. The probabilities are a
    softmax over the labels' log-likelihoods; if the task says `normalise:
    characters`, each is first divided by the label's length in characters. With
    --calibrated, all are divided by the model's temperature.

    Example:
        regreason predict new.csv --task tickets/task.yml --out predicted.csv \
          --model_args pretrained=BASE,peft=ADAPTER
    """
    from regreason_plugin.core.jsonl import file_sha256
    from regreason_plugin.predict.input_rows import read_rows
    from regreason_plugin.predict.model_loading import model_facts, read_model_args
    from regreason_plugin.predict.prediction_file import predict_file
    from regreason_plugin.predict.prediction_task import find_question
    from regreason_plugin.predict.predictions import Lines, output_format
    from regreason_plugin.predict.progress import progress_path, read_progress

    kind = output_format(args.out)
    if args.spreadsheet_safe and kind != "csv":
        raise UserError(
            "--spreadsheet-safe is only for CSV; leave it out, or let --out end with .csv"
        )
    for written in (args.out, progress_path(args.out)):
        check_not_input(written, [args.file, args.task])
    setting = tuple(args.setting) if args.setting else None
    question = find_question(args.data, args.task, setting)
    arguments = read_model_args(args.model_args)
    temperature = question.temperature(arguments, args.data) if args.calibrated else None
    column = args.text or question.text
    # The whole file is read once before the model is loaded, so that a broken row shows at once.
    identifier = args.id or question.identifier
    total = sum(1 for _ in read_rows(args.file, column, args.limit, identifier))
    explains = args.explain or question.order == "explanation_first"
    made_from = {
        "input_sha256": file_sha256(args.file),
        "text": column,
        "id": identifier,
        "limit": args.limit,
        "model_args": args.model_args,
        **model_facts(arguments),
        "apply_chat_template": args.apply_chat_template,
        "explain": explains,
        "allow_misfit": args.allow_misfit,
        "temperature": temperature,
        **question.facts(),
        **({"spreadsheet_safe": args.spreadsheet_safe} if kind == "csv" else {}),
    }
    done = read_progress(args.out, made_from)
    if done.finished:
        say(f"Nothing left to do: all {done.rows:,} rows are in {args.out}")
        return 0
    if done.rows:
        say(f"Continuing after row {done.rows:,} of {total:,}")
    with errors.status("loading the model"):
        from regreason_plugin.predict.classifier import Classifier

        classifier = Classifier(
            args.model_args,
            args.data,
            args.task,
            setting=setting,
            batch_size=args.batch_size,
            device=args.device,
            apply_chat_template=args.apply_chat_template,
            allow_misfit=args.allow_misfit,
            calibrated=args.calibrated,
        )
    before, started = done.rows, time.monotonic()
    with progress(total) as advance:
        advance("predict", before)
        done = predict_file(
            read_rows(args.file, column, args.limit, identifier),
            lambda texts: classifier(texts, explain=args.explain),
            Lines(
                kind,
                question.declaration.labels,
                explains,
                spreadsheet_safe=args.spreadsheet_safe,
            ),
            args.out,
            made_from,
            on_rows=lambda rows: advance("predict", rows),
        )
    _say_summary(done, question, (done.rows - before) / (time.monotonic() - started))
    if temperature is not None:
        say(f"Calibrated: all scores were divided by the temperature {temperature:.4g}")
    say(f"Written: {args.out}")
    say(f"Inputs and progress: {progress_path(args.out)}")
    return 0


def _say_summary(done: OutputProgress, question: Question, speed: float) -> None:
    counts: dict[str, Any] = {label: done.labels[label] for label in question.declaration.labels}
    if done.errors:
        counts["(no label: see error)"] = done.errors
    # (Some characters are two columns wide.)
    width = max(map(cell_len, counts))
    for label, count in counts.items():
        space = " " * (width - cell_len(label))
        say(f"{label}{space}  {count:>9,}  {count / done.rows:>6.1%}")
    if done.cut:
        say(f"Texts shortened to fit: {done.cut:,}")
    scores = {
        "none": "log-likelihoods",
        "characters": "log-likelihoods, each divided by the label's length in characters",
    }[question.declaration.normalise]
    say(f"Probabilities: a softmax over the labels' {scores}")
    say(f"Speed: {speed:,.1f} rows a second")
