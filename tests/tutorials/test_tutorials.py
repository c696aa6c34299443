"""The commands of the README and of the tutorials, as typed, on small data.

The demo's tutorial is `make demo`, which CI runs. Where a page downloads a model or waits long for
one, a link to the tiny base model takes that model's place; no command is changed.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers.labelled_tables import write_tickets_of_customers
from helpers.typed_commands import blocks, in_python, typed

from regreason_plugin import load_comparison

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs/tutorials"
TINY = ROOT / "axolotl_configs/cpu/tiny-base"


def checkout(place: Path) -> Path:
    """A folder that looks like a checkout to the commands of a page."""
    for name in ("axolotl_configs", "lm_eval_tasks"):
        (place / name).symlink_to(ROOT / name)
    return place


def test_the_table_tutorial_ends_in_a_gated_classifier(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    write_tickets_of_customers(place)
    (place / "new.csv").write_text("message\nWhere is my parcel?\nMy login fails.\n")
    (place / "models").mkdir()
    (place / "models/smollm2").symlink_to(TINY)
    commands = blocks(TUTORIALS / "own_table.md", "bash")
    downloads = [block for block in commands if block.startswith("regreason base smollm2")]
    gates = [block for block in commands if block.startswith("regreason gate")]
    assert (len(downloads), len(gates)) == (1, 1)
    for block in commands:
        if block not in downloads:
            typed(block, place, codes=(0, 1, 3) if block in gates else (0,))
    comparison = load_comparison(place / "runs/tickets/report/comparison.json")
    assert comparison.arms == ["explanation", "shuffled", "tfidf"]
    # (Each message names its queue's own word, which only a broken chain of files would hide.)
    assert comparison.pooled_scores["tfidf"]["acc"].value == 1.0
    with (place / "runs/tickets/predicted.csv").open(encoding="utf-8") as stream:
        labels = [row["label"] for row in csv.DictReader(stream)]
    assert len(labels) == 2
    assert set(labels) <= {"billing", "technical", "delivery"}
    # The README's Python, in the folder that its commands left.
    (program,) = blocks(ROOT / "README.md", "python")
    printed = in_python(program, place)
    assert comparison.answers[0].short in printed
    assert "Prediction(label=" in printed


def test_the_readme_types_what_the_table_tutorial_types() -> None:
    def lines(page: Path) -> list[list[str]]:
        joined = "".join(blocks(page, "bash")).replace("\\\n", " ")
        return [shlex.split(line, comments=True) for line in joined.splitlines() if line.strip()]

    tested = lines(TUTORIALS / "own_table.md") + lines(TUTORIALS / "demo.md")
    # The installation, which `make setup` also does, and the tests themselves.
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (torch,) = re.findall(r"torch==[\d.]+", makefile)
    install = ["pip", "install"]
    others = [[*install, torch], [*install, "-c", "constraints.txt", ".[train]"], ["make", "test"]]
    for line in filter(None, lines(ROOT / "README.md")):
        assert line in tested or line in others, shlex.join(line)


def test_links_of_pages_outside_the_site_lead_to_files() -> None:
    # (`mkdocs build --strict` checks the pages of the site.)
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    pages = [ROOT / name for name in tracked.stdout.split() if not name.startswith("docs/")]
    assert ROOT / "README.md" in pages
    for page in pages:
        for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not link.startswith(("http:", "https:")):
                assert (page.parent / link).exists(), f"{page}: {link}"


def test_the_guide_compares_two_checkpoints_and_prints_what_it_says(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    (place / "docs").symlink_to(ROOT / "docs")
    page = ROOT / "docs/guides/compare_checkpoints.md"
    commands = blocks(page, "bash")
    assert [command.split()[1] for command in commands] == ["compare", "gate", "power"]
    # The first block that is no bash is lm_eval's command; the others are what ours print.
    _, *outputs = blocks(page, "text")
    for command, output in zip(commands, outputs, strict=True):
        printed = " ".join(typed(command, place, codes=(0, 1, 3)).split())
        for part in output.split("...\n"):
            assert " ".join(part.split()) in printed
    assert (place / "report/report.html").is_file()
    (program,) = blocks(page, "python")
    printed = in_python(program, place)
    assert "Higher, of these models: +0.102" in printed
    assert re.search(r"gsm8k +0\.242 +0\.098 +0\.375", printed)
    (rules,) = blocks(page, "yaml")
    assert rules.partition("\n")[2] == (ROOT / "docs/examples/checkpoints/gate.yml").read_text()


def test_the_notebook_runs_in_one_process(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    program = "\n".join(blocks(TUTORIALS / "notebook.md", "python"))
    printed = in_python(program, place)
    comparison = load_comparison(place / "runs/notebook/report/comparison.json")
    assert len(comparison.settings) == 18
    # The primary question, as the page and the notebook print it.
    assert comparison.answers[0].short in printed
    assert (place / "runs/notebook/report/report.html").is_file()
    verdict = re.search(r"^(pass|fail|undecided) Requirement", printed, re.MULTILINE)
    assert verdict, printed[-2000:]
    # One value for the embeddings, and one for each of the tiny model's four blocks.
    assert re.search(r"^\[0\.\d+(, 0\.\d+){4}\]$", printed, re.MULTILINE)


def test_the_hh_rlhf_tutorial_compares_two_arms(tmp_path: Path) -> None:
    folder = os.environ.get("REGREASON_TEST_DATA")
    real = Path(folder or "") / "hh-rlhf/helpful-base-test.jsonl.gz"
    if not (folder and real.is_file()):
        pytest.skip("REGREASON_TEST_DATA names no folder with hh-rlhf/helpful-base-test.jsonl.gz")
    place = checkout(tmp_path)
    (place / "helpful-base-test.jsonl.gz").symlink_to(real)
    for block in blocks(TUTORIALS / "hh_rlhf.md", "bash"):
        typed(block, place)
    plain, probed = (
        load_comparison(place / f"runs/hh/{name}/comparison.json")
        for name in ("report", "probed-report")
    )
    assert len(plain.settings) == len(probed.settings) == 6
    # `hf` and `regreason-hf` give the same scores; only the second has entropies by layer.
    for arm, scores in plain.pooled_scores.items():
        assert probed.pooled_scores[arm]["nll"].value == pytest.approx(
            scores["nll"].value, abs=0.02
        )
    assert not plain.layers
    assert "activation_entropy" in probed.layers
