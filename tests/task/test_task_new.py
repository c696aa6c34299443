"""`regreason task new`: its summary, the folder that it writes, and what it refuses."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from helpers.labelled_tables import LABELS, write_answers, write_scale, write_tickets
from lm_eval.tasks import TaskManager

from regreason_plugin.cli import main
from regreason_plugin.core.task_file import read_task
from regreason_plugin.data.labelled_table import read_labelled

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LORA = ROOT / "axolotl_configs" / "cpu" / "lora.yml"
TINY = str(ROOT / "axolotl_configs" / "cpu" / "tiny-base")
NEW = {
    "tickets": (write_tickets, "tickets.csv --text message --label queue --id ticket"),
    "scale": (write_scale, "scale.parquet --text answer --label points --explanation reason"),
    "answers": (
        write_answers,
        "answers.jsonl --text text --label verdict --explanation why --id id --group book",
    ),
}
ORDINAL = ("qwk", "mae", "spearman", "within_1", "undefined")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(name: str, *more: str) -> int:
    make, arguments = NEW[name]
    make(Path())
    return main(["task", "new", name, "--data", *arguments.split(), "--model", TINY, *more])


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", NEW)
def test_writes_one_folder(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new(name) == 0
    table = NEW[name][1].split()[0]
    written = {"task.yml", "utils.py", "README.md", "arms.yml"}
    written |= {f"{name}.yaml", f"{name}.lora.yml"}
    written |= {f"explanation_first/{name}-gen.yaml", "explanation_first/utils.py"}
    assert files() == {table} | {f"{name}/{file}" for file in written}
    assert not capsys.readouterr().err.count("regreason:")
    # No file contains a path of this machine, except that of the model that was named.
    for file in written:
        text = (Path(name) / file).read_text(encoding="utf-8").replace(TINY, "TINY")
        assert str(place) not in text, file
        assert str(ROOT) not in text, file


def test_prints_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    with write_tickets(Path()).open("a", encoding="utf-8", newline="") as stream:
        more = csv.writer(stream)
        more.writerows([["A", "Once more.", "REFUND"], ["B", "Once more.", "REFUND"]])
        more.writerows([["C", "", "REFUND"], ["D", "[bold]Nobody[/] knows.", ""]])
        more.writerow(["E", "long " * 2000, LABELS[0]])
    arguments = NEW["tickets"][1].split()
    assert main(["task", "new", "tickets", "--data", *arguments, "--model", TINY]) == 0
    said = capsys.readouterr().out
    assert "tickets.csv: 305 rows, 12 labels, 302 groups" in said
    assert re.search(r"REFUND +26 +8\.6% ", said)
    assert re.search(r"Delivery, late +25 +8\.3% ", said)
    assert re.search(r"text, words +12 +16 +2000\n", said.replace(" \n", "\n"))
    assert "  dropped, because an earlier row has the same text and label: 1\n" in said
    assert "  dropped, because they have no text: 1\n" in said
    assert "  dropped, because they have no label: 1\n" in said
    assert "  kept, but with only one or two words: 1\n" in said
    assert "  longer than 1024 tokens with prompt, label and explanation: 1\n" in said
    assert "treated as names" in said


def test_labels_are_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("text,label\n1,[red]a\n2,[/b]\n3,[red]a\n4,[/b]\n", encoding="utf-8")
    assert main(["task", "new", "t", "--data", "t.csv", "--text", "text", "--label", "label"]) == 0
    said = capsys.readouterr().out
    assert "[red]a" in said
    assert "[/b]" in said


@pytest.mark.parametrize("name", NEW)
def test_the_task_is_read_back(name: str, place: Path) -> None:
    assert new(name) == 0
    task = read_task(Path(name) / "task.yml")
    assert task.name == name
    assert task.ordinal == (name == "scale")
    labels = {
        "tickets": set(LABELS),
        "scale": set("1234567"),
        "answers": {"right", "wrong"},
    }
    assert set(task.labels) == labels[name]
    assert task.data.path is not None
    assert task.data.path.resolve() == (place / NEW[name][1].split()[0]).resolve()


def metrics(text: str) -> list[str]:
    return re.findall(r"^  - \{metric: .*", text, re.MULTILINE)


@pytest.mark.parametrize("name", NEW)
def test_lm_eval_finds_the_task_with_its_metrics(name: str) -> None:
    assert new(name) == 0
    manager = TaskManager(include_path=name, include_defaults=False)
    tasks = {name: "_label_first", f"{name}-gen": "_explanation_first"}
    assert manager.all_tasks == sorted(tasks)
    for task, like in tasks.items():
        config: dict[str, Any] = manager._get_config(task)
        assert config["dataset_kwargs"] == {
            "setting": [name, "label"],
            "default_data_dir": f"runs/{name}/data",
        }
        built_in = (ROOT / "lm_eval_tasks" / f"{like}.yml").read_text(encoding="utf-8")
        (file,) = Path(name).rglob(f"{task}.yaml")
        mine = file.read_text(encoding="utf-8")
        # The metrics suit the labels, and are the same as in the built-in tasks.
        lines = [line for line in metrics(mine) if "auroc" not in line]
        assert lines == [
            line
            for line in metrics(built_in)
            if name == "scale" or not re.search(rf"({'|'.join(ORDINAL)})[,_]", line)
        ]
        auroc = [line for line in metrics(mine) if "auroc" in line]
        assert len(auroc) == (name == "answers") * (2 if task == name else 4)
        # All other keys are the same as in the built-in tasks.
        for key in re.findall(r"^\w+: .*", built_in, re.MULTILINE):
            assert key in mine, key


def test_the_config_is_the_shipped_one_with_its_folders() -> None:
    assert new("answers") == 0
    mine = Path("answers/answers.lora.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(mine)
    shipped = yaml.safe_load(LORA.read_text(encoding="utf-8"))
    changed = {key for key in shipped if config[key] != shipped[key]}
    assert list(config) == list(shipped)
    assert changed == {
        "base_model",
        "datasets",
        "test_datasets",
        "dataset_prepared_path",
        "output_dir",
        "regreason_eval_include_path",
        "num_epochs",
        "logging_steps",
    }
    assert config["base_model"] == TINY
    assert config["datasets"][0]["path"] == "runs/answers/data/train/{scope}/{arm}.jsonl"
    assert config["output_dir"] == "runs/answers/models/{scope}/{variant}/{arm}"
    assert "demo" not in mine
    assert "mini" not in mine
    _, _, comments = LORA.read_text(encoding="utf-8").partition("# --- The plugin")
    lost = set(re.findall(r"^ *#.*", comments, re.MULTILINE)) - set(mine.splitlines())
    assert len(lost) <= 4, lost
    arms = yaml.safe_load(Path("answers/arms.yml").read_text(encoding="utf-8"))
    assert arms == {"regreason_arm": ["label_only", "explanation", "shuffled"]}


def test_without_explanations_there_is_one_arm() -> None:
    assert new("tickets") == 0
    config = yaml.safe_load(Path("tickets/tickets.lora.yml").read_text(encoding="utf-8"))
    assert config["regreason_arm"] == "label_only"
    arms = yaml.safe_load(Path("tickets/arms.yml").read_text(encoding="utf-8"))
    assert arms == {"regreason_arm": ["label_only"]}
    readme = Path("tickets/README.md").read_text(encoding="utf-8")
    assert "base=runs/tickets/results/base" in readme
    assert "regreason explain tickets/task.yml annotation/explain.yml" in readme


def test_the_order_of_labels_is_what_ordinal_says(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text(
        'text,label\n1,"so, so"\n2,good\n3,bad\n4,"so, so"\n5,bad\n6,good\n', encoding="utf-8"
    )
    columns = ["--text", "text", "--label", "label"]
    command = ["task", "new", "t", "--data", "t.csv", *columns, "--ordinal"]
    assert main([*command, 'bad,"so, so",good', "--out", "deep/down"]) == 0
    task = read_task(Path("deep/down/task.yml"))
    assert (task.labels, task.ordinal) == (("bad", "so, so", "good"), True)
    assert "qwk" in Path("deep/down/t.yaml").read_text(encoding="utf-8")
    assert main([*command, "bad,good"]) == 2
    assert "--ordinal leaves out 'so, so'" in capsys.readouterr().err


def test_a_table_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(6)]
    stream = datasets.Dataset.from_list(rows, features=features).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    command = ["task", "new", "t", "--data", "org/name", "--text", "text", "--label", "label"]
    assert main([*command, "--subset", "main", "--hub-split", "dev", "--model", TINY]) == 0
    task = read_task(Path("t/task.yml"))
    assert (task.data.hub, task.data.config, task.data.split) == ("org/name", "main", "dev")
    assert task.data.path is None
    assert task.labels == ("no", "yes")
    assert [row.number for row in read_labelled(task)] == [1, 2, 1, 2, 1, 2]


def test_a_gated_table_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", refuses)
    command = ["task", "new", "t", "--data", "org/name", "--text", "text", "--label", "label"]
    assert main(command) == 2
    assert "org/name/train: is gated on the Hub: accept its terms" in (
        said := capsys.readouterr().err
    )
    assert said.strip().endswith("or download the file and name it with --data")
    assert not files()


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert new("scale") == 0
    Path("scale/task.yml").write_text("mine", encoding="utf-8")
    before = files()
    assert new("scale") == 2
    assert "scale: already exists; name another --out" in capsys.readouterr().err
    assert files() == before
    assert Path("scale/task.yml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("Scale --data scale.parquet --text answer --label points", "is not a valid task name"),
        (
            "regreason_a --data scale.parquet --text answer --label points",
            "reserved for the built-in",
        ),
        ("boolq --data scale.parquet --text answer --label points", "task or group of lm-eval"),
        ("mmlu --data scale.parquet --text answer --label points", "task or group of lm-eval"),
        ("a --data scale.parquet --text points --label points", "label column is the text column"),
        ("a --data scale.parquet --text answr --label points", "did you mean 'answer'?"),
        ("a --data scale.parquet --text answer --label reason", "has one row (and "),
        ("a --data none.csv --text answer --label points", "none.csv: no such file"),
        ("a --data no/body --text answer --label points", "no/body/train: cannot be loaded from"),
        ("a --data scale.parquet --text answer --label answer", "label column is the text column"),
        (
            "a --data scale.parquet --text answer --label points --out a;b",
            "--out 'a;b' becomes part",
        ),
        ("a --data scale.parquet --text answer --label points --ordinal 1,2", "leaves out '3'"),
        ("a --data odd.csv --text text --label label", "could be read as a special token"),
        ("a --data one.csv --text text --label label", "all rows have the label 'a'"),
    ],
)
def test_refuses_in_one_sentence(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scale(Path())
    Path("odd.csv").write_text("text,label\n1,<s>\n2,b\n3,<s>\n4,b\n", encoding="utf-8")
    Path("one.csv").write_text("text,label\n1,a\n2,a\n", encoding="utf-8")
    before = files()
    assert main(["task", "new", *arguments.split(), "--model", TINY]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len([line for line in error.splitlines() if line.startswith("regreason: ")]) == 1
    assert files() == before
    assert sorted(path.name for path in Path().iterdir()) == sorted(before)


def test_splits_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def load(name: str, config: str | None, *, split: str, **_: Any) -> datasets.IterableDataset:
        opened.append(split)
        rows = [{"text": f"{split} {n}", "label": "ab"[n % 2]} for n in range(8)]
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    command = ["task", "new", "t", "--data", "org/name", "--text", "text", "--label", "label"]
    assert main([*command, "--test", "test", "--validation", "dev", "--model", TINY]) == 0
    assert set(opened) == {"train", "test", "dev"}
    task = read_task(Path("t/task.yml"))
    found = [(row.split, row.text.split()[0]) for row in read_labelled(task)]
    expected = [("train", "train"), ("validation", "dev"), ("test", "test")]
    assert found == [pair for pair in expected for _ in range(8)]


def test_files_of_ones_own_splits(capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("train", 30), ("test", 10)):
        lines = [f"{name} message number {n},{'ab'[n % 2]}" for n in range(count)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *lines, lines[0]]) + "\n")
    with Path("train.csv").open("a") as stream:
        stream.write("Test: message number 3,b\n")
    command = ["task", "new", "t", "--data", "train.csv", "--text", "text", "--label", "label"]
    command += ["--test", "test.csv", "--model", TINY]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "train.csv, line 33 (train), has the text 'Test: message number 3'" in said
    assert "of test.csv, line 5 (test)" in said
    assert not Path("t").exists()
    assert main([*command, "--on-overlap", "drop"]) == 0
    printed = capsys.readouterr().out
    assert "your own splits: 30 train, 10 test rows; build draws validation" in printed
    assert "left out, because test or validation has their text or group: 1 train" in printed
    written = yaml.safe_load(Path("t/task.yml").read_text(encoding="utf-8"))
    assert written["data"] == {"path": "../train.csv", "test": "../test.csv"}
    assert written["split"] == {"validation": 0.1, "on_overlap": "drop", "seed": 0}
    assert main(["build", "t/task.yml", "--out", "data"]) == 0
    said = "(on_overlap: drop), because test or validation has their text or group: 1 train"
    assert said in capsys.readouterr().out
    assert main([*command[:9], "--out", "u", "--validation", "test.csv", "--model", TINY]) == 2
    assert "names validation but no test" in capsys.readouterr().err


def test_a_label_too_small_for_three_splits_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"message number {n},{'rare' if n < 2 else 'common'}" for n in range(40)]
    Path("t.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    command = ["task", "new", "t", "--data", "t.csv", "--text", "text", "--label", "label"]
    assert main([*command, "--model", TINY]) == 0
    said = "label 'rare' has 2 rows in 2 groups, too few to be in train, validation and test"
    assert said in capsys.readouterr().out
    assert main(["build", "t/task.yml", "--out", "data"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("data").exists()
