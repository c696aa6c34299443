"""Keeps finished runs compactly: the record and log of a training, and its scores.

A kept run holds ids and numbers but no text of the data, so it can be committed to a repository.
With it, a study continues on another machine without the adapter. Each run is a gzipped JSON file;
the ids, labels and hashes of the scored documents, in their order, are in one more file that runs
share. Scores are rounded to six decimals, entropies by layer to four.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps, read_objects
from regreason_plugin.core.model_use import RECORD
from regreason_plugin.core.stages import Stage, hash_of, mark_finished, unfinished
from regreason_plugin.core.training_curves import LOG
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.metrics.metric_names import FORCED, LAYERS, PROBES
from regreason_plugin.study.hyperparameters import Chosen
from regreason_plugin.study.plan import Plan
from regreason_plugin.study.study_file import Condition

FORMAT = 1
CHOICE = "choice.json"
# By name of a probe's value in a sample: the number of decimals that is kept.
_DIGITS = {
    prefix + name: digits
    for names, digits in ((PROBES, 6), (LAYERS, 4))
    for name in names
    for prefix in ("", FORCED)
}
_HASHES = ("doc_hash", "prompt_hash", "target_hash")
# Keys of a results file that are kept, for `compare` and for readers. The other keys describe the
# machine or hold lm-eval's source text.
_OF_RESULTS = (
    *("results", "versions", "n-shot", "n-samples", "config", "date", "task_hashes"),
    *("lm_eval_version", "transformers_version", "chat_template_sha", "system_instruction_sha"),
    *("tokenizer_bos_token", "tokenizer_eos_token", "model_name"),
)


def keep_choice(plan: Plan, chosen: Chosen) -> None:
    """Save the chosen keys, the candidates' losses and the hash of the choosing stages' inputs."""
    content = {
        "inputs": hash_of(*(stage.inputs for stage in plan.choosing())),
        "keys": chosen.keys,
        "losses": chosen.losses,
    }
    for folder in (plan.out, plan.study.kept):
        if folder is not None:
            _write_text(folder / CHOICE, json.dumps(content, indent=1) + "\n")


def kept_choice(plan: Plan) -> Chosen | None:
    """The choice of an earlier run with the same inputs; None if there is none."""
    stages = plan.choosing()
    if not stages:
        return Chosen({})
    for folder in (plan.out, plan.study.kept):
        if folder is not None and (folder / CHOICE).is_file():
            content = json.loads((folder / CHOICE).read_text(encoding="utf-8"))
            if content["inputs"] == hash_of(*(stage.inputs for stage in stages)):
                return Chosen(content["keys"], tuple(map(tuple, content["losses"])))
    return None


def keep_finished(plan: Plan, chosen: Chosen) -> list[Path]:
    """Keep every finished run of a study that is not kept yet.

    Returns:
        The paths of the written files.
    """
    if plan.study.kept is None:
        return []
    written = []
    for condition, seed, stages, key in _runs(plan, chosen):
        file = _file(plan, condition, seed)
        if unfinished(plan.out, stages):
            continue
        if not (file.is_file() and _read(file)["inputs"] == key):
            _write(file, _kept(plan, condition, seed, key))
            written.append(file)
    return written


def restore(plan: Plan, chosen: Chosen) -> int:
    """Restore the kept runs whose inputs equal the study's, as if their stages had run.

    Returns:
        The number of restored runs.

    Raises:
        UserError: A file is broken.
    """
    if plan.study.kept is None:
        return 0
    restored = 0
    for condition, seed, stages, key in _runs(plan, chosen):
        file = _file(plan, condition, seed)
        if not unfinished(plan.out, stages) or not file.is_file():
            continue
        content = _read(file)
        if content["inputs"] == key:
            _put_back(plan, condition, seed, content)
            mark_finished(plan.out, stages)
            restored += 1
    return restored


def _runs(plan: Plan, chosen: Chosen) -> Iterator[tuple[Condition, int, list[Stage], str]]:
    for seed in plan.study.seeds:
        for condition in plan.study.conditions:
            stages = plan.run_stages(condition, seed, chosen.keys)
            yield condition, seed, stages, hash_of(*(stage.inputs for stage in stages))


def _file(plan: Plan, condition: Condition, seed: int) -> Path:
    assert plan.study.kept is not None
    return plan.study.kept / f"{condition.name}-{seed}.json.gz"


def _kept(plan: Plan, condition: Condition, seed: int, key: str) -> dict[str, Any]:
    model, folder = plan.model(condition, seed), plan.open_data(condition.order)
    files: dict[str, Any] = {}
    for results in sorted(plan.results(condition, seed).rglob("results_*.json")):
        content = json.loads(results.read_text(encoding="utf-8"))
        kept = {name: content[name] for name in _OF_RESULTS if name in content}
        # (Of a task's config, only the metadata, which this package reads.)
        kept["configs"] = {
            task: {"metadata": config.get("metadata")}
            for task, config in content["configs"].items()
        }
        date = results.stem.removeprefix("results_")
        relative = results.relative_to(plan.results(condition, seed))
        files[str(relative)] = {
            "content": kept,
            "samples": {
                task: _keep_samples(plan, results.with_name(f"samples_{task}_{date}.jsonl"))
                for task in content["results"]
                if results.with_name(f"samples_{task}_{date}.jsonl").is_file()
            },
        }
    return {
        "format": FORMAT,
        "inputs": key,
        "data_sha256": folder.sha256,
        "record": json.loads((model / RECORD).read_text(encoding="utf-8")),
        "log": [value for _, value in read_objects(model / LOG)],
        "files": files,
    }


def _keep_samples(plan: Plan, file: Path) -> dict[str, Any]:
    """The numbers of all documents, and the name of the shared file with their ids and labels."""
    documents: list[list[Any]] = []
    columns: dict[str, Any] = {}
    rows = [row for _, row in read_objects(file)]
    for row in rows:
        document = row["doc"]
        documents.append(
            [
                *(document["id"], document["axis"], document["label"], row["doc_id"]),
                *(row[name] for name in _HASHES),
            ]
        )
    # (A string is the text that an explanation-first model wrote, which is not kept.)
    columns["scores"] = [
        [round(float(one[0]), 6) for one in row["filtered_resps"] if not isinstance(one, str)]
        for row in rows
    ]
    for name, digits in _DIGITS.items():
        if any(row.get(name) is not None for row in rows):
            columns[name] = [_rounded(row.get(name), digits) for row in rows]
    text = json.dumps(documents)
    shared = f"documents-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json.gz"
    assert plan.study.kept is not None
    if not (plan.study.kept / shared).is_file():
        _write(plan.study.kept / shared, documents)
    return {"documents": shared, **columns}


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_rounded(one, digits) for one in value]
    return None if value is None else round(value, digits)


def _put_back(plan: Plan, condition: Condition, seed: int, kept: dict[str, Any]) -> None:
    model, results = plan.model(condition, seed), plan.results(condition, seed)
    folder = plan.open_data(condition.order)
    # The inputs guarantee the same rows, but a manifest of another version has another hash.
    data_hashes = (kept["data_sha256"], folder.sha256)
    _write_text(model / RECORD, json.dumps(kept["record"], indent=2).replace(*data_hashes) + "\n")
    _write_text(model / LOG, "".join(dumps(line) + "\n" for line in kept["log"]))
    rows = _rows_of(folder)
    for relative, one in kept["files"].items():
        file = results / relative
        if not file.resolve().is_relative_to(results.resolve()):
            raise UserError(f"holds a path outside of its folder: {relative}", path=model)
        _write_text(file, json.dumps(one["content"]).replace(*data_hashes))
        date = file.stem.removeprefix("results_")
        for task, samples in one["samples"].items():
            lines = _sample_lines(plan, samples, rows)
            _write_text(file.with_name(f"samples_{task}_{date}.jsonl"), "".join(lines))


def _rows_of(folder: DataFolder) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows that may have been scored, with their texts and groups, by (id, axis)."""
    return {
        (row["id"], row["axis"]): row
        for name in ("train/label_only.jsonl", "test.jsonl")
        for _, row in read_objects(folder.path / name)
    }


