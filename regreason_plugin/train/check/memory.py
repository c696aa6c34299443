"""Estimates the memory that a training takes on each GPU, from the model's config.json alone.

Symbols: n tokens in a batch (rows x longest row, or rows x sequence_len if rows are packed or
padded to it); w bytes per number (2 in bfloat16 and float16, 4 in float32); D the hidden size; L
layers; A and K the widths of all queries and of all keys; I the width of the feed-forward part
that a token goes through; V the vocabulary size.

weights        w bytes each. In 4 bit (NF4 with double quantisation, as Axolotl sets it up), each
               weight of a linear layer other than the head takes 0.516 byte: half a byte, one
               byte per 64 weights for a scale, and 4 bytes per 256 scales (Dettmers et al. 2023,
               arXiv 2305.14314, section 3). In 8 bit it takes one byte.
adapter        LoRA adds r x (inputs + outputs) weights to every linear layer that it targets.
               peft keeps them in float32.
gradients      as many bytes as the trained weights.
optimizer      Adam keeps two numbers per trained weight, in the weights' own format, or two bytes
               in 8 bit. DeepSpeed in 16 bit keeps a float32 copy of the weights and two float32
               numbers instead, 12 bytes (Rajbhandari et al. 2020, arXiv 1910.02054, section 3).
activations    the tensors that the backward pass reads. In 16 bit, a block keeps 16 D + 4 A +
               4 K + 8 I bytes per token: two norms (each with its input in float32, its quotient
               and its output), the queries, keys, values and output of the attention, and four
               products of the feed-forward part. Normalised queries and keys add 6 (A + K). (The
               sum follows transformers' code; a test compares it with the bytes that PyTorch
               keeps for a block.) With gradient checkpointing, every block keeps only its input,
               2 D, and one block at a time keeps everything. Eager attention adds 5 x heads x
               length bytes per token (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1).
logits         n x V numbers, kept as logits, as their float32 copy, as log-softmax and as its
               gradient: 14 bytes in 16 bit, 12 in float32. With a label share, the loss is taken
               on target tokens only, so only the logits and their gradient count, 2 w. Axolotl's
               fused losses keep almost nothing. This part is an upper bound: with
               regreason_target_logits, only tokens with a loss have logits.
CUDA           half a GiB for the context of CUDA, for any training.

ZeRO-1 divides the optimizer's part by the number of processes, ZeRO-2 also the gradients, ZeRO-3
also weights and adapter. A part that a DeepSpeed file offloads to the CPU counts as zero. The
estimate leaves out fused kernels, fragmentation and the buffers of several GPUs: it is made for
choosing a GPU.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
_CONTEXT = GIB // 2
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
_FUSED_LOSSES = ("cut_cross_entropy", "liger_fused_linear_cross_entropy", "chunked_cross_entropy")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model's parts.

    Attributes:
        parameters: Number of weights; weights that two layers share count once.
        linear: Number of inputs and outputs of every linear layer except the head, by name.
        layers: Number of blocks.
        hidden: Width of the states between blocks.
        queries: Total width of all heads' queries.
        keys: Total width of all heads' keys.
        feed_forward: Inner width of the feed-forward part that one token goes through.
        heads: Number of attention heads.
        vocabulary: Number of tokens in the vocabulary.
        normalised_queries: Whether the attention normalises queries and keys.
    """

    parameters: int
    linear: Mapping[str, tuple[int, int]]
    layers: int
    hidden: int
    queries: int
    keys: int
    feed_forward: int
    heads: int
    vocabulary: int
    normalised_queries: bool

    def block_bytes(self) -> int:
        """Bytes that one block keeps of one token for the backward pass, in 16 bit."""
        norms = 6 * (self.queries + self.keys) if self.normalised_queries else 0
        return 16 * self.hidden + 4 * self.queries + 4 * self.keys + 8 * self.feed_forward + norms


def read_shape(config: Any) -> ModelShape:
    """Build a model without its weights, and read the sizes of its parts.

    Args:
        config: A model config of transformers.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    head = model.get_output_embeddings()
    linear = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    text = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    if experts := getattr(text, "num_experts_per_tok", None):
        inner = experts * (getattr(text, "moe_intermediate_size", None) or inner)
    return ModelShape(
        parameters=sum(value.numel() for value in model.parameters()),
        linear=linear,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        queries=heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        feed_forward=inner,
        heads=heads,
        vocabulary=text.vocab_size,
        normalised_queries=any(name.endswith(".q_norm") for name, _ in model.named_modules()),
    )


def lora_parameters(cfg: Any, shape: ModelShape) -> int:
    """Number of weights in the config's LoRA adapter."""
    targets = cfg.lora_target_modules or []
    if isinstance(targets, str):
        on = [name for name in shape.linear if re.fullmatch(targets, name)]
    elif cfg.lora_target_linear:
        on = list(shape.linear)
    else:
        on = [n for n in shape.linear if any(n == t or n.endswith(f".{t}") for t in targets)]
    return sum(int(cfg.lora_r or 8) * sum(shape.linear[name]) for name in on)


