"""Comparisons of a user's own tasks: any labels, ordered or not, one task or several."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.group_contributions import allowance
from helpers.results import ALL, SETTING_OF, SHA, Task, documents, draw_scores, write_results
from markdown_it import MarkdownIt
from rich.console import Console
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import (
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
    precision_recall_fscore_support,
    roc_auc_score,
)

from regreason_plugin.cli import main
from regreason_plugin.comparison.compare import Compared, compare
from regreason_plugin.comparison.comparison import load_comparison
from regreason_plugin.comparison.gate import Rule, decide
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.evaluate.results import read_run
from regreason_plugin.evaluate.samples import read_answers
from regreason_plugin.metrics.answers import Answers
from regreason_plugin.metrics.group_sums import statistics_of
from regreason_plugin.metrics.metric_names import METRICS
from regreason_plugin.render.report_files import write
from regreason_plugin.render.terminal import print_comparison

TICKETS = Task(
    "tickets",
    (
        "Billing",
        "Billing & refunds, disputed",
        "Technical support",
        "支払いの問題",
        "شكوى",
        "<script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "🙂 praise",
        "A queue with a very long name, so long that no table's column has room for it",
        '"Other"',
        r"\input{a} $x$ {{ 7 * 7 }}",
        "[x](javascript:alert(1)) | *b* `c`",
    ),
    title="Tickets <b>of</b> [bold]2026[/bold]",
)
REVIEWS = Task("reviews", tuple("1234567"), ordinal=True)
MARKED = Task("answers", ("right", "wrong"))
COUNT = 240
ARMS = {"label_only": 0.5, "explanation": 0.65}


def compared(folder: Path, *tasks: Task, group_size: int = 1) -> Compared:
    for name in ARMS:
        scores = {task: drawn(task, name) for task in tasks}
        write_results(folder / name, scores, group_size=group_size)
    return compare([read_run(name, folder / name) for name in ARMS], "label_only")


def drawn(task: Task, arm: str) -> Any:
    return draw_scores(task, COUNT, ARMS[arm], list(ARMS).index(arm))


def labels_of(task: Task | str) -> Any:
    return np.array([row["label"] for row in documents(task, COUNT)])


class Heads(HTMLParser):
    """The text of a page's table heads, and the number of start tags of each kind."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.heads, self.tags, self.inside = [""], Counter[str](), False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        if tag == "th":
            self.inside = True
            self.heads.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "th"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.heads[-1] += data


def test_twelve_labels_without_an_order(tmp_path: Path) -> None:
    one = compared(tmp_path, TICKETS)
    c = one.comparison
    assert [name for name in METRICS if name in c.metrics] == c.metrics
    assert not {"qwk", "mae", "auroc"} & {*c.metrics}
    (setting,) = c.settings
    assert (setting.task, setting.dataset, setting.ordinal) == ("tickets", "tickets", False)
    assert setting.label_names == list(TICKETS.labels)
    assert c.settings_in_paper is None
    assert "1 task, 240 documents" in c.notes[0]
    right, every = labels_of(TICKETS), range(1, 13)
    for arm in ARMS:
        predicted = drawn(TICKETS, arm).argmax(axis=1) + 1
        found = {name: score.value for name, score in c.scores[arm]["tickets"].items()}
        assert found["acc"] == pytest.approx(np.mean(predicted == right), abs=1e-8)
        expected = f1_score(right, predicted, labels=every, average="macro", zero_division=0)
        assert found["macro_f1"] == pytest.approx(expected, abs=1e-8)
        nll = log_loss(right, softmax(drawn(TICKETS, arm), axis=1), labels=every)
        assert found["nll"] == pytest.approx(nll, abs=1e-8)
        table = confusion_matrix(right, predicted, labels=every)
        assert c.confusion[arm] == {"all": table.tolist()}
        by_label = precision_recall_fscore_support(
            right, predicted, labels=every, zero_division=np.nan
        )
        assert [label.label for label in c.classes[arm]["tickets"]] == list(TICKETS.labels)
        for label, *rest in zip(c.classes[arm]["tickets"], *by_label, strict=True):
            told = (label.precision, label.recall, label.f1, label.support)
            assert told == pytest.approx(tuple(rest), abs=1e-8)


