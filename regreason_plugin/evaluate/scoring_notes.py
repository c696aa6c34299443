"""Notes for a reader of results: how the scoring of models may have distorted their numbers."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regreason_plugin.evaluate.results import Run, model_arguments

# lm-eval's names of the model that resizes a base model's embeddings before it loads an adapter.
_HF = ("hf", "hf-auto", "huggingface")


def names_of(runs: Sequence[Run]) -> list[str]:
    """The name of each run in a sentence: its arm, plus the seed if the arm has several runs."""
    arms = [run.name for run in runs]
    return [
        f"`{run.name}` (seed {run.seed})" if arms.count(run.name) > 1 else f"`{run.name}`"
        for run in runs
    ]


def scoring_notes(
    runs: Sequence[Run], scores: Iterable[Sequence[NDArray[np.floating[Any]]]]
) -> list[str]:
    """A sentence for each reason to doubt the numbers.

    Args:
        runs: The models.
        scores: For each task, one array per model: its scores of each document.
    """
    return [*_equal_models(names_of(runs), scores), *_cut_vocabularies(runs)]


def _equal_models(
    names: Sequence[str], scores: Iterable[Sequence[NDArray[np.floating[Any]]]]
) -> list[str]:
    """A sentence for each set of models with the same scores for every document."""
    digests = [hashlib.sha256() for _ in names]
    scores = list(scores)
    for task in scores:
        for digest, model in zip(digests, task, strict=True):
            digest.update(np.ascontiguousarray(model).tobytes())
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for name, digest in zip(names, digests, strict=True):
        by_digest[digest.digest()].append(name)
    return [
        f"{' and '.join(equal)} have the same scores for every document: either "
        "they are names of one model, or they shared a --use_cache path, which plain lm_eval keys "
        "by the request's text alone."
        for equal in by_digest.values()
        if scores and len(equal) > 1
    ]


def _cut_vocabularies(runs: Sequence[Run]) -> list[str]:
    """A sentence on adapters whose base model's embeddings `hf` resized.

    There is none if `hf` loaded an adapter for every model, because then it treated all alike.
    """
    names = names_of(runs)
    cut: dict[tuple[int, int], list[str]] = defaultdict(list)
    others = False
    for name, run in zip(names, runs, strict=True):
        arguments = model_arguments(run.config)
        if run.config.get("model") not in _HF or not arguments.get("peft"):
            others = True
        elif (sizes := _vocabulary(arguments)) and sizes[0] != sizes[1]:
            cut[sizes].append(name)
    if not others:
        return []
    return [
        f"hf resized the embeddings of the base model of {' and '.join(adapters)} from {rows:,} "
        f"rows to the tokenizer's {tokens:,} before it loaded the adapter, which changes label "
        "probabilities slightly; to compare with a model without peft=, or with one scored by "
        "regreason-hf, score all models with --model regreason-hf."
        for (rows, tokens), adapters in cut.items()
    ]


def _vocabulary(arguments: dict[str, Any]) -> tuple[int, int] | None:
    """Rows of a base model's embeddings and tokens of its tokenizer.

    Returns:
        None if the files are not on this machine, or have an unknown format.
    """
    base, revision = str(arguments.get("pretrained")), arguments.get("revision")
    config = _read(base, "config.json", revision)
    tokenizer = _read(str(arguments.get("tokenizer") or base), "tokenizer.json", revision)
    try:
        rows = config.get("text_config", config)["vocab_size"]
        tokens = tokenizer["model"]["vocab"]
        # In unigram models, the vocabulary is a list of pairs.
        words = set(tokens) if isinstance(tokens, dict) else {word for word, _ in tokens}
        words.update(token["content"] for token in tokenizer["added_tokens"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return int(rows), len(words)


def _read(model: str, name: str, revision: Any) -> Any:
    """The content of a model's JSON file, from its folder or the Hub's local cache; else {}."""
    file: Any = Path(model) / name
    if not file.is_file():
        from huggingface_hub import try_to_load_from_cache

        try:
            file = try_to_load_from_cache(model, name, revision=revision and str(revision))
        except ValueError:
            return {}
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError):
        return {}
