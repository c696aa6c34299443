"""The `regreason` command as a user types it: what it writes, and how it fails."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from regreason_plugin.cli import GROUPS, main

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "regreason_plugin"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A hundred HH-RLHF pairs on different subjects."""
    subjects = [
        "bread",
        "rain",
        "chess",
        "tax",
        "paint",
        "bees",
        "sleep",
        "trains",
        "knots",
        "salt",
    ]
    path = tmp_path / "pairs.jsonl"
    with path.open("w") as stream:
        for number in range(100):
            subject = subjects[number % 10]
            ask = f"\n\nHuman: Tell me {number} things about {subject}."
            good = f"{ask}\n\nAssistant: The {subject} is old. People like the {subject} a lot."
            bad = f"{ask}\n\nAssistant: I I do not know. My uncle has a hat number {number}."
            stream.write(json.dumps({"chosen": good, "rejected": bad}) + "\n")
    return path


def test_the_steps_by_hand(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for side in ("hh_chosen", "hh_rejected"):
        assert main(["import", side, "--path", str(pairs), "--out", f"{side}.jsonl"]) == 0
    Path("annotate.yml").write_text(
        "conversations: [hh_chosen.jsonl, hh_rejected.jsonl]\nout: ratings.jsonl\n"
    )
    assert main(["annotate", "annotate.yml"]) == 0
    assert main(["build", "ratings.jsonl", "--out", "data", "--arms", "label_only,shuffled"]) == 0
    printed = capsys.readouterr().out
    assert "600 ratings" in printed
    assert "rated data" in printed
    assert "built-in rules" in printed
    manifest = json.loads(Path("data/manifest.json").read_text())
    assert manifest["arms"] == ["label_only", "shuffled"]
    assert all(rater.startswith("rules-") for rater in manifest["raters"])
    rows = [json.loads(line) for line in Path("data/train/shuffled.jsonl").read_text().splitlines()]
    # The pair's two sides, which share their first turn, are on one side of the split.
    test = [json.loads(line) for line in Path("data/test.jsonl").read_text().splitlines()]
    assert {row["dataset"] for row in test} == {"hh_chosen", "hh_rejected"}
    assert not {row["group"] for row in rows} & {row["group"] for row in test}


def test_the_mini_benchmark_says_that_it_is_generated(tmp_path: Path) -> None:
    assert main(["build", "mini", "--out", str(tmp_path / "data"), "--per-dataset", "60"]) == 0
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["origin"] == "generated"
    assert manifest["note"].startswith("Conversations are generated")
    assert len(manifest["counts"]["test"]["labels"]) == 18


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["import", "hh_choosen", "--out", "F"], "did you mean 'hh_chosen'?"),
        (["import", "hh_chosen", "--path", "nowhere", "--out", "F"], "nowhere: no such file"),
        (["import", "coqa", "--path", "nowhere", "--out", "F"], "nowhere: no such file"),
        (["build", "nowhere.jsonl", "--out", "DATA"], "nowhere.jsonl: no such file"),
        (["build", "broken.jsonl", "--out", "DATA"], "broken.jsonl, line 1"),
        (
            ["build", "broken.jsonl", "--out", "DATA", "--arms", "shufled"],
            "did you mean 'shuffled'",
        ),
        (["build", "broken.jsonl", "--out", "DATA", "--tokenizer", "gone"], "--tokenizer 'gone'"),
        (["annotate", "nowhere.yml"], "nowhere.yml: no such file"),
        (["annotate", "list.yml"], "list.yml: is not a YAML mapping"),
        (["annotate", "typo.yml"], "field converstions"),
        (["annotate", "rater.yml"], "did you mean 'rules-even'?"),
        (["annotate", "twice.yml"], "is also on line 1"),
        (["compare", "a", "--baseline", "a", "--out", "DIR"], "'a' is not NAME=RESULTS"),
        (["compare", "a=nowhere", "--baseline", "a", "--out", "DIR"], "no such results folder"),
        (["gate", "a=x", "x", "--baseline", "a"], "'x' is not NAME=RESULTS"),
        (["gate", "a=x", "a=y", "--baseline", "a"], "the name 'a' is used twice"),
        (["gate", "a=x", "b=y", "--baseline", "c"], "--baseline 'c' is not one of a, b"),
        (
            ["build", "one.jsonl", "--out", "DATA", "--per-dataset", "60"],
            "is for mini only",
        ),
        (["demo", "--arms", "explanation,shuffled"], "checkout"),
        (["demo", "--arms", "explanaton"], "did you mean 'explanation'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_nothing_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    one = {
        "id": "a",
        "dataset": "coqa",
        "group": "g",
        "conversation": [{"role": "assistant", "content": "r"}],
    }
    files = {
        "broken.jsonl": '{"id": "a"',
        "one.jsonl": json.dumps(one) + "\n",
        "list.yml": "- a\n",
        "typo.yml": "conversations: [one.jsonl]\nconverstions: []\nout: F\n",
        "rater.yml": "conversations: [one.jsonl]\nout: F\nraters: [rules-evn]\n",
        "twice.yml": "conversations: [one.jsonl, one.jsonl]\nout: F\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    message = [line for line in captured.err.splitlines() if line.startswith("regreason: ")]
    assert len(message) == 1
    assert expected in message[0]
    assert "Traceback" not in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_help_lists_every_command_and_each_has_a_text_and_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def help_of(*command: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*command, "--help"])
        assert stopped.value.code == 0
        return capsys.readouterr().out

    listed = help_of()
    known = {name: command for group in GROUPS.values() for name, command in group.items()}
    commands = re.findall(r"^  (\w[\w-]*) +[A-Z]", listed, re.MULTILINE)
    groups = re.findall(r"^(\w+):$", listed, re.MULTILINE)
    assert groups == ["options", "data", "train", "score", "compare", "use"]
    assert len(commands) == len(set(commands)) >= 15
    for command in set(commands) - {"eval"}:  # whose help is lm_eval's
        text = help_of(command)
        parser = argparse.ArgumentParser()
        known[command][0](parser)
        assert [action.dest for action in parser._actions if not action.help] == []
        assert f"Example:\n    regreason {command} " in text
        assert len(text.split("Example:")[0].split("\n\n")) >= 3  # usage, a line, a paragraph


ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "axolotl_configs/**/*.*", "lm_eval_tasks/**/*.md")
    for path in ROOT.glob(pattern)
    if path.suffix in {".md", ".yml", ".yaml"} and path.name != "CHANGELOG.md"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_docs_say_to_type_is_a_command_with_such_options(page: Path) -> None:
    known = {name: command for group in GROUPS.values() for name, command in group.items()}
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"(?:^ *(?:\$ )?|`|#   )regreason ([a-z][^`#|\n]*)", text, re.MULTILINE):
        name, *words = line.split()
        assert name in known, line
        if name in ("eval", "check"):  # whose options are also lm_eval's and Axolotl's
            continue
        parser = argparse.ArgumentParser()
        known[name][0](parser)
        options = [word.strip("[]()'").partition("=")[0] for word in words]
        for option in options:
            if option.startswith("--"):
                assert option in parser.format_help(), line


@pytest.mark.parametrize("command", [["build", "r", "--out", "D"], ["demo"]])
def test_an_unknown_option_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--bogus"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: --bogus" in capsys.readouterr().err


def test_the_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "build", "nowhere.jsonl", "--out", "DATA"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "regreason: nowhere.jsonl: no such file"
    wrong_flag = subprocess.run([*COMMAND, "build", "--bogus"], capture_output=True, check=False)
    assert wrong_flag.returncode == 2