def test_hostile_labels_are_text_in_every_file(tmp_path: Path) -> None:
    one = compared(tmp_path, TICKETS)
    written = {path.name: path for path in write(one, tmp_path / "page")}
    assert load_comparison(written["comparison.json"]) == one.comparison
    page = written["report.html"].read_text(encoding="utf-8")
    parsed = Heads(page)
    for number, label in enumerate(TICKETS.labels, start=1):
        assert f"{number}. {label}" in parsed.heads
        assert label in parsed.heads
    assert TICKETS.title in parsed.heads
    # Two scripts, the page's data and its own code: no label became a script.
    assert parsed.tags["script"] == 2
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    print_comparison(one.comparison, console)
    assert "1 task, 1 seed per arm" in " ".join(console.export_text().split())
    markdown = written["comparison.md"].read_text(encoding="utf-8")
    assert "1 task, 1 seed per arm" in markdown
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    parts = [part for token in tokens for part in token.children or []]
    assert not [one for one in (*tokens, *parts) if one.type.startswith("html")]
    assert not [one for one in parts if one.type in ("link_open", "em_open")]
    said = ["".join(part.content for part in token.children or []) for token in tokens]
    right = labels_of(TICKETS)
    predicted = drawn(TICKETS, "label_only").argmax(axis=1) + 1
    precision, recall, _, support = precision_recall_fscore_support(right, predicted)
    for place, label in enumerate(TICKETS.labels):
        at = said.index(label)
        cells = [text for text in said[at + 1 : at + 7] if text]
        assert cells[:2] == [str(support[place]), f"{precision[place]:.2f} / {recall[place]:.2f}"]
    assert "confusion.svg" in written


def check_jackknife(
    difference: Any,
    groups: np.ndarray,  # type: ignore[type-arg]
    of_kept: Callable[[Any], float],
    correct: dict[str, Any],
) -> None:
    """Its standard error and interval match those of leaving out each group by hand."""
    without = [of_kept(groups != g) for g in np.unique(groups)]
    ahead = correct["explanation"].astype(float) - correct["label_only"]
    variance = (len(without) - 1) * np.var(without) * allowance(ahead, groups)
    assert difference.se == pytest.approx(variance**0.5, rel=1e-6)
    reach = float(stats.t.isf(0.025, len(without) - 1)) * difference.se
    expected = difference.value - reach, difference.value + reach
    assert (difference.low, difference.high) == pytest.approx(expected, abs=1e-8)


def test_seven_points_have_what_needs_an_order(tmp_path: Path) -> None:
    c = compared(tmp_path, REVIEWS, group_size=2).comparison
    assert {"qwk", "mae"} <= {*c.metrics}
    right, groups = labels_of(REVIEWS), np.arange(COUNT) // 2
    predicted = {arm: drawn(REVIEWS, arm).argmax(axis=1) + 1 for arm in ARMS}

    def kappa(rows: Any, arm: str) -> float:
        return float(
            cohen_kappa_score(
                right[rows], predicted[arm][rows], weights="quadratic", labels=range(1, 8)
            )
        )

    everything = np.arange(COUNT)
    for arm in ARMS:
        found = c.scores[arm]["reviews"]
        assert found["qwk"].value == pytest.approx(kappa(everything, arm), abs=1e-8)
        mae = mean_absolute_error(right, predicted[arm])
        assert found["mae"].value == pytest.approx(mae, abs=1e-8)
    difference = c.differences["explanation"]["reviews"]["qwk"]
    check_jackknife(
        difference,
        groups,
        lambda kept: kappa(kept, "explanation") - kappa(kept, "label_only"),
        {arm: drawn(REVIEWS, arm).argmax(axis=1) + 1 == right for arm in ARMS},
    )


def test_kappa_needs_two_right_labels_and_not_two_predictions() -> None:
    one, other = np.full(6, 3), np.array([1, 2, 3, 4, 5, 6])
    found = []
    for labels, predictions in ((one, other), (other, one)):
        answers = Answers(
            task="reviews",
            source=Path("samples.jsonl"),
            ids=list("abcdef"),
            hashes=list("abcdef"),
            groups=list("abcdef"),
            labels=labels,
            log_probabilities=np.log(0.1 + 0.3 * np.eye(7)[predictions - 1]),
            probes={},
            layers={},
        )
        found.append(statistics_of([answers])["qwk"].values[0])
    assert np.isnan(found[0])
    assert found[1] == 0


def test_two_labels_have_an_area_under_the_curve(tmp_path: Path) -> None:
    c = compared(tmp_path, MARKED, group_size=2).comparison
    assert "auroc" in c.metrics
    assert "qwk" not in c.metrics
    right, groups = labels_of(MARKED), np.arange(COUNT) // 2
    odds = {arm: np.diff(drawn(MARKED, arm))[:, 0] for arm in ARMS}

    def area(rows: Any, arm: str) -> float:
        return float(roc_auc_score(right[rows] == 2, odds[arm][rows]))

    everything = np.arange(COUNT)
    for arm in ARMS:
        found = c.scores[arm]["answers"]["auroc"].value
        assert found == pytest.approx(area(everything, arm), abs=1e-8)
    difference = c.differences["explanation"]["answers"]["auroc"]
    check_jackknife(
        difference,
        groups,
        lambda kept: area(kept, "explanation") - area(kept, "label_only"),
        {arm: drawn(MARKED, arm).argmax(axis=1) + 1 == right for arm in ARMS},
    )
    assert difference.effect is None


