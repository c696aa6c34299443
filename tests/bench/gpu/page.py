"""Writes docs/gpu.md from the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.gpu.model_shapes import WORDS
from bench.gpu.result import DONE, FAILED, OUT_OF_MEMORY, RUNNING, SKIPPED

from regreason_plugin.core.markdown import Markdown, code, sentence, table
from regreason_plugin.core.whole_files import atomic_writer

UNFINISHED = (FAILED, OUT_OF_MEMORY, RUNNING)
# The first line of a page without figures; `write_without_card` replaces only pages that have it.
NO_CARD = "This page has no figures yet: it was written on a machine without a CUDA GPU."
TITLE = "# On a GPU"
_HOW = """\
`make gpu` runs the parts below on a machine with a CUDA GPU and writes this page. It takes up to
40 minutes. With `make gpu PYTHON=python3` it uses your own interpreter and installs nothing; it
skips a part whose modules are missing there, and names the module. The parts on SmolLM2 need the
folder that `regreason base smollm2 --out DIR` writes; name it with `make gpu SMOLLM2=DIR`, or these
parts are skipped. The study also needs e-SNLI: `regreason fetch esnli --out runs/esnli.csv`."""
_MEASURED = {
    "scorer": "`regreason-hf` and lm-eval's `hf`, both at batch size `auto`: documents per second, "
    "memory, and the largest difference between their log-likelihoods; also the cost of the "
    "probes. The models are SmolLM2 and a random model of Mistral-7B-v0.1's shape",
    "study": "the e-SNLI study on SmolLM2, for ten minutes",
    "lora": "`axolotl train` in bfloat16 on the 7B shape, 50 steps, with and without the plugin: "
    "samples per second, and memory compared with the estimate of `regreason check`",
    "prefix": "the same as `lora`, but with prefix packing, on conversations with three axes",
    "qlora": "`axolotl train` in 4 bits, with the same measurements as `lora`",
}
_LIMITS = """\
A part can also be run alone, such as `python tests/bench/gpu scorer --seconds 180`. Each part stops
at its time limit. It saves every figure at once in `runs/gpu/`, from which
`python tests/bench/gpu page` writes this page again."""
_TRIAL = """\
A part without a GPU is a trial: its memory is that of the whole process, and its trainings are in
float32."""
_TITLES = {
    "scorer": "Scoring and probes",
    "study": "The e-SNLI study",
    "lora": "LoRA in bfloat16",
    "prefix": "LoRA in bfloat16 with prefix packing",
    "qlora": "LoRA in 4 bits",
}
_ORDER = tuple(_TITLES)


def write(results: Path, file: Path) -> None:
    """Write the page with the results in a folder."""
    parts = [json.loads(one.read_text(encoding="utf-8")) for one in results.glob("*-*.json")]
    parts.sort(key=lambda one: (_ORDER.index(one["part"]), one["shape"] != "smollm2"))
    _save(file, page(parts))


def write_without_card(file: Path) -> None:
    """Write the page without figures, unless the file already has figures."""
    if file.is_file() and NO_CARD not in file.read_text(encoding="utf-8"):
        print(f"{file.name} has figures from another machine, so it is not changed.")
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
    """The text of the page.

    Args:
        parts: The values of each result file, in the page's order.
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
    header = ("part", "model", "GPU", "driver", "date", "seconds", "state")
    return table(rows, header, "lllllrl")


def _versions(parts: list[dict[str, Any]]) -> Markdown:
    """A table of all packages with their version, or versions if the parts had different ones."""
    found: dict[str, dict[str, None]] = {}
    for one in parts:
        for name, version in (one.get("machine") or {}).get("versions", {}).items():
            found.setdefault(name, {})[version or "none"] = None
    rows = [(name, ", ".join(versions)) for name, versions in found.items()]
    return table(rows, ("package", "version"), "ll")


def _state_word(one: dict[str, Any]) -> str:
    return "cut off" if one["state"] == RUNNING else str(one["state"])


def _state(one: dict[str, Any]) -> Markdown | str:
    """The reason why a part lacks some or all of its figures; empty if it has them all."""
    if one["state"] == DONE:
        return ""
    if one["state"] == RUNNING:
        return Markdown("The part was cut off. The figures below were measured before that.")
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
        f"`auto`. Documents per second are those of the median of {rounds} rounds after the first. "
        "In the first round, `hf` searches for its batch size and `regreason-hf` compares packed "
        "rows with plain ones; the peak memory is measured in that round. The difference is the "
        "largest one between log-likelihoods, over all requests. "
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
            f"`regreason study studies/esnli.yml --minutes {one['minutes']}`, without the finished "
            f"runs that the repository keeps. Trainings finished in that time: {len(done)}."
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
                f"{_estimate_words(estimate)} Samples per second are those of the median step "
                'after the first five steps. "Axolotl\'s trainer" has the same config and the same '
                "rows, but not the plugin's trainer and loss."
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
            *("", "steps made", "rows per step", "samples/s", "speed / Axolotl's trainer"),
            *("peak of the tensors, GiB", "reserved by PyTorch, GiB", "peak / estimate"),
        )
        blocks.append(table(cells, header, "lr"))
    return blocks


def _estimate_words(estimate: float | None) -> str:
    if estimate is None:
        return "`regreason check` printed no memory estimate."
    return (
        f"`regreason check` estimates {estimate:.1f} GiB of memory. The estimate includes half a "
        "GiB for CUDA's context; the measured peaks do not."
    )


def _ratio(row: dict[str, Any] | None, other: dict[str, Any] | None, key: str) -> str:
    if not row or not other or not row.get(key) or not other.get(key):
        return ""
    return f"{row[key] / other[key]:.2f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
