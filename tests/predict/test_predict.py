"""`regreason predict` and `Classifier`: new rows get the labels that lm-eval would give them."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.scoring import (
    PlainScorer,
    check_same,
    evaluate,
    lm_eval_samples,
    write_task,
)
from lm_eval.models.huggingface import HFLM

import regreason_plugin
from regreason_plugin import Classifier
from regreason_plugin.cli import main
from regreason_plugin.core.declaration import Axis, Dataset, Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.data.mini import mini_conversations
from regreason_plugin.data_folder.build import BuildOptions, build
from regreason_plugin.data_folder.folder import TEST, DataFolder
from regreason_plugin.evaluate.eval_command import main as run_eval
from regreason_plugin.evaluate.explanation_first import split_generation
from regreason_plugin.evaluate.model import RegReasonHF
from regreason_plugin.predict.input_rows import InputRow
from regreason_plugin.predict.prediction_file import predict_file
from regreason_plugin.predict.predictions import Lines, Prediction
from regreason_plugin.predict.progress import progress_path

pytestmark = pytest.mark.integration

# Words, a label that is a prefix of another, and no word but what a spreadsheet might run.
LABELS = ("wrong", "wrong, so", "🙂 =fine")
PROMPT = "Is this reply right?\n\nReply: {text}\n\nVerdict:"
WORDS = "the river rises in hills to north of a town and nobody knows why it floods"


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    words = WORDS.split()
    return [" ".join((*draw.choices(words, k=draw.randint(1, 12)), str(n))) for n in range(count)]


def declared(**changes: Any) -> Declaration:
    return Declaration(
        labels=LABELS,
        label_end=".",
        ordinal=False,
        datasets={"replies": Dataset(title="Replies")},
        axes={"label": Axis(title="label")},
        prompt=PROMPT,
        **changes,
    )


def custom_folder(out: Path, declaration: Declaration, **options: Any) -> DataFolder:
    """A data folder of a user's own task."""
    ratings = out.with_suffix(".jsonl")
    with ratings.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(texts(80)):
            label = number % len(LABELS) + 1
            row = {
                "id": f"r{number}",
                "dataset": "replies",
                "group": f"g{number}",
                "conversation": [{"role": "assistant", "content": text}],
                "axis": "label",
                "label": label,
                "score": float(label),
                "explanation": f"because of number {number}",
            }
            stream.write(json.dumps(row) + "\n")
    return build(
        ratings, out, BuildOptions(arms=("explanation",), **options), declaration=declaration
    )


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return custom_folder(tmp_path_factory.mktemp("custom") / "data", declared())


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> DataFolder:
    """A data folder with scores normalised by length, and with cut prompts."""
    return custom_folder(
        tmp_path_factory.mktemp("limited") / "data",
        declared(normalise="characters"),
        tokenizer=str(tiny_model),
        max_prompt=60,
    )