def test_scores_by_character_are_compared_by_character(tmp_path: Path) -> None:
    lengths = Task("lengths", ("no", "certainly so"), normalise="characters")
    scores = np.tile([[-2.0, -6.0], [-1.0, -9.0]], (5, 1))
    write_results(tmp_path / "m", {lengths: scores})
    answers = read_answers(read_run("m", tmp_path / "m").tasks["lengths"])
    expected = softmax(scores / [2, 12], axis=1)
    np.testing.assert_allclose(np.exp(answers.log_probabilities), expected)
    # Only normalisation by character lets the longer label win the first document.
    assert answers.predictions[:2].tolist() == [2, 1]


def test_several_tasks_with_labels_of_their_own(tmp_path: Path) -> None:
    c = compared(tmp_path, TICKETS, REVIEWS, MARKED).comparison
    tasks = ["answers", "reviews", "tickets"]
    assert [setting.task for setting in c.settings] == tasks
    assert c.metrics[:2] == ["acc", "macro_f1"]
    assert not {"qwk", "mae", "auroc"} & {*c.metrics}
    assert any(
        "quadratic weighted kappa, mean absolute error and area under the ROC curve" in note
        for note in c.notes
    )
    assert {task: len(table) for task, table in c.confusion["label_only"].items()} == {
        "answers": 2,
        "reviews": 7,
        "tickets": 12,
    }
    assert {task: len(found) for task, found in c.classes["label_only"].items()} == {
        "answers": 2,
        "reviews": 7,
        "tickets": 12,
    }
    for task in (TICKETS, REVIEWS, MARKED):
        assert task.data["sha256"] in c.data["sha256"]
    assert "labels" not in c.data
    assert "3 tasks" in c.notes[0]


def test_groups_of_one_name_in_other_folders_are_not_the_same(tmp_path: Path) -> None:
    pair = Task("one", ("a", "b")), Task("two", ("a", "b"))
    for name in ARMS:
        write_results(tmp_path / name, {task: drawn(task, name) for task in pair})
        for file in (tmp_path / name).rglob("samples_*"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("one-group", "g").replace("two-group", "g"))
    c = compare([read_run(name, tmp_path / name) for name in ARMS], "label_only").comparison
    apart = [c.differences["explanation"][task]["acc"].se for task in ("one", "two")]
    expected = np.hypot(*apart) / 2
    # The documents of the two tasks form 480 groups, not 240.
    assert c.pooled["explanation"]["acc"].se == pytest.approx(expected, rel=0.005)


