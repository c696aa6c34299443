"""`regreason aggregate` on the command line: tables, golden set, output file, user mistakes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.rated_rows import make_rows
from sklearn.metrics import cohen_kappa_score

from regreason_plugin.annotate.aggregate import AGGREGATORS
from regreason_plugin.annotate.golden import Golden, score_golden
from regreason_plugin.annotate.provenance import (
    About,
    RaterProvenance,
    read_provenance,
    write_about,
)
from regreason_plugin.annotate.ratings_file import read_scores
from regreason_plugin.cli import main
from regreason_plugin.core.jsonl import dumps, file_sha256
from regreason_plugin.core.records import Rating

pytestmark = pytest.mark.integration


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    rows, golden = make_rows()
    write(tmp_path / "golden.jsonl", golden)
    return write(tmp_path / "ratings.jsonl", rows)


def test_agreement_alone_writes_nothing(ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(ratings.parent.iterdir())
    assert main(["aggregate", str(ratings)]) == 0
    printed = capsys.readouterr().out
    assert "Krippendorff's alpha, ordinal, 180 rows" in printed
    assert "dora" in printed
    assert "golden" not in printed
    assert "nan" not in printed.lower()
    # dora scores every row 1, so the kappa of dora with the others is undefined.
    assert [line.split()[-1] for line in printed.splitlines() if "dora" in line] == ["-"]
    assert sorted(ratings.parent.iterdir()) == before


def test_the_best_on_the_golden_set_is_what_is_written(
    ratings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    golden = tmp_path / "golden.jsonl"
    assert main(["aggregate", str(ratings), "--golden", str(golden), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    (best,) = (line.split() for line in printed.splitlines() if line.rstrip().endswith("best"))
    assert best[:2] == ["median", "0.000"]
    assert "60 golden rows" in printed
    assert "60 rows of 20 conversations" in printed
    for name in AGGREGATORS:
        assert name in printed
    labels = {(row["id"], row["axis"]): row["label"] for row in read(golden)}
    written = read(out)
    assert len(written) == 180
    for row in written:
        Rating.model_validate(row)
        assert row["label"] == labels.get((row["id"], row["axis"]), row["label"])
        assert row["explanation"].startswith(("adam", "beth", "carl"))
    about = read_provenance(out, file_sha256(out))
    assert about is not None
    assert (about.aggregator, about.conversations) == ("median", {"coqa": 30, "cornell": 30})
    assert about.notes == {"golden rows that the aggregator was chosen on": 60}
    assert [rater.name for rater in about.raters] == ["adam", "beth", "carl", "dora", "eric"]


def test_the_numbers_are_those_of_the_labels(ratings: Path, tmp_path: Path) -> None:
    scores = read_scores(ratings)
    draw = random.Random(1)
    people = {
        ((row["dataset"], row["axis"]), row["id"]): draw.randint(1, 5) for row in read(ratings)[:80]
    }
    found = score_golden(scores.enough, people, tmp_path)
    assert (found.rows, found.conversations, found.left_out) == (80, 27, 0)
    for score in found.scores:
        out = tmp_path / f"{score.by}.jsonl"
        assert main(["aggregate", str(ratings), "--by", score.by, "--out", str(out)]) == 0
        pairs = [
            (row["label"], people[key])
            for row in read(out)
            if (key := ((row["dataset"], row["axis"]), row["id"])) in people
        ]
        errors = [one - other for one, other in pairs]
        assert score.mae == pytest.approx(sum(map(abs, errors)) / 80)
        assert score.mse == pytest.approx(sum(e * e for e in errors) / 80)
        assert score.exact == sum(e == 0 for e in errors) / 80
        assert score.qwk == pytest.approx(
            cohen_kappa_score(*zip(*pairs, strict=True), labels=range(1, 6), weights="quadratic")
        )
        assert score.mae_interval is not None
        low, high = score.mae_interval
        assert low < score.mae < high
    best = min(found.scores, key=lambda score: (score.mae, score.mse))
    assert found.best == best.by


def test_the_interval_is_wider_for_fewer_conversations(ratings: Path, tmp_path: Path) -> None:
    scores = read_scores(ratings)
    draw = random.Random(2)
    keys = [((row["dataset"], row["axis"]), row["id"]) for row in read(ratings)]
    people = {key: draw.randint(1, 5) for key in keys}
    widths = []
    for number in (24, 180):
        found = score_golden(scores.enough, dict(list(people.items())[:number]), tmp_path)
        interval = found.scores[0].mae_interval
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths[0] > 1.5 * widths[1]
    alone = score_golden(scores.enough, dict(list(people.items())[:3]), tmp_path)
    assert (alone.conversations, alone.scores[0].mae_interval) == (1, None)


def test_the_provenance_of_the_source_is_carried_over(ratings: Path, tmp_path: Path) -> None:
    rows = read(ratings)
    rows[0]["ratings"] = rows[0]["ratings"][:1]
    write(ratings, rows)
    said = About(
        ratings_sha256=file_sha256(ratings),
        raters=[RaterProvenance(name="adam", model="org/Adam")],
        aggregator="mean",
        minimum=1,
        conversations={"coqa": 99},
        dropped={"no answer": 3},
        cost=1.5,
        versions={"regreason": "0.0.9", "openai": "2.0"},
    )
    write_about(ratings, said)
    out = tmp_path / "out.jsonl"
    arguments = ["aggregate", str(ratings), "--by", "majority", "--minimum", "2", "--out", str(out)]
    assert main(arguments) == 0
    about = read_provenance(out, file_sha256(out))
    assert about is not None
    assert about.raters == said.raters
    assert (about.aggregator, about.minimum, about.cost) == ("majority", 2, 1.5)
    assert about.dropped == {"no answer": 3, "fewer than 2 usable ratings": 1}
    assert about.versions["openai"] == "2.0"
    assert about.versions["regreason"] != "0.0.9"
    assert len(read(out)) == 179
    # Labels that the source already has are replaced.
    again = tmp_path / "again.jsonl"
    assert main(["aggregate", str(out), "--by", "mean", "--out", str(again)]) == 0
    assert [row["label"] for row in read(again)] != [row["label"] for row in read(out)]


GOLDEN_MISTAKES = {
    '{"id": "row 0", "axis": "on_topic", "label": 6}': "line 2, field label",
    '{"id": "row 0", "axis": "on_topic", "label": 2.5}': "line 2, field label",
    '{"id": "row 0", "axis": "on_topic", "label": "2"}': "line 2, field label",
    '{"id": "row 0", "axis": "depth", "label": 2}': "line 2, field axis",
    '{"id": "row 0", "axis": "on_topic"}': "line 2, field label",
    '{"id": "row 0", "axis": "on_topic", "label": 2, "labl": 3}': "line 2, field labl",
    '{"id": "row 0", "axis": "naturalness", "label": 2}': "line 2, field id.*is also on line 1",
    '{"id": "row 99", "axis": "on_topic", "label": 2}': "line 2, field id.*'row 99' is not in",
    "row 0, on_topic, 2": "line 2: not a JSON object",
}


@pytest.mark.parametrize(("line", "expected"), GOLDEN_MISTAKES.items())
def test_a_wrong_golden_line_is_named(
    ratings: Path, tmp_path: Path, line: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.jsonl"
    first = Golden(id="row 0", axis="naturalness", label=3)
    golden.write_text(f"{first.model_dump_json()}\n{line}\n")
    check_mistake(
        capsys,
        ["aggregate", str(ratings), "--golden", str(golden), "--out", str(tmp_path / "out.jsonl")],
        f"golden.jsonl, {expected}",
        tmp_path,
    )


def check_mistake(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str, folder: Path
) -> None:
    before = sorted(folder.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        assert main(arguments) == 2
    (line,) = (ln for ln in capsys.readouterr().err.splitlines() if ln.startswith("regreason: "))
    assert re.search(expected, line), line
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--by", "medain", "--out", "OUT"], "--by: unknown aggregator 'medain'; did you mean"),
        (["--by", "median"], "--by chooses the aggregator for --out"),
        (["--out", "OUT.gz"], "ratings are written as plain text"),
        (
            ["--minimum", "9", "--out", "OUT"],
            "no row has the 9 usable ratings that --minimum asks for; lower it",
        ),
        (
            ["--minimum", "9", "--golden", "GOLDEN"],
            "no row of the golden set has enough usable ratings",
        ),
        (["--golden", "nowhere"], "nowhere: no such file"),
    ],
)
def test_other_mistakes(
    ratings: Path,
    tmp_path: Path,
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"OUT": "out.jsonl", "OUT.gz": "out.jsonl.gz", "GOLDEN": "golden.jsonl"}
    given = [str(tmp_path / places[word]) if word in places else word for word in arguments]
    check_mistake(capsys, ["aggregate", str(ratings), *given], expected, tmp_path)


def test_ratings_without_scores_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, _ = make_rows(2)
    path = write(tmp_path / "ratings.jsonl", [{**row, "ratings": []} for row in rows])
    check_mistake(capsys, ["aggregate", str(path)], "no rating has both a score", tmp_path)
