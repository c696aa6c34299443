"""docs/gpu.md, made anew from the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.gpu.model_shapes import WORDS
from bench.gpu.result import DONE, FAILED, OUT_OF_MEMORY, RUNNING, SKIPPED

from regreason_plugin.core.markdown import Markdown, code, sentence, table
from regreason_plugin.core.whole_files import atomic_writer

UNFINISHED = (FAILED, OUT_OF_MEMORY, RUNNING)
# Its first line without a card; a page that has it holds no figure.
NO_CARD = "No CUDA card was at hand where this page was made, so it has no figures."
TITLE = "# On a GPU"
_HOW = """\
`make gpu` measures the parts below on a machine with a CUDA card and writes this page, in about
half an hour. `make gpu PYTHON=python3` uses an interpreter that you have: the command names and
skips a part whose modules are missing there, and installs nothing. `make gpu SMOLLM2=DIR` names
the folder that `regreason base smollm2 --out DIR` wrote; without it, the parts on SmolLM2 are
skipped. The study also needs e-SNLI: `regreason fetch esnli --out runs/esnli.csv`."""
_MEASURED = {
    "scorer": "`regreason-hf` against lm-eval's `hf`, both at batch size `auto`: documents a "
    "second, memory, the largest difference of a log-likelihood; then the cost of probes. On "
    "SmolLM2, and on a model of Mistral-7B-v0.1's shape with random weights",
    "study": "the e-SNLI study on SmolLM2, as far as ten minutes go",
    "lora": "`axolotl train` in bfloat16 on the 7B shape, 50 steps, with and without the plugin: "
    "samples a second, and memory against the estimate of `regreason check`",
    "qlora": "the same in 4 bits",
}
_LIMITS = """\
Each part is a command of its own with a time limit, such as
`python tests/bench/gpu scorer --seconds 180`. It stops itself at the limit, and keeps what it has
measured in `runs/gpu/`, from which `python tests/bench/gpu page` makes this page again."""
_TRIAL = """\
A part without a card is a trial: its memory is that of the whole process, and its trainings are in
float32."""
_TITLES = {
    "scorer": "Scoring and probes",
    "study": "The e-SNLI study",
    "lora": "LoRA in bfloat16",
    "qlora": "LoRA in 4 bits",
}
_ORDER = tuple(_TITLES)


def write(results: Path, file: Path) -> None:
    """Write the page of the results in a folder."""
    parts = [json.loads(one.read_text(encoding="utf-8")) for one in results.glob("*-*.json")]
    parts.sort(key=lambda one: (_ORDER.index(one["part"]), one["shape"] != "smollm2"))
    _save(file, page(parts))


def write_without_card(file: Path) -> None:
    """Write the page that has no figures, unless there is one that has some."""
    if file.is_file() and NO_CARD not in file.read_text(encoding="utf-8"):
        print(f"{file.name} has the figures of another machine and is left as it is.")
        return
    _save(file, "\n\n".join((TITLE, NO_CARD, *_introduction())) + "\n")


def _introduction() -> tuple[str, ...]:
    rows = [(code(part), sentence(measures)) for part, measures in _MEASURED.items()]
    return _HOW, table(rows, ("part", "measures"), "l"), _LIMITS


def _save(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(file) as stream:
        stream.write(text.encode("utf-8"))
    print(f"{file.name} is written.")


def page(parts: list[dict[str, Any]]) -> str:
    """The page.

    Args:
        parts: The values of each result file, in the order of the page.
    """
    trial = any((one.get("machine") or {}).get("card") is None for one in parts)
    blocks = [TITLE, *_introduction(), "## Parts and machines", _overview(parts)]
    blocks += [_TRIAL if trial else "", _versions(parts)]
    for one in parts:
        blocks += [f"## {_TITLES[one['part']]}: {WORDS[one['shape']]}", _state(one)]
        blocks += {"scorer": _scorer, "study": _study}.get(one["part"], _training)(one)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _overview(parts: list[dict[str, Any]]) -> Markdown:
    rows = []
    for one in parts:
        machine = one.get("machine") or {}
        card, gib = machine.get("card"), machine.get("card_gib")
        rows.append(
            (
                code(one["part"]),
                WORDS[one["shape"]],
                f"{card}, {gib:.0f} GiB" if card else "none: a trial on a CPU",
                machine.get("driver") or "",
                one["date"],
                _number(one.get("seconds"), 0),
                _state_word(one),
            )
        )
    header = ("part", "model", "card", "driver", "date", "seconds", "state")
    return table(rows, header, "lllllrl")


def _versions(parts: list[dict[str, Any]]) -> Markdown:
    """Each package with its version, or versions, where the parts had different ones."""
    found: dict[str, dict[str, None]] = {}
    for one in parts:
        for name, version in (one.get("machine") or {}).get("versions", {}).items():
            found.setdefault(name, {})[version or "none"] = None
    rows = [(name, ", ".join(versions)) for name, versions in found.items()]
    return table(rows, ("package", "version"), "ll")


def _state_word(one: dict[str, Any]) -> str:
    return "cut off" if one["state"] == RUNNING else str(one["state"])


def _state(one: dict[str, Any]) -> Markdown | str:
    """Why a part has no figures, or not all of them."""
    if one["state"] == DONE:
        return ""
    if one["state"] == RUNNING:
        return Markdown("The part was cut off; what follows had been measured by then.")
    what = f"{one['state']} with {WORDS[one['shape']]}: {one['reason']}."
    return sentence(what[0].upper() + what[1:])


def _scorer(one: dict[str, Any]) -> list[Markdown | str]:
    rows = one["rows"]
    if not rows:
        return []
    by_name = {row["name"]: row for row in rows}
    hf, ours = by_name.get("hf"), by_name.get("regreason-hf")
    cells = [
        (
            row["name"],
            _number(row.get("documents_per_second"), 1),
            _ratio(row, hf, "documents_per_second"),
            _ratio(ours, row, "documents_per_second"),
            _number(row["first_seconds"], 1),
            _number(row["peak_mib"] / 1024, 2),
            _number(row.get("largest_difference"), 5),
        )
        for row in rows
    ]
    header = (
        *("", "documents/s", "speed / hf", "time / regreason-hf without probes"),
        *("first round, s", "peak memory, GiB", "largest difference to hf"),
    )
    rounds = min(row.get("timed_rounds", 0) for row in rows)
    packed = [row["packed"] for row in rows if "packed" in row]
    about = (
        f"{one['documents']} documents with {one['requests']} requests, {one['dtype']}, batch size "
        f"`auto`; documents a second are of the median of {rounds} rounds after the first. In the "
        "first round `hf` looks for its batch size and `regreason-hf` holds packed rows against "
        "plain ones; the peak of the memory is of that round. The difference is that of a "
        "log-likelihood, over all requests. "
        + ("Prompts were packed into shared rows." if all(packed) else "No rows were packed.")
    )
    return [sentence(about), table(cells, header, "lr")]


def _study(one: dict[str, Any]) -> list[Markdown | str]:
    if "trainings" not in one or one["state"] == SKIPPED:
        return []
    done = one["trainings"]
    cells = [(row["name"], _number(row["seconds"], 0)) for row in done]
    blocks: list[Markdown | str] = [
        sentence(
            f"`regreason study studies/esnli.yml --minutes {one['minutes']}`, without the "
            f"runs that the repository keeps. Finished trainings: {len(done)}."
        ),
        table(cells, ("training", "seconds"), "lr") if cells else "",
    ]
    if one["output"]:
        blocks += ["The end of its output:", "```text\n" + "\n".join(one["output"]) + "\n```"]
    return blocks


def _training(one: dict[str, Any]) -> list[Markdown | str]:
    rows, estimate = one["rows"], one.get("estimate_gib")
    blocks: list[Markdown | str] = []
    if "config" in one:
        blocks.append(
            sentence(
                f"`{one['config']}` with {one['steps']} steps. "
                f"{_estimate_words(estimate)} Samples a second are of the median step after the "
                'first five. "Axolotl\'s trainer" is the same config and the same rows without '
                "the plugin's trainer and loss."
            )
        )
    if rows:
        without = rows[0]
        cells = [
            (
                row["name"],
                row["steps"],
                row["rows_per_step"],
                _number(row["samples_per_second"], 2),
                _ratio(row, without, "samples_per_second"),
                _number(row["peak_mib"] / 1024, 2),
                _number(row["reserved_mib"] and row["reserved_mib"] / 1024, 2),
                _number(estimate and row["peak_mib"] / 1024 / estimate, 2),
            )
            for row in rows
        ]
        header = (
            *("", "steps made", "rows a step", "samples/s", "speed / Axolotl's trainer"),
            *("peak of the tensors, GiB", "reserved by PyTorch, GiB", "peak / estimate"),
        )
        blocks.append(table(cells, header, "lr"))
    return blocks


def _estimate_words(estimate: float | None) -> str:
    if estimate is None:
        return "`regreason check` printed no estimate of the memory."
    return (
        f"`regreason check` estimates {estimate:.1f} GiB, with half a GiB for CUDA's context, "
        "which the measured peaks leave out."
    )


def _ratio(row: dict[str, Any] | None, other: dict[str, Any] | None, key: str) -> str:
    if not row or not other or not row.get(key) or not other.get(key):
        return ""
    return f"{row[key] / other[key]:.2f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
