"""Reading lm_eval's results, and comparing arms with a baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.compared_results import ALL, FIRST, SECOND, SHA, THIRD, comparison_of, results, save
from helpers.results import documents, draw_scores, write_results

from regreason_plugin.comparison.compare import compare
from regreason_plugin.comparison.comparison import Wins, load_comparison
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import Run, read_models, read_run
from regreason_plugin.evaluate.samples import documents_of, read_answers
from regreason_plugin.render.markdown_page import to_markdown
from regreason_plugin.render.report_files import write


def run_of(folder: Path, content: dict[str, Any], date: str = "2026-01-01") -> Run:
    save(folder / "model", content, date)
    return read_run(folder.name, folder)


def test_wins_ties_and_differences(tmp_path: Path) -> None:
    base = run_of(tmp_path / "label_only", results(ALL))
    better = {**ALL, FIRST: 0.5, SECOND: 0.45, THIRD: 0.1}
    arm = run_of(tmp_path / "explanation", results(better))
    comparison = comparison_of([arm, base], "label_only")
    assert comparison.wins["explanation"] == Wins(wins=2, ties=15, losses=1, of=18)
    assert comparison.pooled["explanation"]["acc"].value == pytest.approx((0.1 + 0.05 - 0.3) / 18)
    assert [setting.task for setting in comparison.settings] == list(ALL)
    assert comparison.differences["explanation"][THIRD]["acc"].value == pytest.approx(-0.3)
    assert comparison.scores["explanation"][THIRD]["acc"].value == pytest.approx(0.1)


def test_the_written_files_are_the_same_in_any_order_of_folders(tmp_path: Path) -> None:
    base = run_of(tmp_path / "label_only", results({FIRST: 0.4, SECOND: 0.3}))
    arm = run_of(tmp_path / "shuffled", results({FIRST: 0.5, SECOND: 0.3}))
    other = run_of(tmp_path / "explanation", results({FIRST: 0.6, SECOND: 0.4}))
    written = write(compare([base, arm, other], "label_only"), tmp_path / "one")
    again = write(compare([other, arm, base], "label_only"), tmp_path / "two")
    assert [path.name for path in written] == [path.name for path in again]
    assert {"comparison.json", "comparison.md", "comparison.csv", "settings.tex"} <= {
        path.name for path in written
    }
    for one, two in zip(written, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one
    page = (tmp_path / "one" / "comparison.md").read_text()
    assert "GENERATED" in page
    assert SHA[:12] in page
    saved = load_comparison(tmp_path / "one" / "comparison.json")
    assert saved.data == {"sha256": SHA, "origin": "generated"}
    assert saved.arms == ["explanation", "shuffled"]
    assert "2 of 18 settings" in saved.notes[0]


def test_who_rated_the_data_is_said(tmp_path: Path) -> None:
    one = {FIRST: 0.4}
    data = {"sha256": SHA, "origin": "rated", "raters": ["rules-even", "rules-strict"]}
    rated = {"configs__" + FIRST: {"metadata": {"data": data}}}
    base = run_of(tmp_path / "label_only", results(one, **rated))
    arm = run_of(tmp_path / "explanation", results({FIRST: 0.5}, **rated))
    page = to_markdown(comparison_of([base, arm], "label_only"))
    assert "1 of 18 settings" in page
    assert "GENERATED" not in page
    assert "rated by rules-even, rules-strict, sha256" in page


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"configs__" + FIRST: {"metadata": {"data": {"sha256": "cd" * 32}}}}, "differ in data"),
        ({"n-samples__" + FIRST: {"effective": 100}}, "have different documents: "),
        ({"n-shot__" + FIRST: 3}, "differ in few-shot"),
        ({"versions__" + FIRST: 2.0}, "differ in task version"),
        ({"config__limit": 10.0}, "differ in --limit"),
        ({"chat_template_sha": "12"}, "differ in chat template"),
        ({"lm_eval_version": "0.4.13"}, "differ in lm_eval's version"),
    ],
)
def test_runs_that_differ_are_not_compared(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    base = run_of(tmp_path / "label_only", results(ALL))
    other = run_of(tmp_path / "explanation", results(ALL, **changes))
    with pytest.raises(UserError, match=expected):
        compare([base, other], "label_only")


def test_bad_names_and_missing_settings(tmp_path: Path) -> None:
    base = run_of(tmp_path / "label_only", results(ALL))
    fewer = run_of(tmp_path / "explanation", results({FIRST: 0.3}))
    with pytest.raises(UserError, match=f"has no results of {SECOND}"):
        compare([base, fewer], "label_only")
    # With the smaller arm as baseline, only its settings are compared, and a note says so.
    led = comparison_of([base, fewer], "explanation")
    assert len(led.settings) == 1
    assert any(
        "`label_only` has 17 settings that `explanation` lacks" in note for note in led.notes
    )
    with pytest.raises(UserError, match="is not an arm; name one of"):
        compare([base, fewer], "lable_only")
    with pytest.raises(UserError, match="names several models"):
        compare([base, base], "label_only")
    with pytest.raises(UserError, match="is the only arm; give a second NAME=RESULTS"):
        compare([base], "label_only")


def test_both_protocols_are_never_mixed(tmp_path: Path) -> None:
    mixed = {FIRST: 0.4, FIRST.replace("regreason_", "regreason-gen_"): 0.4}
    base = run_of(tmp_path / "label_only", results(mixed))
    other = run_of(tmp_path / "explanation", results(mixed))
    with pytest.raises(UserError, match="which cannot be compared"):
        compare([base, other], "label_only")


def test_arms_with_and_without_prefix_packing_are_not_compared(tmp_path: Path) -> None:
    runs = []
    for name, packed in {"label_only": True, "explanation": True, "shuffled": None}.items():
        model = tmp_path / "models" / name
        model.mkdir(parents=True)
        record = {"arm": name, "seed": 7, "prefix_packing": packed}
        record["data"] = {"sha256": "ab", "path": "data"}
        (model / "regreason.json").write_text(json.dumps(record))
        arguments = f"pretrained=base,peft={model}"
        runs.append(run_of(tmp_path / name, results({FIRST: 0.4}, config__model_args=arguments)))
    assert len(comparison_of(runs[:2], "label_only").runs) == 2
    with pytest.raises(
        UserError, match="'label_only' was trained with regreason_prefix_packing and"
    ):
        compare([runs[0], runs[2]], "label_only")
    with pytest.raises(UserError, match="and 'shuffled' without it, so their steps hold different"):
        compare([runs[2], runs[1]], "shuffled")


def test_arms_trained_on_different_data_are_not_compared(tmp_path: Path) -> None:
    runs = []
    for name, sha in {"label_only": "ab", "explanation": "ab", "shuffled": "cd"}.items():
        model = tmp_path / "models" / name
        model.mkdir(parents=True)
        record = {"arm": name, "seed": 7, "data": {"sha256": sha, "path": f"data-{sha}"}}
        (model / "regreason.json").write_text(json.dumps(record))
        arguments: Any = f"pretrained=base,peft={model}"
        if name == "explanation":  # the format of lm_eval 0.4.13
            arguments = {"pretrained": "base", "peft": str(model)}
        runs.append(run_of(tmp_path / name, results({FIRST: 0.4}, config__model_args=arguments)))
    same, other = comparison_of(runs[:2], "label_only"), runs[2]
    assert [run.training["seed"] for run in same.runs] == [7, 7]
    for run in same.runs:
        assert run.model_args == f"pretrained=base,peft={tmp_path}/models/{run.arm}"
    with pytest.raises(UserError, match="trained on different data .data-cd and data-ab"):
        compare([*runs[:2], other], "label_only")
    untrained = run_of(tmp_path / "base", results({FIRST: 0.4}))
    arms = comparison_of([*runs[:2], untrained], "base").arms
    assert arms == ["label_only", "explanation"]


def test_the_newest_results_count_and_the_others_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "label_only"
    run_of(folder, results(ALL), "2026-01-01")
    run = run_of(folder, results({**ALL, FIRST: 0.9}), "2026-02-01")
    assert run.tasks[FIRST].metrics["acc"] == 0.9
    assert [path.name for path in run.superseded] == ["results_2026-01-01T00-00-00.json"]


def test_settings_scored_in_several_runs_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "label_only"
    run_of(folder, results({FIRST: 0.1}), "2026-01-01")
    run = run_of(folder, results({SECOND: 0.2}), "2026-02-01")
    assert set(run.tasks) == {FIRST, SECOND}
    assert run.superseded == []


def test_folders_without_our_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such results folder"):
        read_run("x", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no results_\*\.json"):
        read_run("x", tmp_path)
    for content, expected in {
        "{": "is not JSON",
        "[]": "not a JSON object",
        "{}": "no results file of lm_eval",
        '{"results": {"arc_easy": {"acc,none": 1.0}}}': "results of other tasks only",
        json.dumps({"results": {FIRST: {"bypass,none": 1}}}): "predict_only",
        json.dumps({"results": {FIRST: {"acc,none": 1}}}): "do not name the data",
    }.items():
        (tmp_path / "results_2026.json").write_text(content)
        with pytest.raises(UserError, match=expected):
            read_run("x", tmp_path)


def test_a_group_that_is_in_two_settings_counts_once(tmp_path: Path) -> None:
    """Both settings have the same groups and predictions: pooling does not narrow intervals."""
    base = run_of(tmp_path / "label_only", results({FIRST: 0.4, SECOND: 0.4}))
    arm = run_of(tmp_path / "explanation", results({FIRST: 0.5, SECOND: 0.5}))
    comparison = comparison_of([base, arm], "label_only")
    pooled = comparison.pooled["explanation"]
    one = comparison.differences["explanation"][FIRST]
    for name in ("value", "se", "low", "high"):
        found, same = (getattr(of["label_entropy"], name) for of in (pooled, one))
        assert found == pytest.approx(same, abs=1e-9), name
    # By hand: a tenth of 200 groups of one document differs, by one. One unobserved event is added:
    # one document of 200; or, in both settings together, one of 400 with two in each group.
    seen, kappas = 0.09 / 199, []
    for of, count, settings in ((one, 200, 1), (pooled, 400, 2)):
        event = (0.09 / count + 1 / count**2) / (0.09 * count + 1)
        expected = max(seen, 0.09 / count * settings) + event * settings
        assert of["acc"].se == pytest.approx(expected**0.5)
        # Kappa's variance is raised for unobserved events by the factor of the accuracy's variance.
        kappas.append(max(seen, 0.09 / count * settings) + settings / count**2)
    assert one["qwk"].se is not None
    ratio = (kappas[1] / kappas[0]) ** 0.5
    assert pooled["qwk"].se == pytest.approx(one["qwk"].se * ratio)
    single = comparison_of(
        [run_of(tmp_path / name, results({FIRST: acc})) for name, acc in (("a", 0.4), ("b", 0.5))],
        "a",
    )
    assert single.pooled["b"] == single.differences["b"][FIRST]
    # Only one of the two models has 20 documents right: p is 2 to the power of -19.
    assert single.differences["b"][FIRST]["acc"].mcnemar_p == pytest.approx(2**-19)


def test_one_document_has_no_interval_and_the_verdict_says_so(tmp_path: Path) -> None:
    one = {"n-samples__" + FIRST: {"original": 1, "effective": 1}}
    base = run_of(tmp_path / "label_only", results({FIRST: 0.0}, **one))
    arm = run_of(tmp_path / "explanation", results({FIRST: 1.0}, **one))
    written = write(compare([base, arm], "label_only"), tmp_path / "out")
    comparison = load_comparison(tmp_path / "out" / "comparison.json")
    found = comparison.pooled["explanation"]["acc"]
    assert (found.value, found.low, found.high, found.p) == (1.0, None, None, None)
    primary, helps = comparison.answers[:2]
    assert primary.short == "Cannot be said"
    assert primary.sentences[0] == "One setting: no interval, because all documents are one group."
    assert helps.short == "Accuracy: exploratory"
    # No sentence mentions the other metrics, which are undefined.
    (sentence,) = helps.sentences
    assert "no interval" in sentence
    assert {path.name for path in written} >= {"report.html", "comparison.csv"}


def test_a_model_held_against_itself(tmp_path: Path) -> None:
    base = run_of(tmp_path / "label_only", results({FIRST: 0.4}))
    copy = run_of(tmp_path / "explanation", results({FIRST: 0.4}))
    comparison = comparison_of([base, copy], "label_only")
    found = comparison.pooled["explanation"]["acc"]
    assert (found.value, found.p) == (0, 1)
    assert comparison.answers[0].short == "Not enough to tell: 0.000"
    assert any("names of one model" in note for note in comparison.notes)


def test_samples_in_any_order_are_the_same(tmp_path: Path) -> None:
    """Several processes write the documents of one rank after those of another."""
    runs = [
        run_of(tmp_path / name, results({FIRST: acc})) for name, acc in (("a", 0.4), ("b", 0.5))
    ]
    before = comparison_of(runs, "a")
    (file,) = (tmp_path / "b").rglob("samples_*.jsonl")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[1::2], *lines[::2]]))
    assert comparison_of(runs, "a") == before


# The samples that lm_eval 0.4.11 and 0.4.13 write for `--samples`; 0.4.11 counts all documents.
@pytest.mark.parametrize("version", ["0.4.11", "0.4.13"])
def test_chosen_documents_of_either_version(tmp_path: Path, version: str) -> None:
    count, right = 40, {}
    for seed, (name, chosen) in enumerate({"a": [31, 2, 17, 8], "b": [8, 31, 2, 17]}.items()):
        scores = draw_scores(FIRST, count, 0.5, seed)
        labels = [row["label"] for row in documents(FIRST, count)]
        right[name] = sum(scores[n].argmax() + 1 == labels[n] for n in chosen) / 4
        write_results(tmp_path / name, {FIRST: scores}, chosen=chosen, version=version)
    runs = [read_run(name, tmp_path / name) for name in "ab"]
    comparison = comparison_of(runs, "a")
    assert comparison.settings[0].documents == 4
    assert {n: comparison.scores[n][FIRST]["acc"].value for n in "ab"} == right
    assert [documents_of(run.tasks[FIRST]) for run in runs] == [4, 4]
    write_results(tmp_path / "c", {FIRST: scores}, chosen=[8, 31, 3], version=version)
    with pytest.raises(UserError) as caught:
        comparison_of([runs[0], read_run("c", tmp_path / "c")], "a")
    ids = [row["id"] for row in documents(FIRST, count)]
    assert f"2 are in 'a' only ({ids[2]!r}, {ids[17]!r})" in str(caught.value)
    assert f"{ids[3]!r} is in 'c' only" in str(caught.value)


def test_files_of_one_folder_as_output_path(tmp_path: Path) -> None:
    """Files that lm_eval writes with ``--output_path tmp/one.json``: two models, two dates."""
    content, folder = results({FIRST: 0.4}), tmp_path / "kept"
    for stem, date, acc in (
        ("one", "2026-03-01", 0.5),
        ("one", "2026-02-01", 0.4),
        ("one_more", "2026-04-01", 0.3),
    ):
        content["results"][FIRST]["acc,none"] = acc
        content["config"]["model_args"] = f"pretrained={stem}"
        save(folder, content, date)
        name = f"{date}T00-00-00.json"
        (folder / f"results_{name}").rename(folder / f"{stem}_{name}")
    (folder / "other_2026-05-01T00-00-00.json").write_text("[]")  # a file of another program
    one, more = read_run("a", folder / "one.json"), read_run("b", folder / "one_more.json")
    assert one.tasks[FIRST].metrics["acc"] == 0.5
    assert [old.name for old in one.superseded] == ["one_2026-02-01T00-00-00.json"]
    assert read_answers(more.tasks[FIRST]).correct.mean() == 0.3
    assert [run.model for run in read_models("x", folder)] == ["one", "one_more"]
    with pytest.raises(UserError, match="no such results folder"):
        read_run("c", folder / "two.json")
    for file in folder.glob("samples_*2026-03*"):
        file.unlink()
    with pytest.raises(UserError, match="has no samples_.*_2026-03-01T00-00-00.jsonl beside it"):
        read_answers(one.tasks[FIRST])
