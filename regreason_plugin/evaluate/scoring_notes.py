"""What the way models were scored does to their numbers, in sentences for a reader of results."""

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

# What lm-eval calls its model that fits a base to the tokenizer before it loads an adapter.
_HF = ("hf", "hf-auto", "huggingface")


def names_of(runs: Sequence[Run]) -> list[str]:
    """What each run is called in a sentence: its arm, with the seed where the arm has several."""
    arms = [run.name for run in runs]
    return [
        f"`{run.name}` (seed {run.seed})" if arms.count(run.name) > 1 else f"`{run.name}`"
        for run in runs
    ]


def scoring_notes(
    runs: Sequence[Run], scores: Iterable[Sequence[NDArray[np.floating[Any]]]]
) -> list[str]:
    """A sentence on each doubt.

    Args:
        runs: The models.
        scores: By task, of each model what it made of each document's labels.
    """
    return [*_equal_models(names_of(runs), scores), *_cut_vocabularies(runs)]


def _equal_models(
    names: Sequence[str], scores: Iterable[Sequence[NDArray[np.floating[Any]]]]
) -> list[str]:
    """Models that gave every label of every document the same score."""
    digests = [hashlib.sha256() for _ in names]
    for task in scores:
        for digest, model in zip(digests, task, strict=True):
            digest.update(np.ascontiguousarray(model).tobytes())
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name, digest in zip(names, digests, strict=True):
        alike[digest.digest()].append(name)
    return [
        f"{' and '.join(same)} have the same score for every label of every document: they are "
        "names of one model, or of several that shared a --use_cache path, whose keys in plain "
        "lm_eval do not hold the model."
        for same in alike.values()
        if len(same) > 1
    ]


def _cut_vocabularies(runs: Sequence[Run]) -> list[str]:
    """Adapters that `hf` loaded on a base of which it cut the embeddings, beside other models."""
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
        f"hf resized the embeddings of the base of {' and '.join(loaded)} from {rows:,} rows to "
        f"the tokenizer's {tokens:,} before it loaded the adapter, which changes label "
        "probabilities a little; to compare with models without peft=, or scored by regreason-hf, "
        "score all of them with --model regreason-hf."
        for (rows, tokens), loaded in cut.items()
    ]


def _vocabulary(arguments: dict[str, Any]) -> tuple[int, int] | None:
    """Of a base, rows of the embeddings and tokens of the tokenizer; None if they are not here."""
    base, revision = str(arguments.get("pretrained")), arguments.get("revision")
    config = _read(base, "config.json", revision)
    tokenizer = _read(str(arguments.get("tokenizer") or base), "tokenizer.json", revision)
    try:
        rows = config.get("text_config", config)["vocab_size"]
        tokens = tokenizer["model"]["vocab"]
        # A list of pairs in unigram models.
        words = set(tokens) if isinstance(tokens, dict) else {word for word, _ in tokens}
        words.update(token["content"] for token in tokenizer["added_tokens"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return int(rows), len(words)


def _read(place: str, name: str, revision: Any) -> Any:
    """A model's file, from its folder or from what the Hub's library keeps of it."""
    file: Any = Path(place) / name
    if not file.is_file():
        from huggingface_hub import try_to_load_from_cache

        try:
            file = try_to_load_from_cache(place, name, revision=revision and str(revision))
        except ValueError:
            return {}
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError):
        return {}