def estimate(
    cfg: Any, shape: ModelShape, length: int, processes: int, deepspeed: Mapping[str, Any]
) -> dict[str, float]:
    """Estimated bytes on each GPU, by use.

    Args:
        cfg: The config as Axolotl has validated it.
        shape: Sizes of the config's model.
        length: Number of tokens in the longest row.
        processes: Number of processes that train, each on its own GPU.
        deepspeed: DeepSpeed's settings; empty without DeepSpeed.
    """
    width = number_bytes(cfg)
    whole_length = cfg.sample_packing or cfg.pad_to_sequence_len
    tokens = cfg.micro_batch_size * (cfg.sequence_len if whole_length else length)
    inner = sum(inputs * outputs for inputs, outputs in shape.linear.values())
    linear_bytes = _NF4 if cfg.load_in_4bit else 1 if cfg.load_in_8bit else width
    parts = {"weights": inner * linear_bytes + (shape.parameters - inner) * width}
    trained, trained_width = shape.parameters, width
    if cfg.adapter:
        trained = lora_parameters(cfg, shape)
        trained_width = width if cfg.peft_autocast_adapter_dtype is False else 4
        parts["adapter"] = trained * trained_width
    parts["gradients"] = trained * trained_width
    in_float32 = deepspeed and width == 2
    parts["optimizer"] = trained * (
        12 if in_float32 else _state_bytes(str(cfg.optimizer), trained_width)
    )
    parts["activations"] = tokens * _activation_bytes(cfg, shape, length) * width / 2
    parts["logits"] = tokens * shape.vocabulary * _logit_bytes(cfg, width)
    _shard(parts, processes, deepspeed.get("zero_optimization") or {})
    return {**parts, "CUDA": _CONTEXT}


def number_bytes(cfg: Any) -> int:
    """Bytes of a weight that is not quantised, on a GPU that supports bfloat16."""
    formats = (cfg.bf16, cfg.bfloat16, cfg.fp16, cfg.float16, cfg.load_in_8bit)
    return 2 if any(formats) else 4


def read_deepspeed(cfg: Any) -> dict[str, Any]:
    """Read DeepSpeed's settings from the file that the config names; empty if it names none.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not JSON.
    """
    named = cfg.get("deepspeed")
    if not named or isinstance(named, dict):
        return dict(named or {})
    settings: dict[str, Any] = json.loads(Path(named).read_text(encoding="utf-8"))
    return settings


def _state_bytes(optimizer: str, width: int) -> float:
    if "sgd" in optimizer or "adafactor" in optimizer:
        return 0
    states = 1 if "lion" in optimizer or "muon" in optimizer else 2
    if "4bit" in optimizer:
        return states / 2
    return states * (1 if "8bit" in optimizer or "fp8" in optimizer else width)


def _activation_bytes(cfg: Any, shape: ModelShape, length: int) -> float:
    """Bytes of one token's activations, in 16 bit."""
    block = shape.block_bytes()
    if cfg.attn_implementation == "eager":
        block += 5 * shape.heads * length
    if not cfg.gradient_checkpointing:
        return shape.layers * block
    inputs = 0 if isinstance(cfg.gradient_checkpointing, str) else shape.layers * 2 * shape.hidden
    return inputs + block


def _logit_bytes(cfg: Any, width: int) -> int:
    if any(cfg.get(name) for name in _FUSED_LOSSES):
        return 0
    if cfg.regreason_label_share is not None:
        return 2 * width
    return 14 if width == 2 else 12


def _shard(parts: dict[str, float], processes: int, zero: Mapping[str, Any]) -> None:
    stage = int(zero.get("stage") or 0)
    for part, first in (("optimizer", 1), ("gradients", 2), ("weights", 3), ("adapter", 3)):
        if part in parts and stage >= first:
            parts[part] /= processes
    for offloaded, of in (
        ("offload_optimizer", ("optimizer",)),
        ("offload_param", ("weights", "adapter")),
    ):
        if (zero.get(offloaded) or {}).get("device") in ("cpu", "nvme"):
            parts.update({part: 0.0 for part in of if part in parts})
