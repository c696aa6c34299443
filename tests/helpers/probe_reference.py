"""Slow reference probes: one prompt at a time, in float64, with the formulas written out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn


def entropy(p: Any) -> float:
    """-sum p log p, with 0 log 0 = 0."""
    p = np.asarray(p, dtype=np.float64)
    return float(-sum(x * np.log(x) for x in p if x > 0))


def softmax(x: Any) -> Any:
    e = np.exp(np.asarray(x, dtype=np.float64) - np.max(x))
    return e / e.sum()


def matrix_entropy(states: Any) -> float | None:
    """Von Neumann entropy of the Gram matrix of centred, normalised rows."""
    x = np.asarray(states, dtype=np.float64)
    n, d = x.shape
    if n == 1:
        return None
    x = x - x.mean(axis=0)
    rows = [row / np.sqrt((row**2).sum()) for row in x if np.sqrt((row**2).sum()) > 1e-12]
    if not rows:
        return 0.0
    gram = np.array([[a @ b for b in rows] for a in rows]) / len(rows)
    return entropy(np.clip(np.linalg.eigvalsh(gram), 0, None)) / np.log(min(n, d))


def reference(model: nn.Module, norm: str, ids: list[int], choices: list[int]) -> dict[str, Any]:
    """All probes at the last token of one prompt.

    Args:
        model: A causal language model whose logits are its head's, or soft-capped by its config.
        norm: Module name of the final norm.
        ids: Token ids of the prompt.
        choices: Token ids for the label entropy.
    """
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].numpy()
        # transformers returns the last block's state after the final norm, so the norm is replaced
        # temporarily.
        final = model.get_submodule(norm)
        parent, _, name = norm.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity())
        hidden = [
            layer[0]
            for layer in model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        ]
        lens = [model.get_output_embeddings()(final(layer[-1])).numpy() for layer in hidden]
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap:
        lens = [np.tanh(one / cap) * cap for one in lens]
    lens = [one * (getattr(model.config, "logit_scale", None) or 1) for one in lens]
    last = [layer[-1].numpy() for layer in hidden]
    scale = np.log(len(last[0]))
    return {
        "output_entropy": entropy(softmax(logits)),
        "label_entropy": entropy(softmax(logits[choices])),
        "activation_entropy_by_layer": [entropy(abs(h) / abs(h).sum()) / scale for h in last],
        "activation_entropy_square_by_layer": [entropy(h**2 / (h**2).sum()) / scale for h in last],
        "logit_lens_entropy_by_layer": [entropy(softmax(one)) for one in lens],
        "matrix_entropy_by_layer": (
            None if len(ids) == 1 else [matrix_entropy(layer.numpy()) for layer in hidden]
        ),
    }
