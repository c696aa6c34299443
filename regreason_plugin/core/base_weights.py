"""Which weights a folder or a Hub model holds, told from their headers and a few elements.

An adapter means something on the base model that it was trained on and on no other. Reading the
headers and 16 tensors' elements takes milliseconds, whatever the size of the model.
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
# safetensors' names of the types that a model may be rounded to; numpy has no bfloat16.
_READ_AS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ROUND_TO = {"F16": torch.float16, "BF16": torch.bfloat16}
# Where transformers keeps the head, which a copy may lack if it is tied to the embeddings.
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")


class BaseWeights(BaseModel):
    """What tells one set of weights from another.

    The same weights have the same value however they are cut into files.

    Attributes:
        layout: sha256 of every tensor's name and shape, sorted by name.
        types: The types that the sampled tensors are stored in, such as ``BF16``.
        samples: sha256 of the sampled elements by the type they are rounded to: ``F32``, which
            is all of them but for float64, ``F16`` and ``BF16``.
        quantised: Whether the model's config says so; then its tensors are no plain numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: str
    types: tuple[str, ...]
    samples: dict[str, str]
    quantised: bool = False


class _Tensor(NamedTuple):
    """One tensor of a safetensors file; ``offset`` counts bytes from the file's start."""

    file: Path
    type: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def compare_weights(trained: BaseWeights | None, used: BaseWeights | None) -> Verdict:
    """Whether two models have the same weights.

    Args:
        trained: Those that an adapter was trained on; None where nothing says.
        used: Those that it is used on.

    Returns:
        ``same``; ``rounded`` where one is a copy of the other in fewer bits; ``other`` where
        only names and shapes agree; ``other shapes``; ``unknown`` where either is not known or
        a quantised copy.
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
    """Read what tells a model's weights from others.

    Args:
        model: A folder, or an id of the Hub. Nothing is downloaded.
        revision: Of the Hub.
        subfolder: In the folder or repository.

    Returns:
        None where this machine has no safetensors files of it, as of a model kept in a pickle.

    Raises:
        UserError: A file is broken.
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
    chosen = [tensors[name] for name in _chosen(tensors)]
    elements = np.concatenate([_elements(tensor) for tensor in chosen] or [np.zeros(0)])
    full = torch.from_numpy(elements.astype("<f4"))
    samples = {"F32": _sha256(full.numpy().tobytes())}
    for name, kind in _ROUND_TO.items():
        samples[name] = _sha256(full.to(kind).float().numpy().tobytes())
    return BaseWeights(
        layout=_sha256(layout.encode()),
        types=tuple(sorted({tensor.type for tensor in chosen})),
        samples=samples,
        quantised=bool(config.get("quantization_config")),
    )


def _files(model: str, revision: str | None, subfolder: str | None) -> list[Path]:
    index = local_file(model, _INDEX, revision, subfolder)
    if index is None:
        single = local_file(model, _SINGLE, revision, subfolder)
        return [single] if single else []
    names = sorted(set(_json(index).get("weight_map", {}).values()))
    found = [local_file(model, name, revision, subfolder) for name in names]
    if None in found:
        name = names[found.index(None)]
        raise UserError(f"names {name}, which is not there", path=index)
    return [file for file in found if file is not None]


def local_file(
    model: str, name: str, revision: str | None = None, subfolder: str | None = None
) -> Path | None:
    """A file of a model that is on this machine; None where it is not."""
    if Path(model).is_dir():
        local = Path(model, subfolder or "", name)
        return local if local.is_file() else None
    inside = f"{subfolder}/{name}" if subfolder else name
    try:
        found = try_to_load_from_cache(model, inside, revision=revision)
    except HFValidationError:  # a folder that is not there
        return None
    return Path(found) if isinstance(found, str) else None


def _json(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", path=file) from None
    return content if isinstance(content, dict) else {}


def _header(file: Path) -> Iterator[tuple[str, _Tensor]]:
    """Every tensor of a file by name; the format is eight bytes of length, JSON, then data."""
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
        raise UserError(f"is no safetensors file ({type(error).__name__})", path=file) from None


def _chosen(tensors: dict[str, _Tensor]) -> list[str]:
    """Which tensors are looked into: of every kind of layer one, then another of each.

    An adapter that was merged changes some kinds only, such as the query projections.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in sorted(tensors, key=lambda name: (_sha256(name.encode()), name)):
        if tensors[name].type in _READ_AS and tensors[name].size:
            kinds[re.sub(r"\d+", "*", name)].append(name)
    rounds = zip_longest(*(kinds[kind] for kind in sorted(kinds)))
    return [name for names in rounds for name in names if name is not None][:_TENSORS]


def _elements(tensor: _Tensor) -> npt.NDArray[np.float64]:
    """Elements at fixed distances, the first and the last among them, ``[at most 64]``."""
    stored = np.memmap(
        tensor.file,
        dtype=_READ_AS[tensor.type],
        mode="r",
        offset=tensor.offset,
        shape=(tensor.size,),
    )
    places = np.unique(np.linspace(0, len(stored) - 1, _ELEMENTS).round().astype(np.int64))
    found = np.asarray(stored[places])
    if tensor.type == "BF16":  # the upper half of a float32
        found = (found.astype("<u4") << 16).view("<f4")
    return found.astype(np.float64)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
