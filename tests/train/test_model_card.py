"""The model card: its content, and that foreign text in it is never markup."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.compared_results import FIRST, SECOND, results
from helpers.results import Task, draw_scores, write_results
from markdown_it import MarkdownIt

from regreason_plugin.train.model_card import write_card

SHA = "ef" * 32
RECORD: dict[str, Any] = {
    "arm": "shuffled",
    "order": "label_first",
    "data": {"path": "/home/someone/data", "sha256": SHA, "origin": "rated"},
    "base_model": "mistralai/Mistral-7B-v0.1",
    "adapter": "qlora",
    "chat_template": False,
    "seed": 7,
    "label_share": 0.5,
    "label_smoothing": 0.1,
    "lora_dropout": 0.05,
    "weight_decay": 0.01,
    "budget": "tokens",
    "rows": 45000,
    "steps": 120,
    "epochs": 2.0,
    "target_tokens": 1234567,
    "processes": 8,
    "config_sha256": "12" * 32,
    "cost": {
        "seconds": 4321.4,
        "tokens": 7654321,
        "peak_memory_mib": 1536.0,
        "peak_gpu_mib": 20480.0,
        "machine": {"system": "Linux x86_64", "cores": 16, "threads": 8, "gpu": "<NVIDIA> H100"},
    },
    "versions": {"regreason": "0.1.0", "torch": "2.13.0"},
}


def card(folder: Path, scored: dict[str, Any] | None = None, **changes: Any) -> tuple[str, Any]:
    """The card's text, and its front matter."""
    (folder / "regreason.json").write_text(json.dumps({**RECORD, **changes}))
    if scored is not None:
        (folder / "eval").mkdir()
        (folder / "eval/results_2026.json").write_text(json.dumps(scored))
    write_card(folder, folder / "eval" if scored is not None else None)
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    return body, yaml.safe_load(front)


def table(body: str) -> dict[str, list[str]]:
    """Cells of the rendered tables, by the first cell of their row."""
    rows: dict[str, list[str]] = {}
    row: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        if token.type == "tr_open":
            row = []
        elif token.type == "inline":
            row.append("".join(part.content for part in token.children or []))
        elif token.type == "tr_close" and row:
            rows[row[0]] = row[1:]
    return rows


def test_it_says_how_the_model_was_trained(tmp_path: Path) -> None:
    body, front = card(tmp_path)
    assert front == {
        "library_name": "peft",
        "base_model": "mistralai/Mistral-7B-v0.1",
        "pipeline_tag": "text-generation",
        "tags": ["regreason", "axolotl", "qlora"],
    }
    said = {name: cells[0] for name, cells in table(body).items() if cells}
    assert said["first in the target"] == "label"
    assert said["label's share of the loss"] == "0.5"
    assert said["budget"] == "tokens"
    assert said["seed"] == "7"
    assert said["target tokens"] == "1,234,567"
    assert said["versions"] == "regreason 0.1.0, torch 2.13.0"
    assert said["sha256 of the config"] == "12" * 32
    assert said["tokens read"] == "7,654,321"
    assert said["time (seconds)"] == "4,321, on <NVIDIA> H100"
    assert (said["peak memory (GiB)"], said["peak GPU memory (GiB)"]) == ("1.5", "20")
    assert SHA in body
    assert "`shuffled`, whose target is the label and the words of its explanation in" in body
    assert "Not scored yet." in body
    assert "GENERATED" not in body
    # The card does not show paths of the machine that trained the model.
    assert "/home/someone" not in body


def test_generated_data_are_called_so_and_a_full_training_has_no_adapter(tmp_path: Path) -> None:
    data = {"path": "d", "sha256": SHA, "origin": "generated"}
    body, front = card(tmp_path, data=data, adapter=None, label_share=None, chat_template=True)
    assert front["library_name"] == "transformers"
    assert "**The conversations are GENERATED" in body
    assert "peft" not in body.lower()
    assert table(body)["label's share of the loss"] == [
        "not fixed: the label's part of the target tokens"
    ]
    own = "each micro-batch (Axolotl's own loss)"
    for share, mean, said in (
        (None, None, own),
        (None, "micro_batch", own),
        (None, "step", "a whole step"),
        (0.5, None, "a whole step"),
    ):
        other, _ = card(tmp_path, label_share=share, loss_mean=mean)
        assert table(other)["loss is a mean over"] == [said]
    assert "--model_args pretrained=.,tokenizer=. " in body
    assert "--apply_chat_template" in body


