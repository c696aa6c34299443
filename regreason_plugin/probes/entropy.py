"""The formulas of the entropies, on tensors and with natural logarithms.

All computations use at least float32, whatever the model's precision. A NaN in the input is a NaN
in the result; the caller has to check for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

# A row equals the mean up to rounding if its distance from the mean is at most this many machine
# epsilons of its own length.
_ROUNDING = 32.0


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


Function = TypeVar("Function", bound=Callable[..., Any])


def _in_full_precision(function: Function) -> Function:
    """Run a function without autocast, which would compute some products in half precision."""

    @wraps(function)
    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *args, **kwargs)

    return cast(Function, run)


@_in_full_precision
def distribution_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the softmax, in nats.

    Args:
        logits: ``[..., V]``; minus infinity for impossible tokens.

    Returns:
        ``[...]``, between 0 and log V.
    """
    # Let z be the logits minus the largest logit, s the sum of exp(z) over the other logits, and t
    # the sum of -z exp(z). The entropy is log(1 + s) + t / (1 + s). No terms cancel, so even a
    # nearly certain distribution keeps its digits.
    largest, index = _at_least_float32(logits).max(dim=-1, keepdim=True)
    # At the bound, exp(z) is already 0; without it, an infinity would give 0 times infinity.
    below = (largest - logits).clamp_(max=1e4)
    weights = below.neg().exp_().scatter_(-1, index, 0.0)
    s = weights.sum(dim=-1)
    t = torch.linalg.vecdot(weights, below)
    # The last term is 0, but NaN if the largest logit is infinite; this must not count as certain.
    entropy: Tensor = s.log1p() + t / (1 + s) + (largest - largest).squeeze(-1)
    return entropy


@_in_full_precision
def activation_entropies(hidden: Tensor) -> dict[str, Tensor]:
    """The evenness of a hidden state over its D units, by two definitions of an entropy.

    The paper (arXiv 2511.02044) reports an activation entropy without a formula. Each definition
    turns the state h into a distribution p over the units; the value is -sum p log p / log D:

    - ``activation_entropy``, the primary definition: p = |h| / sum |h|, which Roy and Vetterli
      (2007, "The effective rank: a measure of effective dimensionality") use for singular values;
    - ``activation_entropy_square``: p = h^2 / sum h^2, which Coifman and Wickerhauser (1992,
      "Entropy-based algorithms for best basis selection") use for coefficients.

    The scale of h does not matter, so normalising h by its root mean square changes nothing. The
    entropy of a softmax over the units would be nearly 0 in a real model, even over a normalised
    state, because a few massive units dominate (docs/explanation/probes.md has the numbers).

    Args:
        hidden: ``[..., D]``, D at least 2.

    Returns:
        ``[...]`` by each name, between 0 (a single active unit) and 1 (all units alike, or all
        zero).
    """
    hidden = _at_least_float32(hidden)
    scale = math.log(hidden.shape[-1])
    # Division by the largest unit keeps the squares from overflowing.
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
    """Entropy of the eigenvalues of the Gram matrix of token states (Skean et al. 2025).

    The states are centred over tokens, and the rows are then normalised. K is their Gram matrix
    divided by its trace, with eigenvalues w_i. The entropy is

        alpha = 1:  -sum w_i log w_i                    (von Neumann)
        else:       log(sum w_i ** alpha) / (1 - alpha) (Renyi)

    divided by log min(N, D), as in arXiv 2502.02013. The code that circulates with the
    paper also clamps K elementwise, after which K is not positive semi-definite; this function
    does not.

    Args:
        states: Residual stream of the N tokens of P prompts, ``[P, N, D]``.
        lengths: Number of tokens of each prompt, ``[P]``; further rows are padding. None if all
            rows are tokens.
        alpha: Order of the entropy, above 0. An order within 0.001 of 1 is treated as 1, because
            Renyi's formula would divide a rounding error by nearly zero.

    Returns:
        ``[P]``. 0 if all rows are equal, and for two tokens, whose centred rows are opposite. NaN
        for one token, which cannot be compared with any other.

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
    # A row that equals the mean up to rounding has no direction and is dropped. Comparisons with
    # NaN are false, so rows that are not finite stay.
    length = centred.norm(dim=-1)
    rounding = _ROUNDING * torch.finfo(states.dtype).eps * states.norm(dim=-1)
    is_row &= ~(length <= rounding)
    scale = torch.where(is_row, 1 / length, 0.0)
    # The trace is the number of remaining rows. Both products have the same positive eigenvalues.
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
    # The entropy is exactly 0 if all rows are equal (no direction is left), and for two rows (one
    # direction is left); this removes the rounding error.
    entropy = torch.where(is_row.any(dim=1) & (lengths > 2), entropy, 0.0)
    largest = lengths.clamp(max=width).to(entropy.dtype).log()
    return torch.where(lengths < 2, math.nan, entropy / largest)


def matrix_entropies(prompts: Sequence[Tensor], alpha: float = 1.0) -> Tensor:
    """`matrix_entropy` of prompts of different lengths, ``[N_i, D]`` each.

    On a GPU, the prompts are padded and computed in one call. On a CPU, each thread computes one
    prompt, because several threads do not make a single eigenvalue problem of this size faster.

    Returns:
        ``[P]``.
    """
    if prompts[0].device.type != "cpu":
        lengths = torch.tensor([len(states) for states in prompts], device=prompts[0].device)
        padded = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True)
        return matrix_entropy(padded, lengths, alpha)

    def entropy_of_prompt(states: Tensor) -> Tensor:
        torch.set_num_threads(1)  # affects this worker thread only
        with torch.no_grad():
            return matrix_entropy(states[None], alpha=alpha)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(entropy_of_prompt, prompts)))
