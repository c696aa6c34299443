"""One forward pass that returns logits at chosen positions and the probes.

The model's own head computes logits at these positions only, whereas lm-eval's ``hf`` computes
them at every position to read one. Hooks read the residual stream and reduce it at once: of each
layer, only the states at the n decisions are kept (n x D), never the states of a whole prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regreason_plugin.core.errors import UserError
from regreason_plugin.probes.anatomy import Anatomy, ProbeError, dissect
from regreason_plugin.probes.entropy import (
    activation_entropies,
    distribution_entropy,
    matrix_entropies,
)
from regreason_plugin.probes.head import head_at
from regreason_plugin.probes.names import BY_LAYER

ProbeValues = dict[str, Any]
# Largest number of the logit lens's logits in memory at a time.
_LENS_LOGITS = 2**23


@dataclass(frozen=True)
class Decision:
    """A position whose next-token distribution decides between answers.

    Attributes:
        position: Index of the position among those whose logits are wanted.
        prompt: Columns of the prompt's tokens in the batch; the last one is the position itself.
        choices: Token ids between which the position decides.
    """

    position: int
    prompt: Sequence[int]
    choices: Sequence[int] = ()


def logits_at(
    model: nn.Module,
    inputs: dict[str, Any],
    rows: Sequence[int],
    columns: Sequence[int],
    decisions: Sequence[Decision] = (),
    probes: frozenset[str] = frozenset(),
    alpha: float = 1.0,
) -> tuple[Tensor, list[ProbeValues]]:
    """Run a causal language model once and return logits and probes.

    Args:
        model: A causal language model of transformers, which peft may have wrapped.
        inputs: The model's keyword arguments; ``input_ids`` is ``[B, T]``, padded on the right.
        rows: Rows of the n positions whose logits are wanted.
        columns: Columns of these positions.
        decisions: Positions to probe.
        probes: Names of the probes (`regreason_plugin.probes.PROBES`).
        alpha: Order of the matrix entropy.

    Returns:
        Logits ``[n, V]`` in the model's precision, and a dict for each decision. It has
        ``output_entropy`` and ``label_entropy`` in nats, and lists of L + 1 floats, of which the
        first is of the embeddings and the others of the residual stream after each block:
        ``activation_entropy_by_layer`` and ``activation_entropy_square_by_layer`` (0 to 1),
        ``matrix_entropy_by_layer`` (None for a prompt of one token) and
        ``logit_lens_entropy_by_layer`` (nats).

    Raises:
        ProbeError: The model's layers cannot be found or do not have the expected form.
        UserError: A probe's value is not finite.
    """
    device = inputs["input_ids"].device
    shape = inputs["input_ids"].shape
    where = (torch.tensor(rows, device=device), torch.tensor(columns, device=device))
    record = None
    if decisions and probes & BY_LAYER:
        record = _Record(dissect(model), shape, where, decisions, probes, alpha)
    with torch.no_grad():
        with (
            record.reading() if record else nullcontext(),
            head_at(model, shape, *where) as narrowed,
        ):
            logits: Tensor = model(**inputs, use_cache=False).logits
        logits = logits[0] if narrowed else logits[where[0].to(logits.device), where[1]]
        values = _of_logits(logits, decisions, probes) if decisions else {}
        if record is not None:
            head_dtype = narrowed[0] if narrowed else logits.dtype
            values |= record.values(logits, values.get("output_entropy"), head_dtype)
    return logits, _by_decision(values, decisions)


class _Record:
    """The values that are kept of the layers during one forward pass.

    Attributes:
        states: Hidden states ``[n, D]`` at the decisions, of the embeddings and of each block.
        matrix: Matrix entropies ``[n]`` of the decisions, of the embeddings and of each block.
        after: Modules that ran after the last block and before the head, in their order.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        shape: torch.Size,
        where: tuple[Tensor, Tensor],
        decisions: Sequence[Decision],
        probes: frozenset[str],
        alpha: float,
    ) -> None:
        self.anatomy = anatomy
        self.shape = shape
        self.probes = probes
        self.alpha = alpha
        self.at = [decision.position for decision in decisions]
        self.rows, self.columns = where[0][self.at], where[1][self.at]
        self.prompts = [torch.tensor(decision.prompt) for decision in decisions]
        self.states: list[Tensor] = []
        self.matrix: list[Tensor] = []
        self.after: list[nn.Module] = []

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the model's layers by hooks; the ``with`` block has to run the model once.

        Raises:
            ProbeError: The outputs of the blocks do not have the expected form or number.
        """

        def embeddings(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.states:  # the first block may run more than once
                self._keep(args[0] if args else kwargs["hidden_states"])

        def layer(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._keep(output if isinstance(output, Tensor) else output[0])

        def after(module: nn.Module, *_: Any) -> None:
            if len(self.states) > len(layers):
                self.after.append(module)

        layers = self.anatomy.layers
        handles = [layers[0].register_forward_pre_hook(embeddings, with_kwargs=True)]
        handles += [block.register_forward_hook(layer) for block in dict.fromkeys(layers)]
        handles += [module.register_forward_hook(after) for module in self.anatomy.beside]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if len(self.states) != len(layers) + 1:
            raise ProbeError(
                f"the model has {len(layers)} blocks, but {len(self.states) - 1} outputs of blocks "
                "were seen, so its layers cannot be told apart; use probe=none or "
                "probe=output+label"
            )

    def _keep(self, hidden: Any) -> None:
        if not isinstance(hidden, Tensor) or hidden.shape[:-1] != self.shape:
            raise ProbeError(
                "this model's blocks do not pass on one state per token, so its layers cannot be "
                "probed; use probe=none or probe=output+label"
            )
        rows, columns = self.rows.to(hidden.device), self.columns.to(hidden.device)
        if "matrix" in self.probes:
            _check_finite(hidden, len(self.states))
            prompts = [
                hidden[row, prompt.to(hidden.device)]
                for row, prompt in zip(rows.tolist(), self.prompts, strict=True)
            ]
            self.matrix.append(matrix_entropies(prompts, self.alpha))
        self.states.append(hidden[rows, columns])

    def values(
        self, logits: Tensor, output_entropy: Tensor | None, head_dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """The probes by layer, ``[n, L + 1]`` each.

        Args:
            logits: The model's logits at all wanted positions.
            output_entropy: Output entropy at the decisions; None if it was not computed.
            head_dtype: Precision of the states that the model passes to its head.
        """
        values = {}
        if "activation" in self.probes:
            layers = [activation_entropies(states) for states in self.states]
            for name in layers[0]:
                values[f"{name}_by_layer"] = _stack([layer[name] for layer in layers])
        if "logit_lens" in self.probes:
            lens = self._lens(head_dtype)
            if output_entropy is None:
                output_entropy = distribution_entropy(logits[self.at])
            _check_lens(lens[:, -1], output_entropy.to(lens.device), logits)
            values["logit_lens_entropy_by_layer"] = lens
        if "matrix" in self.probes:
            values["matrix_entropy_by_layer"] = _stack(self.matrix)
        return values

    def _lens(self, head_dtype: torch.dtype) -> Tensor:
        """Entropies of the model's answers if each layer were its last, ``[n, L + 1]``.

        Several layers go through the head together, up to `_LENS_LOGITS` logits: with few rows,
        the time goes into reading the head's weights.
        """
        anatomy, device = self.anatomy, self.states[-1].device
        rows = len(self.states[0])
        at_once = max(1, _LENS_LOGITS // (rows * anatomy.vocabulary))
        entropies = []
        for start in range(0, len(self.states), at_once):
            layers = [states.to(device) for states in self.states[start : start + at_once]]
            states = torch.cat(layers)[None]
            for module in self.after:
                states = module(states)
            logits = anatomy.finish(anatomy.head(states.to(head_dtype)))[0]
            entropies.append(distribution_entropy(logits).view(len(layers), rows))
        return torch.cat(entropies).T


def _of_logits(
    logits: Tensor, decisions: Sequence[Decision], probes: frozenset[str]
) -> dict[str, Tensor]:
    values = {}
    if "output" in probes:
        at = torch.tensor([decision.position for decision in decisions], device=logits.device)
        values["output_entropy"] = distribution_entropy(logits[at])
    if "label" in probes and all(decision.choices for decision in decisions):
        values["label_entropy"] = torch.stack(
            [
                distribution_entropy(logits[decision.position, list(decision.choices)])
                for decision in decisions
            ]
        )
    return values


def _stack(layers: list[Tensor]) -> Tensor:
    """Values of the layers as ``[n, L + 1]``, moved to one device; a model may use several."""
    return torch.stack([layer.to(layers[-1].device) for layer in layers], dim=1)


def _check_finite(hidden: Tensor, layer: int) -> None:
    if not hidden.isfinite().all():
        raise UserError(
            f"the model's activations are not finite at layer {layer} (0 is the embeddings), so "
            "they have no entropy; load it with dtype=float32 or dtype=bfloat16, or use probe=none"
        )


def _check_lens(last: Tensor, output_entropy: Tensor, logits: Tensor) -> None:
    """Check that the logit lens at the last layer gives the model's own output.

    Raises:
        ProbeError: It does not, so the model computes its logits in an unknown way.
    """
    tolerance = 1e-3 if logits.dtype in (torch.float32, torch.float64) else 5e-2
    # The comparison is False for NaN, which `_by_decision` reports later.
    if ((last - output_entropy).abs() > tolerance * (1 + output_entropy)).any():
        raise ProbeError(
            "the logit lens at the last layer does not give this model's own output, so the model "
            "computes its logits from the last layer in a way that RegReason does not know; leave "
            "logit_lens out of probe="
        )


def _by_decision(values: dict[str, Tensor], decisions: Sequence[Decision]) -> list[ProbeValues]:
    """The probes' values as plain numbers, one dict for each decision.

    Raises:
        UserError: A value is not finite.
    """
    by_decision: list[ProbeValues] = [{} for _ in decisions]
    for name, tensor in values.items():
        columns = tensor.cpu()
        for number, decision in enumerate(decisions):
            value = columns[number]
            if name == "matrix_entropy_by_layer" and len(decision.prompt) == 1:
                by_decision[number][name] = None
                continue
            if not value.isfinite().all():
                layer = int((~value.isfinite()).nonzero()[0]) if value.ndim else None
                raise UserError(
                    f"{name} is not finite"
                    + (f" at layer {layer} (0 is the embeddings)" if layer is not None else "")
                    + ": the model's numbers overflow; load it with dtype=float32 or "
                    "dtype=bfloat16, or use probe=none"
                )
            by_decision[number][name] = value.tolist()
    return by_decision