def _sample_lines(
    plan: Plan, kept: dict[str, Any], rows: Mapping[tuple[str, str], dict[str, Any]]
) -> Iterator[str]:
    assert plan.study.kept is not None
    documents = _read(plan.study.kept / kept["documents"])
    columns = {name: kept[name] for name in _DIGITS if name in kept}
    for number, (row_id, axis, label, doc_id, *hashes) in enumerate(documents):
        row = rows[row_id, axis]
        yield (
            dumps(
                {
                    "doc_id": doc_id,
                    "doc": {
                        "id": row_id,
                        "axis": axis,
                        "group": row["group"],
                        "label": label,
                        "prompt": row["messages"][0]["content"],
                        "explanation": row.get("explanation", ""),
                    },
                    **dict(zip(_HASHES, hashes, strict=True)),
                    "filtered_resps": [[str(score), "False"] for score in kept["scores"][number]],
                    **{name: values[number] for name, values in columns.items()},
                }
            )
            + "\n"
        )


def _write(file: Path, content: Any) -> None:
    # (Without a modification time, the same content gives the same bytes.)
    with atomic_writer(file) as stream:
        stream.write(gzip.compress(_compact(content), compresslevel=9, mtime=0))


def _compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _write_text(file: Path, text: str) -> None:
    with atomic_writer(file) as stream:
        stream.write(text.encode("utf-8"))


def _read(file: Path) -> Any:
    try:
        content = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"is not a kept run ({error}); delete it, and the study repeats the run", path=file
        ) from None
    if isinstance(content, dict) and content.get("format") != FORMAT:
        raise UserError(
            f"is a kept run of format {content.get('format')}, but this version reads only format "
            f"{FORMAT}; delete it, and the study repeats the run",
            path=file,
        )
    return content
