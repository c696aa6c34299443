"""Fingerprints of a model's weights, made from file headers and a few elements of some tensors.

An adapter only works on the base model that it was trained on. Reading the headers and up to 64
elements of each of 16 tensors takes milliseconds, whatever the size of the model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from pydantic import BaseModel, ConfigDict

from regreason_plugin.core.errors import UserError

Verdict = Literal["same", "rounded", "other", "other shapes", "unknown"]

_TENSORS = 16
_ELEMENTS = 64
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
# numpy types by safetensors' type names. numpy has no bfloat16, so BF16 is read as integers.
_READ_AS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ROUND_TO = {"F16": torch.float16, "BF16": torch.bfloat16}
# Names of the head's tensor in transformers. A head that is tied to the embeddings is stored in
# some copies of a model and left out of others.
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")


class BaseWeights(BaseModel):
    """The fingerprint of a model's weights.

    Equal weights have equal fingerprints, however they are divided among files.

    Attributes:
        layout: sha256 of the names and shapes of all tensors, sorted by name.
        types: The types that the sampled tensors are stored in, such as ``BF16``.
        samples: sha256 of the sampled elements after rounding, by the type that they are rounded
            to: ``F32`` (which changes float64 elements only), ``F16`` and ``BF16``.
        quantised: Whether the model's config names a quantisation. The tensors of a quantised
            model are not plain numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: str
    types: tuple[str, ...]
    samples: dict[str, str]
    quantised: bool = False


class _Tensor(NamedTuple):
    """One tensor of a safetensors file; ``offset`` is in bytes from the start of the file."""

    file: Path
    type: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def compare_weights(trained: BaseWeights | None, used: BaseWeights | None) -> Verdict:
    """Compare the weights of two base models by their fingerprints.

    Args:
        trained: Weights that an adapter was trained on; None if they are unknown.
        used: Weights that the adapter is used on; None if they are unknown.

    Returns:
        ``same``; ``rounded`` if one is a copy of the other in fewer bits; ``other`` if only the
        names and shapes agree; ``other shapes`` if these differ too; ``unknown`` if either
        fingerprint is missing, or if they differ and either model is quantised.
    """
    if trained is None or used is None:
        return "unknown"
    if (trained.layout, trained.samples) == (used.layout, used.samples):
        return "same"
    if trained.quantised or used.quantised:
        return "unknown"
    if trained.layout != used.layout:
        return "other shapes"
    if trained.types != used.types:
        coarse = {*trained.types, *used.types} & set(_ROUND_TO)
        if any(trained.samples[name] == used.samples[name] for name in coarse):
            return "rounded"
    return "other"


def read_base_weights(
    model: str, revision: str | None = None, subfolder: str | None = None
) -> BaseWeights | None:
    """Read the fingerprint of a model's weights; nothing is downloaded.

    Args:
        model: A folder, or a model's name on the Hub.
        revision: Branch, tag or commit on the Hub.
        subfolder: The model's folder within ``model``.

    Returns:
        The fingerprint; None if this machine has no safetensors files of the model, for example
        because it is stored as a pickle.

    Raises:
        UserError: A file is broken, or the index names a file that is missing.
    """
    files = _files(model, revision, subfolder)
    if not files:
        return None
    config = _json(local_file(model, "config.json", revision, subfolder))
    tensors: dict[str, _Tensor] = {}
    for file in files:
        tensors.update(_header(file))
    if config.get("tie_word_embeddings"):
        tensors = {name: tensor for name, tensor in tensors.items() if name not in _HEADS}
    layout = "\n".join(f"{name} {tensors[name].shape}" for name in sorted(tensors))
    sampled = [tensors[name] for name in _sampled_names(tensors)]
    elements = np.concatenate([_elements(tensor) for tensor in sampled] or [np.zeros(0)])
    full = torch.from_numpy(elements.astype("<f4"))
    samples = {"F32": _sha256(full.numpy().tobytes())}
    for name, kind in _ROUND_TO.items():
        samples[name] = _sha256(full.to(kind).float().numpy().tobytes())
    return BaseWeights(
        layout=_sha256(layout.encode()),
        types=tuple(sorted({tensor.type for tensor in sampled})),
        samples=samples,
        quantised=bool(config.get("quantization_config")),
    )


def _files(model: str, revision: str | None, subfolder: str | None) -> list[Path]:
    index = local_file(model, _INDEX, revision, subfolder)
    if index is None:
        single = local_file(model, _SINGLE, revision, subfolder)
        return [single] if single else []
    names = sorted(set(_json(index).get("weight_map", {}).values()))
    files = [local_file(model, name, revision, subfolder) for name in names]
    if None in files:
        name = names[files.index(None)]
        raise UserError(f"names {name}, which is missing", path=index)
    return [file for file in files if file is not None]


def local_file(
    model: str, name: str, revision: str | None = None, subfolder: str | None = None
) -> Path | None:
    """The path of a model's file on this machine; None if the file is not here."""
    if Path(model).is_dir():
        local = Path(model, subfolder or "", name)
        return local if local.is_file() else None
    inside = f"{subfolder}/{name}" if subfolder else name
    try:
        cached = try_to_load_from_cache(model, inside, revision=revision)
    except HFValidationError:  # ``model`` is the path of a missing folder
        return None
    return Path(cached) if isinstance(cached, str) else None


def _json(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", path=file) from None
    return content if isinstance(content, dict) else {}


def _header(file: Path) -> Iterator[tuple[str, _Tensor]]:
    """Yield the name and the position of each tensor in a file.

    A safetensors file holds the header's length in eight bytes, the header as JSON, then the data.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(length) if length < file.stat().st_size else b""
    try:
        header = json.loads(raw)
        for name, about in header.items():
            if name != "__metadata__":
                offset = 8 + length + int(about["data_offsets"][0])
                yield name, _Tensor(file, str(about["dtype"]), tuple(about["shape"]), offset)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"is not a safetensors file ({type(error).__name__})", path=file) from None


def _sampled_names(tensors: dict[str, _Tensor]) -> list[str]:
    """Names of at most 16 tensors: one of every kind of layer, then a second of each, and so on.

    Every kind is sampled because merging an adapter changes some kinds only, such as the query
    projections.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in sorted(tensors, key=lambda name: (_sha256(name.encode()), name)):
        if tensors[name].type in _READ_AS and tensors[name].size:
            kinds[re.sub(r"\d+", "*", name)].append(name)
    rounds = zip_longest(*(kinds[kind] for kind in sorted(kinds)))
    return [name for names in rounds for name in names if name is not None][:_TENSORS]


def _elements(tensor: _Tensor) -> npt.NDArray[np.float64]:
    """At most 64 evenly spaced elements, including the first and the last."""
    stored = np.memmap(
        tensor.file,
        dtype=_READ_AS[tensor.type],
        mode="r",
        offset=tensor.offset,
        shape=(tensor.size,),
    )
    indices = np.unique(np.linspace(0, len(stored) - 1, _ELEMENTS).round().astype(np.int64))
    elements = np.asarray(stored[indices])
    if tensor.type == "BF16":  # a bfloat16 is the upper half of a float32
        elements = (elements.astype("<u4") << 16).view("<f4")
    return elements.astype(np.float64)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
