"""The entropies, as formulas on tensors; natural logarithms throughout.

Everything is computed in float32 at least, whatever the model's own precision. Nothing
here hides a NaN: what goes in comes out, and the caller checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

# Rows that differ from the mean by less than this, relative to their own length, are the
# mean and rounding.
_ROUNDING = 32.0


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


Function = TypeVar("Function", bound=Callable[..., Any])


def _in_full_precision(function: Function) -> Function:
    """Autocast, in which a model may run, would take some of the products in half precision."""

    @wraps(function)
    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *args, **kwargs)

    return cast(Function, run)


@_in_full_precision
def distribution_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the softmax, in nats.

    Args:
        logits: ``[..., V]``; minus infinity for what is impossible.

    Returns:
        ``[...]``, between 0 and log V.
    """
    # With z the logits minus the largest, s the sum of exp(z) over the others and t that of
    # -z exp(z), the entropy is log(1 + s) + t / (1 + s): nothing cancels, so a distribution
    # that is nearly certain keeps its digits.
    largest, index = _at_least_float32(logits).max(dim=-1, keepdim=True)
    # (Beyond the bound exp is 0; an infinity would make 0 times infinity of it.)
    below = (largest - logits).clamp_(max=1e4)
    weights = below.neg().exp_().scatter_(-1, index, 0.0)
    s = weights.sum(dim=-1)
    t = torch.linalg.vecdot(weights, below)
    # (0, or NaN if there is an infinity, which then must not pass for certainty.)
    entropy: Tensor = s.log1p() + t / (1 + s) + (largest - largest).squeeze(-1)
    return entropy


@_in_full_precision
def activation_entropies(hidden: Tensor) -> dict[str, Tensor]:
    """How evenly a hidden state is spread over its D units, by two definitions.

    The paper (arXiv 2511.02044) reports an activation entropy without a formula. Each
    definition makes a distribution p over the units of the state h; the value is
    -sum p log p / log D:

    - ``activation_entropy``, the primary one: p = |h| / sum |h|, as Roy and Vetterli (2007,
      "The effective rank: a measure of effective dimensionality") have it for singular values;
    - ``activation_entropy_square``: p = h^2 / sum h^2, as Coifman and Wickerhauser (1992,
      "Entropy-based algorithms for best basis selection") have it for coefficients.

    The scale of h does not matter, so both are also those of h over its root mean square. A
    softmax over the units would be nearly 0 in a real model, even over a normalised state: a
    few massive units take everything (docs/explanation/probes.md has the numbers).

    Args:
        hidden: ``[..., D]``, D at least 2.

    Returns:
        ``[...]`` under each name, between 0 (one unit) and 1 (all alike; a state that is
        zero everywhere counts as that).
    """
    hidden = _at_least_float32(hidden)
    scale = math.log(hidden.shape[-1])
    # Dividing by the largest unit first keeps the squares in range.
    size = hidden.abs()
    size = size / size.amax(dim=-1, keepdim=True).masked_fill(size.amax(-1, keepdim=True) == 0, 1)
    return {
        "activation_entropy": _entropy_of_weights(size) / scale,
        "activation_entropy_square": _entropy_of_weights(size.square()) / scale,
    }


def _entropy_of_weights(weights: Tensor) -> Tensor:
    total = weights.sum(dim=-1, keepdim=True)
    p = torch.where(total == 0, 1 / weights.shape[-1], weights / total)
    entropy: Tensor = torch.special.entr(p).sum(dim=-1)
    return entropy


@_in_full_precision
def matrix_entropy(states: Tensor, lengths: Tensor | None = None, alpha: float = 1.0) -> Tensor:
    """Entropy of the spectrum of the Gram matrix of token states (Skean et al. 2025).

    The states are centred over tokens and the rows normalised; K is their Gram matrix
    divided by its trace, with eigenvalues w_i:

        alpha = 1:  -sum w_i log w_i                    (von Neumann)
        else:       log(sum w_i ** alpha) / (1 - alpha) (Renyi)

    over log min(N, D), as in arXiv 2502.02013 but without the elementwise clamp of the
    code that circulates with it, under which K is not positive semi-definite.

    Args:
        states: ``[P, N, D]``: of P prompts, the residual stream of their tokens.
        lengths: ``[P]``: how many of the N rows are tokens, the rest being padding;
            without it, all.
        alpha: The order of the entropy, above 0. Within 0.001 of 1 it counts as 1: the
            other formula would divide rounding by nearly nothing.

    Returns:
        ``[P]``. 0 for rows that are all equal, and so for two tokens, which centring
        makes each other's opposite. NaN for one token: there is nothing to compare.

    Raises:
        ValueError: The order is not above 0.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"the order of the matrix entropy is {alpha}, not a number above 0")
    _, longest, width = states.shape
    states = _at_least_float32(states)
    if lengths is None:
        lengths = torch.full((len(states),), longest, device=states.device)
        is_row = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    else:
        is_row = torch.arange(longest, device=states.device) < lengths[:, None]
        states = states.masked_fill(~is_row[..., None], 0.0)
    centred = states - states.sum(dim=1, keepdim=True) / lengths[:, None, None]
    # A row that differs from the mean by rounding only has no direction. (Comparisons with
    # NaN are false, so what is not finite stays so.)
    length = centred.norm(dim=-1)
    rounding = _ROUNDING * torch.finfo(states.dtype).eps * states.norm(dim=-1)
    is_row &= ~(length <= rounding)
    scale = torch.where(is_row, 1 / length, 0.0)
    # The trace is the number of rows left. Both products have the same eigenvalues above 0.
    share = scale / is_row.sum(dim=1).clamp_min(1)[:, None].sqrt()
    if longest <= width:
        gram = (centred @ centred.mT) * share[:, :, None] * share[:, None, :]
    else:
        rows = centred * share[:, :, None]
        gram = rows.mT @ rows
    if alpha == 2.0:  # sum w_i ** 2 needs no eigenvalues
        entropy = -gram.square().sum(dim=(1, 2)).log()
    else:
        eigenvalues = torch.linalg.eigvalsh(gram).clamp_min(0.0)
        if abs(alpha - 1) < 1e-3:
            entropy = torch.special.entr(eigenvalues).sum(dim=-1)
        else:
            entropy = eigenvalues.pow(alpha).sum(dim=-1).log() / (1 - alpha)
    # All rows equal: no direction is left. Two rows: one is left. Both 0 without rounding.
    entropy = torch.where(is_row.any(dim=1) & (lengths > 2), entropy, 0.0)
    largest = lengths.clamp(max=width).to(entropy.dtype).log()
    return torch.where(lengths < 2, math.nan, entropy / largest)


def matrix_entropies(prompts: Sequence[Tensor], alpha: float = 1.0) -> Tensor:
    """`matrix_entropy` of prompts of their own lengths, ``[N_i, D]`` each; ``[P]``.

    A GPU takes them padded, in one call. Eigenvalues of matrices of this size do not
    get faster with threads, so on a CPU the threads take a prompt each.
    """
    if prompts[0].device.type != "cpu":
        lengths = torch.tensor([len(states) for states in prompts], device=prompts[0].device)
        padded = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True)
        return matrix_entropy(padded, lengths, alpha)

    def one(states: Tensor) -> Tensor:
        torch.set_num_threads(1)  # of this worker thread alone
        with torch.no_grad():
            return matrix_entropy(states[None], alpha=alpha)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(one, prompts)))