def test_older_results_of_the_eighteen_say_the_same(tmp_path: Path) -> None:
    task = ALL[4]
    dataset, axis = SETTING_OF[task]
    told = {
        "sha256": SHA,
        "origin": "generated",
        "setting": [dataset, axis],
        "labels": list(EIGHTEEN.labels),
        "ordinal": True,
        "normalise": "none",
        "title": EIGHTEEN.datasets[dataset].title,
        "axis_title": EIGHTEEN.axes[axis].title,
    }
    made = []
    for place, changes in (("old", {}), ("new", {f"configs/{task}/metadata/data": told})):
        for name, accuracy in ARMS.items():
            scores = {task: draw_scores(task, COUNT, accuracy, 1)}
            write_results(tmp_path / place / name, scores, changes=changes)
        runs = [read_run(name, tmp_path / place / name) for name in ARMS]
        made.append(compare(runs, "label_only").comparison)
    assert made[0] == made[1]
    c, right = made[0], labels_of(task)
    assert c.settings_in_paper == 18
    for arm, accuracy in ARMS.items():
        scores = draw_scores(task, COUNT, accuracy, 1)
        predicted = scores.argmax(axis=1) + 1
        expected = {
            "acc": np.mean(predicted == right),
            "macro_f1": f1_score(right, predicted, average="macro", labels=range(1, 6)),
            "qwk": cohen_kappa_score(right, predicted, weights="quadratic", labels=range(1, 6)),
            "mae": mean_absolute_error(right, predicted),
            "nll": log_loss(right, softmax(scores, axis=1), labels=range(1, 6)),
        }
        found = {name: c.scores[arm][task][name].value for name in expected}
        assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": None}, "the results of task tickets do not list its labels"),
        ({"labels": ["only"]}, "configs.tickets.metadata.data.labels"),
        ({"labels": ["a", ""]}, "is empty"),
        ({"ordinal": "perhaps"}, "data.ordinal"),
        ({"normalise": "words"}, "data.normalise"),
        ({"setting": ["tickets"]}, "data.setting"),
        ({"labels": ["a", "b"]}, "a label outside 1 to 2"),
        ({"labels": [*TICKETS.labels, "more"]}, "not 13 finite numbers"),
    ],
)
def test_metadata_that_are_wrong_are_one_sentence(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    data = {key: value for key, value in {**TICKETS.data, **changes}.items() if value is not None}
    scores = {TICKETS: drawn(TICKETS, "explanation")}
    write_results(tmp_path / "m", scores, changes={"configs/tickets/metadata/data": data})
    with pytest.raises(UserError, match=says.replace(".", r"\.")) as caught:
        read_answers(read_run("m", tmp_path / "m").tasks["tickets"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metadata", [None, [], {"version": 1.0}, {"data": "text"}, {"data": {}}])
def test_tasks_of_others_are_left_alone(tmp_path: Path, metadata: Any) -> None:
    (tmp_path / "results_2026.json").write_text(
        json.dumps(
            {"results": {"arc": {"acc,none": 1.0}}, "configs": {"arc": {"metadata": metadata}}}
        )
    )
    with pytest.raises(UserError, match="results of other tasks only"):
        read_run("m", tmp_path)


def test_a_twin_is_never_mixed_with_its_task(tmp_path: Path) -> None:
    twin = Task("answers", MARKED.labels, twin=True)
    for name in ARMS:
        write_results(tmp_path / name, {twin: drawn(MARKED, name)})
    runs = [read_run(name, tmp_path / name) for name in ARMS]
    assert compare(runs, "label_only").comparison.protocol == "explanation_first"
    write_results(tmp_path / "other", {MARKED: drawn(MARKED, "label_only")})
    with pytest.raises(UserError, match="which cannot be compared"):
        compare([runs[0], read_run("other", tmp_path / "other")], "label_only")
    # A dataset may have such a name itself.
    own = Task("next-gen", MARKED.labels)
    write_results(tmp_path / "own", {own: drawn(own, "label_only")})
    assert not read_run("own", tmp_path / "own").tasks["next-gen"].setting.generative


def gate(folder: Path, task: Task, *more: str) -> int:
    for name in ARMS:
        write_results(folder / name, {task: drawn(task, name)})
    given = [f"{name}={folder / name}" for name in ("label_only", "explanation")]
    return main(["gate", *given, "--baseline", "label_only", *more])


@pytest.mark.parametrize(
    ("task", "metric", "says"),
    [
        (TICKETS, "qwk", "qwk needs labels with an order, and the labels of tickets have none"),
        (TICKETS, "mae", "mae needs labels with an order, and the labels of tickets have none"),
    ],
)
def test_the_gate_refuses_a_metric_that_the_labels_do_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: Task, metric: str, says: str
) -> None:
    assert gate(tmp_path, task, "--metric", metric) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]


def test_the_gate_of_the_area_under_the_curve(tmp_path: Path) -> None:
    for name in ARMS:
        write_results(tmp_path / name, {MARKED: drawn(MARKED, name), REVIEWS: drawn(REVIEWS, name)})
    runs = [read_run(name, tmp_path / name) for name in ARMS]
    with pytest.raises(UserError, match="auroc needs two labels, and reviews has 7"):
        decide(*runs, Rule("auroc"))
    for name in ARMS:
        write_results(tmp_path / "two" / name, {MARKED: drawn(MARKED, name)})
    two = (read_run(name, tmp_path / "two" / name) for name in ARMS)
    row = decide(*two, Rule("auroc")).overall
    right = labels_of(MARKED) == 2
    expected = [roc_auc_score(right, np.diff(drawn(MARKED, arm))[:, 0]) for arm in ARMS]
    assert (row.baseline, row.candidate) == pytest.approx(expected)
    assert row.change.low is not None
    assert row.change.high is not None
    assert row.change.low < row.change.value < row.change.high


def test_the_gate_of_labels_without_an_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    summary = tmp_path / "s.md"
    assert gate(tmp_path, TICKETS, "--metric", "macro_f1", "--summary", str(summary)) == 0
    printed = capsys.readouterr().out
    assert "Tickets <b>of</b> [bold]2026[/bold]" in printed
    assert r"Tickets \<b\>of" in summary.read_text(encoding="utf-8")