def test_the_scores_are_those_of_lm_eval(tmp_path: Path) -> None:
    scored = results({FIRST: 0.5, SECOND: 0.75}, config__limit=40.0)
    for task, extra in ((FIRST, 1.5), (SECOND, 1.25)):
        scored["results"][task] |= {"nll,none": extra, "nll_stderr,none": 0.25}
    body, _ = card(tmp_path, scored)
    rows = table(body)
    assert rows[FIRST] == ["200", "0.300", "0.500 ± 0.030", "-", "-", "1.500 ± 0.250", "-"]
    assert rows["mean, 2 of 18"] == ["", "0.300", "0.625", "-", "-", "1.375", "-"]
    assert "2 of 18 settings" in body
    assert "**Only the first 40 documents of each task: a trial.**" in body


def test_the_scores_of_chosen_documents_are_called_so(tmp_path: Path) -> None:
    chosen = {"original": 200, "effective": 50}
    body, _ = card(tmp_path, results({FIRST: 0.5}, **{"n-samples__" + FIRST: chosen}))
    assert table(body)[FIRST][0] == "50"
    assert "**Only chosen documents (lm_eval's `--samples`): a trial.**" in body


@pytest.mark.parametrize(
    "base",
    [
        "runs/a|b `code` <script>alert(1)</script> [x](http://evil) ``` \u202e",
        "base: {x: [1, 2]} # no\n---\nlicense: mit\n",
        "'; rm -rf / #",
        "../base",
    ],
)
def test_a_name_is_never_markup(tmp_path: Path, base: str) -> None:
    body, front = card(tmp_path, base_model=base)
    assert set(front) == {"library_name", "pipeline_tag", "tags"}
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    parts = [part for token in tokens for part in token.children or []]
    assert not [token for token in (*tokens, *parts) if token.type.startswith("html")]
    links = [part.attrs["href"] for part in parts if part.type == "link_open"]
    assert links == ["https://arxiv.org/abs/2511.02044"]
    spans = {part.content for part in parts if part.type == "code_inline"}
    shown = " ".join("".join(c if c.isprintable() else " " for c in base).split())
    assert shown in {span.replace("\\|", "|") for span in spans}
    headings = [tokens[n + 1].content for n, t in enumerate(tokens) if t.type == "heading_open"]
    assert headings == ["shuffled, seed 7", "Training", "Scores", "Use", "Licence"]
    # The command that a reader would paste names the same model.
    (python,) = (t.content for t in tokens if t.type == "fence" and t.info == "python")
    values: dict[str, Any] = {}
    (line,) = re.findall(r"^base = .*$", python, re.MULTILINE)
    exec(line, values)
    assert values["base"] == base


def test_a_task_of_ones_own_names_its_labels_and_how_to_score_it(tmp_path: Path) -> None:
    declaration = {
        "labels": ["Billing", "<b>Sales</b> | `x`", "支払い"],
        "ordinal": False,
        "datasets": {"tickets": {"title": "Tickets *of* 2026"}},
        "axes": {"label": {"title": "label"}},
        "prompt": "Which queue? {text}",
    }
    data = {"path": "d", "sha256": SHA, "origin": "own", "declaration": declaration}
    task = Task("tickets", tuple(declaration["labels"]))
    (tmp_path / "scored").mkdir()
    file = write_results(tmp_path / "scored", {task: draw_scores(task, 40, 0.5, 1)})
    body, _ = card(tmp_path, json.loads(file.read_text(encoding="utf-8")), data=data)
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    parts = [part for token in tokens for part in token.children or []]
    assert not [one for one in (*tokens, *parts) if one.type.startswith("html")]
    assert not [one for one in parts if one.type == "em_open"]
    spans = {part.content.replace("\\|", "|") for part in parts if part.type == "code_inline"}
    assert {"Billing", "<b>Sales</b> | `x`", "支払い"} <= spans
    assert "from 1 to 5" not in body
    assert "one of 3 labels" in body
    (shell,) = (t.content for t in tokens if t.type == "fence" and t.info == "bash")
    words = shlex.split(shell)
    assert words[words.index("--tasks") + 1] == "tickets"
    rows = table(body)
    assert "mean, 1 task" in rows
    # There is no kappa for unordered labels and no AUROC for three labels.
    assert len(rows["tickets"]) == 6