@pytest.fixture(scope="module")
def explained_first(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return custom_folder(
        tmp_path_factory.mktemp("first") / "data", declared(), order="explanation_first"
    )


@pytest.fixture(scope="module")
def classifier(tiny_model: Path, custom: DataFolder) -> Classifier:
    return Classifier(model_args(tiny_model), custom.path, device="cpu")


def model_args(model: Path) -> str:
    return f"pretrained={model},dtype=float32"


def rows_of(folder: DataFolder) -> dict[str, str]:
    """The uncut texts of a folder's test rows, by id."""
    known = {f"r{number}": text for number, text in enumerate(texts(80))}
    return {row.id: known[row.id] for row in folder.rows(TEST)}


def eval_samples(model: Path, folder: DataFolder, out: Path) -> dict[str, dict[str, Any]]:
    """The samples that `regreason eval` logs for a folder's task, by document id."""
    write_task(folder, out, "_label_first.yml")
    code = run_eval(
        [
            *("--model", "regreason-hf", "--model_args", model_args(model), "--device", "cpu"),
            *("--tasks", "mine", "--include_path", str(out), "--log_samples"),
            *("--metadata", json.dumps({"data_dir": str(folder.path)})),
            *("--output_path", str(out / "results")),
        ]
    )
    assert code == 0
    (file,) = out.glob("results/*/samples_mine_*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {sample["doc"]["id"]: sample for sample in samples}


# --- the same as lm-eval ------------------------------------------------------------------


def test_same_labels_as_regreason_eval(
    tiny_model: Path, limited: DataFolder, tmp_path: Path
) -> None:
    samples = eval_samples(tiny_model, limited, tmp_path / "eval")
    rows = rows_of(limited)
    assert len(rows) == len(samples) >= 15
    found = Classifier(model_args(tiny_model), limited.path, device="cpu")(rows.values())
    check_same(found, [samples[name] for name in rows], limited.declaration)
    assert len({one.label for one in found}) > 1  # or the test could not fail
    assert {one.cut for one in found} == {True, False}


def test_same_labels_as_hf(
    tiny_model: Path, custom: DataFolder, classifier: Classifier, tmp_path: Path
) -> None:
    hf = HFLM(str(tiny_model), device="cpu", dtype="float32", batch_size=4)
    samples = lm_eval_samples(hf, custom, tmp_path / "eval")
    rows = rows_of(custom)
    check_same(classifier(rows.values()), [samples[name] for name in rows], custom.declaration)


def test_same_explanations_and_labels_as_the_generative_twin(
    tiny_model: Path, explained_first: DataFolder, tmp_path: Path
) -> None:
    lm = RegReasonHF(str(tiny_model), device="cpu", dtype="float32", batch_size=4, probe="none")
    given = {"limit": 3, "apply_chat_template": True}
    samples = lm_eval_samples(
        lm, explained_first, tmp_path / "eval", "_explanation_first.yml", **given
    )
    rows = {name: text for name, text in rows_of(explained_first).items() if name in samples}
    classifier = Classifier(
        model_args(tiny_model), explained_first.path, device="cpu", apply_chat_template=True
    )
    found = classifier(rows.values())
    check_same(found, [samples[name] for name in rows], explained_first.declaration)
    for name, prediction in zip(rows, found, strict=True):
        generated = samples[name]["resps"][0][0]
        assert prediction.explanation == split_generation(generated)[0]


def test_conversations_of_a_setting_with_a_chat_template(
    tiny_model: Path, data_folder: DataFolder, tmp_path: Path
) -> None:
    task = "regreason_coqa_on_topic"
    lm = RegReasonHF(str(tiny_model), device="cpu", dtype="float32")
    results = evaluate(lm, [task], data_folder.path, limit=12, apply_chat_template=True)
    samples = {sample["doc"]["id"]: sample for sample in results["samples"][task]}
    every = {one.id: one for one in mini_conversations(0, 90)}
    classifier = Classifier(
        model_args(tiny_model),
        data_folder.path,
        setting=("coqa", "on_topic"),
        device="cpu",
        apply_chat_template=True,
    )
    check_same(
        classifier([every[name] for name in samples]),
        list(samples.values()),
        data_folder.declaration,
    )
    # Rows of a file give the same labels; only the conversation in a row matters.
    rows = [every[name].model_dump(exclude={"dataset"}) for name in samples]
    assert classifier(rows) == classifier([every[name] for name in samples])


def test_explanation_goes_on_after_the_label(
    tiny_model: Path, custom: DataFolder, classifier: Classifier
) -> None:
    asked = texts(2, seed=3)
    found = classifier(asked, explain=True)
    assert [one.label for one in found] == [one.label for one in classifier(asked)]
    plain = PlainScorer(tiny_model)
    for text, prediction in zip(asked, found, strict=True):
        context = f"{PROMPT.replace('{text}', text)} {prediction.label}.\n"
        expected = plain.generate(context, 256).split("\n")[0]
        assert prediction.explanation == " ".join(expected.split())


def test_three_lines(tiny_model: Path, custom: DataFolder) -> None:
    classifier = regreason_plugin.Classifier(
        model_args=f"pretrained={tiny_model}", data=str(custom.path)
    )
    (found,) = classifier(["My invoice is wrong."])
    assert found.label in LABELS
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.explanation is None


# --- unusable and too long texts ----------------------------------------------------------


def test_a_text_that_is_none_gets_an_error_and_others_their_label(classifier: Classifier) -> None:
    found = classifier(["a river", "  \n ", "a town", None, ["a"]])  # type: ignore[list-item]
    assert [one.label is None for one in found] == [False, True, False, True, True]
    assert [one.error for one in found] == [
        None,
        "the text is empty",
        None,
        "the text is empty",
        "the text is neither a text nor a number (got \"['a']\")",
    ]
    assert found[1].probabilities == {}
    assert [found[0], found[2]] == classifier(["a river", "a town"])
    # Texts are cleaned like those of a task's table.
    assert classifier(["a river\x92s\r\n"]) == classifier(["a river\u2019s"])


def test_a_text_longer_than_the_window_is_cut_from_its_end(classifier: Classifier) -> None:
    long = "a river " * 3000
    (found,) = classifier([long], explain=True)
    assert found.cut
    assert found.error is None
    # The part that is cut off has no influence.
    assert classifier([long + "and a town"])[0].probabilities == found.probabilities


def test_limits_without_the_tokenizer_they_were_made_with(
    tiny_model: Path, limited: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(limited.path, moved)
    manifest = json.loads((moved / "manifest.json").read_text(encoding="utf-8"))
    (moved / "manifest.json").write_text(json.dumps({**manifest, "tokenizer": "/gone"}))
    asked = list(rows_of(limited).values())
    found = Classifier(model_args(tiny_model), moved, device="cpu")(asked)
    assert (
        "/gone, cannot be loaded; the limit of 60 tokens is counted with the model's own tokenizer"
    ) in (capsys.readouterr().err)
    assert found == Classifier(model_args(tiny_model), limited.path, device="cpu")(asked)


def test_a_single_text_is_no_list(classifier: Classifier) -> None:
    with pytest.raises(TypeError, match="a list of texts"):
        classifier("a river")


# --- the command --------------------------------------------------------------------------


def write_input(path: Path, rows: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(rows):
            stream.write(json.dumps({"id": f"=row,{number}", "text": text, "more": 1}) + "\n")
    return path


def command(source: Path, out: Path, model: Path, folder: DataFolder, *flags: str) -> int:
    return main(
        [
            *("predict", str(source), "--out", str(out), "--device", "cpu"),
            *("--model_args", model_args(model), "--data", str(folder.path), *flags),
        ]
    )


def test_jsonl_and_csv_agree(
    tiny_model: Path, limited: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*texts(5), "", 'a "river",\nand a town', "@now"]
    source = write_input(tmp_path / "in.jsonl", given)
    lines, table = tmp_path / "out.jsonl", tmp_path / "out.csv"
    assert command(source, lines, tiny_model, limited, "--explain") == 0
    printed = capsys.readouterr().out
    assert command(source, table, tiny_model, limited, "--explain") == 0
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [record["id"] for record in records] == [f"=row,{n}" for n in range(len(given))]
    assert [row["id"] for row in rows] == [record["id"] for record in records]
    assert list(rows[0])[:5] == ["id", "label", "p(wrong)", "p(wrong, so)", "p(🙂 =fine)"]
    for record, row in zip(records, rows, strict=True):
        assert row["label"] == (record["label"] or "")
        assert row["cut"] == str(record["cut"]).lower()
        assert row["error"] == (record["error"] or "")
        for label in LABELS if record["label"] else ():
            assert float(row[f"p({label})"]) == record["probabilities"][label]
    assert records[5]["error"] == "the text is empty"
    assert records[5]["probabilities"] is records[5]["label"] is records[5]["explanation"] is None
    assert [bool(record["explanation"]) for record in records].count(True) >= 6

    # The printed counts and the progress file agree with the predictions.
    counted = {label: sum(one["label"] == label for one in records) for label in LABELS}
    for label, count in counted.items():
        assert any(line.startswith(label) and f" {count} " in line for line in printed.splitlines())
    assert "(no label: see error)" in printed
    assert "each divided by the label's length in characters" in printed
    kept = json.loads(progress_path(lines).read_text(encoding="utf-8"))
    assert kept["finished"] is True
    assert kept["rows"] == len(given)
    assert kept["errors"] == 1
    assert kept["made_from"]["normalise"] == "characters"
    assert kept["bytes"] == lines.stat().st_size


# Texts that a CSV reader, a spreadsheet or a terminal may interpret.
AWKWARD = [
    *("-3", "=1+1", "+4", "@me", " =1", "'quoted", '"', 'say "x", y', ",", ";=1"),
    *(" both ends ", "\t", "a\rb", "\r", "a\nb", "\r\n", "\x1b[2J", "\x0b", "\x85", "\u2028"),
    *("\ufeffmark", "\\", "\uff1d1", "007", "1e3", "ünï"),
]


def test_csv_gives_back_what_went_in(tmp_path: Path) -> None:
    import pandas as pd

    out = tmp_path / "out.csv"

    def classify(values: Sequence[Any]) -> list[Prediction]:
        share = 1 / len(AWKWARD)
        return [Prediction(text, dict.fromkeys(AWKWARD, share), text) for text in values]

    rows = [InputRow(text, text) for text in AWKWARD]
    predict_file(rows, classify, Lines("csv", AWKWARD, True), out, {})
    header = ["id", "label", *(f"p({text})" for text in AWKWARD), "explanation", "cut", "error"]
    with out.open(encoding="utf-8", newline="") as stream:
        given_back = list(csv.reader(stream))
    assert given_back[0] == header
    frame = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert list(frame.columns) == header
    joined = pd.DataFrame({"id": AWKWARD}).merge(frame, on="id", validate="one_to_one")
    assert len(joined) == len(AWKWARD)
    for column in ("id", "label", "explanation"):
        assert [row[header.index(column)] for row in given_back[1:]] == AWKWARD, column
        assert list(frame[column]) == AWKWARD, column


def test_csv_gives_back_a_nul(tmp_path: Path) -> None:
    lines = Lines("csv", ["a"], False)
    written = (lines.header() + lines.line("x\0y", Prediction("a", {"a": 1.0}))).decode()
    assert [row["id"] for row in csv.DictReader(io.StringIO(written, newline=""))] == ["x\0y"]


def test_csv_for_spreadsheets_is_a_flag_and_another_file(
    tiny_model: Path, custom: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_input(tmp_path / "in.jsonl", ["a river", "a town"])
    plain, safe = tmp_path / "plain.csv", tmp_path / "safe.csv"
    flag = "--spreadsheet-safe"
    assert command(source, plain, tiny_model, custom) == 0
    assert command(source, safe, tiny_model, custom, flag) == 0
    ids = [
        [row["id"] for row in csv.DictReader(io.StringIO(out.read_text("utf-8"), newline=""))]
        for out in (plain, safe)
    ]
    assert ids == [["=row,0", "=row,1"], ["'=row,0", "'=row,1"]]
    for out, flags in ((plain, [flag]), (safe, [])):
        kept = out.read_bytes()
        assert command(source, out, tiny_model, custom, *flags) == 2
        assert "was made with spreadsheet_safe" in capsys.readouterr().err
        assert out.read_bytes() == kept
    assert command(source, tmp_path / "out.jsonl", tiny_model, custom, flag) == 2
    assert "--spreadsheet-safe is only for CSV" in capsys.readouterr().err
    # Versions without this flag protected cells always, so their files cannot be resumed.
    record = json.loads(progress_path(plain).read_text("utf-8"))
    del record["made_from"]["spreadsheet_safe"]
    progress_path(plain).write_text(json.dumps(record))
    assert command(source, plain, tiny_model, custom) == 2


def test_the_same_rows_from_every_format(
    tiny_model: Path, custom: DataFolder, tmp_path: Path
) -> None:
    import pandas as pd

    rows = pd.DataFrame({"id": ["a", "b", "c"], "reply": ["a river", 'the "town", 5', None]})
    rows.to_csv(tmp_path / "in.csv", index=False)
    rows.to_csv(tmp_path / "in.csv.gz", index=False)
    rows.to_parquet(tmp_path / "in.parquet")
    rows.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    outs = []
    for name in ("in.csv", "in.csv.gz", "in.parquet", "in.jsonl"):
        out = tmp_path / f"{name}.out.jsonl"
        assert command(tmp_path / name, out, tiny_model, custom, "--text", "reply") == 0
        outs.append(out.read_bytes())
    assert len(set(outs)) == 1
    assert [json.loads(line)["id"] for line in outs[0].splitlines()] == ["a", "b", "c"]


def test_a_task_file_in_place_of_the_data(
    tiny_model: Path, custom: DataFolder, tmp_path: Path
) -> None:
    (tmp_path / "task.yml").write_text(
        yaml.safe_dump(
            {
                "name": "replies",
                "title": "Replies",
                "labels": list(LABELS),
                "label_end": ".",
                "prompt": PROMPT,
                "data": {"path": "in.csv"},
                "columns": {"text": "said", "label": "verdict", "id": "number"},
            },
            allow_unicode=True,
        ),
        encoding="utf-8",
    )
    (tmp_path / "in.csv").write_text("number,said\nN1,a river\nN2,a town\n")
    out = tmp_path / "out.jsonl"
    by_task = ("--task", str(tmp_path / "task.yml"))
    arguments = ("--model_args", model_args(tiny_model), "--device", "cpu")
    assert main(["predict", str(tmp_path / "in.csv"), "--out", str(out), *arguments, *by_task]) == 0
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [record["id"] for record in records] == ["N1", "N2"]
    by_data = Classifier(model_args(tiny_model), custom.path, device="cpu")(["a river", "a town"])
    assert [record["label"] for record in records] == [one.label for one in by_data]
    for record, one in zip(records, by_data, strict=True):
        assert record["probabilities"] == pytest.approx(one.probabilities, rel=1e-5)


def test_a_finished_file_is_not_done_again_and_another_not_overwritten(
    tiny_model: Path, custom: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_input(tmp_path / "in.jsonl", texts(3)), tmp_path / "out.jsonl"
    assert command(source, out, tiny_model, custom) == 0
    before, when = out.read_bytes(), out.stat().st_mtime_ns
    assert command(source, out, tiny_model, custom, "--batch_size", "2") == 0
    assert "Nothing left to do: all 3 rows" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == when

    def refused(*flags: str) -> str:
        assert command(source, out, tiny_model, custom, *flags) == 2
        assert out.read_bytes() == before
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "was made with limit None, now it is 2" in refused("--limit", "2")
    assert "was made with explain False, now it is True" in refused("--explain")
    write_input(source, texts(4))
    assert "was made with input_sha256" in refused()
    progress_path(out).unlink()
    message = refused()
    assert "without out.jsonl.progress.json next to it, so `regreason predict` did not" in message
    assert message.endswith("name another --out")


@pytest.mark.parametrize("out", ["in.jsonl", "link.jsonl", "sub/../in.jsonl"])
def test_the_input_is_never_the_output(
    tiny_model: Path,
    custom: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_input(Path("in.jsonl"), texts(3))
    Path("link.jsonl").symlink_to(source)
    Path("sub").mkdir()
    before = source.read_bytes()
    assert command(source, Path(out), tiny_model, custom) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"regreason: {out}: is both read and written; name another --out"
    assert source.read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "link.jsonl", "sub"]


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ('{"texts": "a"}\n', (), "line 1: has no column 'text'; did you mean 'texts'?"),
        ("", (), "is empty"),
        ("[1]\n", (), "line 1: not a JSON object"),
        ('{"text": "a"}\n{"text": "b', (), "line 2: not a JSON object"),
        ('{"text": "a"}\n', ("--out", "out.txt"), "--out has to end with .jsonl or .csv"),
        ('{"text": "a"}\n', ("--model_args", "pretrained=b,peft=a,c"), "'c' is not a name=value"),
        ('{"text": "a"}\n', ("--model_args", "pretrained=b,peft"), "'peft' is not a name=value"),
        ('{"text": "a"}\n', ("--setting", "replies", "labels"), "did you mean 'replies label'?"),
        ('{"text": "a"}\n', ("--model_args", "peft=x"), "has no pretrained="),
        ('{"text": "a"}\n', ("--model_args", "pretrained=./none"), "./none: no such folder"),
        ('{"text": "a"}\n', ("--model_args", "pretrained=no_such"), "the model cannot be loaded"),
        ('{"text": "a"}\n', ("--data", "none"), "no such data folder"),
    ],
)
def test_mistakes(
    content: str,
    flags: tuple[str, ...],
    message: str,
    tiny_model: Path,
    custom: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text(content)
    assert command(Path("in.jsonl"), Path("out.jsonl"), tiny_model, custom, *flags) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("regreason: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_table_without_the_column_or_rows(
    tiny_model: Path,
    custom: DataFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "in.csv"
    for content, message in {
        "id,txt\n1,a\n": "has no column 'text'; did you mean 'txt'?",
        "id,text\n": "has no rows",
        "id,text\n1,a,b\n": "line 2: has 3 fields, but the header has 2",
    }.items():
        source.write_text(content)
        assert command(source, tmp_path / "out.csv", tiny_model, custom) == 2
        assert message in capsys.readouterr().err


def test_labels_that_the_tokenizer_cannot_tell_apart(
    tiny_model: Path, custom: DataFolder, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def arguments(known: str, unknown: str | None) -> str:
        """Model arguments with a tokenizer of characters, which drops or merges unknown ones."""
        vocabulary = {token: number for number, token in enumerate(("</s>", "[U]", *known))}
        model = models.BPE(vocabulary, [], unk_token=unknown, fuse_unk=True)
        place = tmp_path / (unknown or "dropped")
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(model), eos_token="</s>", unk_token=unknown
        ).save_pretrained(place)
        return f"{model_args(tiny_model)},tokenizer={place}"

    with pytest.raises(UserError, match="gives label '🙂 =fine.' no tokens"):
        Classifier(arguments("wroad,", None), custom.path, device="cpu")
    with pytest.raises(UserError, match="gives labels 'wrong.' and 'wrong, so.' the same tokens"):
        Classifier(arguments(":", "[U]"), custom.path, device="cpu")


# --- stopped and resumed ------------------------------------------------------------------


def input_rows(count: int) -> Iterator[InputRow]:
    for number, text in enumerate(texts(count)):
        yield InputRow(str(number), text)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_the_same_bytes_after_a_stop(
    ending: str, classifier: Classifier, tiny_model: Path, custom: DataFolder, tmp_path: Path
) -> None:
    lines = Lines(ending, LABELS, False)  # type: ignore[arg-type]
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    predict_file(input_rows(50), classifier, lines, whole, {}, step_rows=8)

    def until_row_20(asked: Sequence[Any]) -> list[Prediction]:
        if texts(50)[20] in asked:
            raise KeyboardInterrupt
        return classifier(asked)

    with pytest.raises(KeyboardInterrupt):
        predict_file(input_rows(50), until_row_20, lines, out, {}, step_rows=8)
    assert whole.read_bytes().startswith(out.read_bytes())
    again = Classifier(model_args(tiny_model), custom.path, device="cpu")
    asked: list[str] = []

    def counted(values: Sequence[Any]) -> list[Prediction]:
        asked.extend(values)
        return again(values)

    done = predict_file(input_rows(50), counted, lines, out, {}, step_rows=8)
    assert out.read_bytes() == whole.read_bytes()
    assert asked == texts(50)[16:]  # whole steps are done once
    assert done.rows == 50
    assert done.labels.total() == 50


def test_a_step_of_long_texts_has_few_of_them(tmp_path: Path) -> None:
    sizes = []

    def classify(values: Sequence[Any]) -> list[Prediction]:
        sizes.append(len(values))
        return [Prediction("a", {"a": 1.0, "b": 0.0}) for _ in values]

    rows = [InputRow(str(number), "word " * 20_000) for number in range(7)]
    predict_file(rows, classify, Lines("csv", ["a", "b"], False), tmp_path / "out.csv", {})
    assert sizes == [3, 3, 1]


KILLED = """
import sys, time
from pathlib import Path
from regreason_plugin.predict.predictions import Lines, Prediction
from regreason_plugin.predict.input_rows import read_rows
from regreason_plugin.predict.prediction_file import predict_file

def classify(values):
    time.sleep(0.01)
    return [Prediction("ab"[len(v) % 2], {"a": len(v) / 99, "b": 1 / len(v)}) for v in values]

source, out = map(Path, sys.argv[1:])
lines = Lines("csv", ["a", "b"], False)
predict_file(read_rows(source, "text"), classify, lines, out, {"input": "x"}, step_rows=4)
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", texts(400))
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"

    def start(place: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(place)])

    assert start(whole).wait() == 0
    draw, sizes = random.Random(5), [0]
    for number in range(5):
        process = start(out)
        while not progress_path(out).exists() or out.stat().st_size <= sizes[-1]:
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.08))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        if number % 2:  # a line of which only the head has come to the disk
            with out.open("ab") as stream:
                stream.write(b"r9,a,0.1")
        sizes.append(out.stat().st_size)
    assert not json.loads(progress_path(out).read_text(encoding="utf-8"))["finished"]
    assert start(out).wait() == 0
    assert out.read_bytes() == whole.read_bytes()
    assert len(whole.read_bytes().splitlines()) == 401


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    lines = Lines("jsonl", ["a", "b"], False)

    def classify(values: Sequence[Any]) -> list[Prediction]:
        with pytest.raises(UserError, match="another process is writing this file"):
            predict_file(input_rows(3), classify, lines, out, {})
        return [Prediction("a", {"a": 1.0, "b": 0.0}) for _ in values]

    assert predict_file(input_rows(3), classify, lines, out, {}).rows == 3


def test_the_package_starts_without_torch() -> None:
    code = "import sys, regreason_plugin.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
