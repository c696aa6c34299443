"""`regreason fetch esnli`: from the published files, from a copy, and from other files."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from helpers.real_prompts import DATA

from regreason_plugin.cli import main
from regreason_plugin.data.esnli import FILES

# The real table is not part of the repository.
REAL = DATA / "esnli" / "dev.csv.gz"
needs_real_table = pytest.mark.skipif(
    not REAL.is_file(), reason=f"no esnli/{REAL.name}: name its folder in REGREASON_TEST_DATA"
)

PREMISES = ["A dog runs , fast .", "A dog runs , fast .", 'He says " no "']
HYPOTHESES = ["It sits .", "A dog moves .", "He speaks ."]
LABELS = ["contradiction", "entailment", "neutral"]
REASONS = [["it can not sit", "r2", "r3"], ["running is moving ;  so", "r2", "r3"], ["a", "b", "c"]]
HEADER = "premise,hypothesis,text,label,explanation_1,explanation_2,explanation_3\r\n"
TABLE = HEADER + (
    '"A dog runs , fast .",It sits .,"Premise: A dog runs , fast .\nHypothesis: It sits .",'
    "contradiction,it can not sit,r2,r3\r\n"
    '"A dog runs , fast .",A dog moves .,"Premise: A dog runs , fast .\nHypothesis: A dog moves .",'
    "entailment,running is moving ;  so,r2,r3\r\n"
    '"He says "" no """,He speaks .,"Premise: He says "" no ""\nHypothesis: He speaks .",'
    "neutral,a,b,c\r\n"
)


def published(*columns: list[str]) -> dict[str, bytes]:
    """The six published files. Each line of a sentence ends with a space and a line end."""
    ends = [" \n", " \n", "\n", "\n", "\n", "\n"]
    return {
        file.name: "".join(line + end for line in column).encode()
        for file, column, end in zip(FILES, columns, ends, strict=True)
    }


def small_files() -> dict[str, bytes]:
    return published(PREMISES, HYPOTHESES, LABELS, *(list(c) for c in zip(*REASONS, strict=True)))


def folder_of(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], httpx.Response]) -> list[str]:
    asked: list[str] = []

    def get(url: str, **_: object) -> httpx.Response:
        asked.append(url)
        response = answer(url)
        response.request = httpx.Request("GET", url)
        return response

    monkeypatch.setattr(httpx, "get", get)
    return asked


def test_a_copy_of_the_six_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = folder_of(small_files(), tmp_path / "copy"), tmp_path / "new" / "esnli.csv"
    assert main(["fetch", "esnli", "--from", str(source), "--out", str(out)]) == 0
    assert out.read_bytes().decode() == TABLE
    printed = capsys.readouterr().out
    assert "3 rows of e-SNLI, 2 premises" in printed
    assert "this copy differs from the published file" in printed
    assert "explanations MIT" in printed
    assert "CC BY-SA 4.0" in printed


def test_the_table_as_people_wrote_it_and_one_already_converted(tmp_path: Path) -> None:
    original, out = tmp_path / "esnli_dev.csv", tmp_path / "out.csv"
    with original.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(
            ["pairID", "gold_label", "Sentence1", "Sentence2"]
            + [f"{what}_{n}" for n in (1, 2, 3) for what in ("Explanation", "WorkerId")]
        )
        for premise, hypothesis, label, reasons in zip(
            PREMISES, HYPOTHESES, LABELS, REASONS, strict=True
        ):
            cells = [cell for reason in reasons for cell in (f" {reason}\n", "W1")]
            table.writerow(["1#0", label, premise, hypothesis, *cells])
    converted = tmp_path / "converted.csv.gz"
    converted.write_bytes(gzip.compress(TABLE.encode()))
    for source in (original, converted):
        assert main(["fetch", "esnli", "--from", str(source), "--out", str(out)]) == 0
        assert out.read_bytes().decode() == TABLE
        out.unlink()


@needs_real_table
def test_the_download_is_the_table_that_the_study_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = gzip.decompress(REAL.read_bytes())
    rows = list(csv.DictReader(real.decode().splitlines(keepends=True)))
    names = ["premise", "hypothesis", "label", *(f"explanation_{n}" for n in (1, 2, 3))]
    files = published(*([row[name] for row in rows] for name in names))
    asked = serve(
        monkeypatch, lambda url: httpx.Response(200, content=files[url.rpartition("/")[2]])
    )
    out = tmp_path / "esnli.csv"
    assert main(["fetch", "esnli", "--out", str(out)]) == 0
    assert out.read_bytes() == real
    assert "9,842 rows of e-SNLI, 3,319 premises" in (printed := capsys.readouterr().out)
    assert "other bytes" not in printed
    assert len(set(asked)) == 6
    start = "https://raw.githubusercontent.com/OanaMariaCamburu/e-SNLI/"
    assert all(url.startswith(start) for url in asked)


def test_other_files_than_the_known_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = small_files()
    serve(monkeypatch, lambda url: httpx.Response(200, content=files[url.rpartition("/")[2]]))
    out = tmp_path / "esnli.csv"
    assert main(["fetch", "esnli", "--out", str(out)]) == 2
    assert "not the ones that this release expects" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("code", "reason"), [(404, "the server says 404"), (None, "no network: ConnectError")]
)
def test_no_network_or_no_file(
    code: int | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(url: str) -> httpx.Response:
        if code is None:
            raise httpx.ConnectError("no route")
        return httpx.Response(code)

    serve(monkeypatch, answer)
    assert main(["fetch", "esnli", "--out", str(tmp_path / "esnli.csv")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"dataset/s1.dev: cannot be downloaded ({reason}); " in said
    assert "--from" in said
    assert not any(tmp_path.iterdir())


def test_what_is_no_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = small_files() | {"labels.dev": b"neutral\n"}
    table = tmp_path / "other.csv"
    table.write_text("text,label\na,b\n")
    missing = small_files()
    del missing["s2.dev"]
    for source, said in (
        (folder_of(short, tmp_path / "short"), "different numbers of lines: s1.dev 3, s2.dev 3, "),
        (folder_of(missing, tmp_path / "missing"), "s2.dev: no such file"),
        (table, "other.csv: has neither the columns Sentence1, "),
        (tmp_path / "nowhere.csv", "nowhere.csv: no such file"),
    ):
        before = set(tmp_path.iterdir())
        code = main(["fetch", "esnli", "--from", str(source), "--out", str(tmp_path / "o.csv")])
        assert code == 2
        assert said in capsys.readouterr().err
        assert set(tmp_path.iterdir()) == before


def test_from_is_for_published_data_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prompts"
    assert main(["fetch", "prompts", "--from", str(tmp_path), "--out", str(out)]) == 2
    assert "--from is only for esnli, topical-usr" in capsys.readouterr().err
    assert not out.exists()
