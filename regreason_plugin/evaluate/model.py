"""``regreason-hf``: a drop-in for lm-eval's ``hf`` that scores faster and measures probes.

It takes the arguments of ``hf`` and two more, and gives the same numbers, except for adapters,
whose base model it does not resize (`adapter_loading`). It computes a prefix that several
prompts share only once, where ``hf`` computes it for each prompt (`scorer`). At the position
that decides a document's answer it can measure entropies (`regreason_plugin.probes`).
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from accelerate.utils import DistributedType
from lm_eval.models.huggingface import HFLM, eval_logger
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import BitsAndBytesConfig

from regreason_plugin.core.cost import SCORING, ScoringClock
from regreason_plugin.core.cpu_processes import several_on_a_cpu
from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.evaluate.adapter_loading import load_adapter
from regreason_plugin.evaluate.answer_cache import answers_digest
from regreason_plugin.evaluate.label_requests import Context, Continuation
from regreason_plugin.evaluate.probe_metrics import Scored
from regreason_plugin.evaluate.scorer import Scorer, say
from regreason_plugin.metrics.metric_names import (
    ACTIVATION_DEFINITION,
    ACTIVATION_WEIGHTS,
    PRIMARY_ACTIVATION,
)
from regreason_plugin.packing.prefix_tree import shared_prefix
from regreason_plugin.probes import parse_probes
from regreason_plugin.probes.names import BY_LAYER

NAME = "regreason-hf"
# The matrix entropy is the slowest probe, so users turn it on by name or with `all`.
DEFAULT_PROBES = "output+label+activation+logit_lens"

# Prompts per batch in generation with ``batch_size=auto`` on a CPU.
_CPU_BATCH = 16
_BITSANDBYTES = ("load_in_4bit", "load_in_8bit", "bnb_4bit_", "llm_int8_")

Request = tuple[tuple[str, str] | None, list[int], list[int]]


class RegReasonHF(HFLM):  # type: ignore[misc]
    """A drop-in for ``hf``.

    Args:
        pretrained: As in ``hf``, like every argument that is not named here.
        probe: The probes to measure: ``all``, ``none``, or names joined by ``+``. Without it,
            those of `DEFAULT_PROBES` that this kind of model supports.
        renyi_alpha: The order of the matrix entropy; 1 is the von Neumann entropy.
        others: See lm-eval's ``hf``. ``batch_size`` counts rows; a row holds all prompts that
            share a conversation. ``auto`` limits the number of tokens per batch instead.
    """

    @stop_on_user_error()
    def __init__(
        self,
        pretrained: Any,
        probe: str | None = None,
        renyi_alpha: float = 1.0,
        **others: Any,
    ) -> None:
        self.probes = parse_probes(DEFAULT_PROBES if probe is None else str(probe))
        self.alpha = _number_above_0("renyi_alpha", renyi_alpha)
        if several_on_a_cpu():
            # Otherwise accelerate finds no backend, and every process runs as if it were alone.
            os.environ["ACCELERATE_USE_CPU"] = "true"
        # Everything that determines an answer, for the cache key.
        self._answer_settings = {
            "pretrained": pretrained,
            "probes": sorted(self.probes),
            "renyi_alpha": self.alpha,
            ACTIVATION_DEFINITION: ACTIVATION_WEIGHTS,
            "optional_probes": probe is None,
            **others,
        }
        super().__init__(pretrained, **others)
        if hasattr(self, "accelerator"):
            # hf shares the work among processes only if it finds several GPUs.
            self._rank = self.accelerator.process_index
            self._world_size = self.accelerator.num_processes
        self.clock = ScoringClock()
        self.scorer = Scorer(
            self.model,
            self.device,
            probes=self.probes,
            optional_probes=BY_LAYER if probe is None else frozenset(),
            alpha=self.alpha,
            batch_rows=None if self.batch_size == "auto" else self.batch_size,
            max_rows=self.max_batch_size if self.batch_size == "auto" else None,
            autocast=self.mixed_precision_dtype,
            softmax_dtype=self.softmax_dtype,
        )

    def _create_model(
        self,
        *args: Any,
        quantization_config: Any = None,
        peft: str | None = None,
        **others: Any,
    ) -> None:
        """Load the model as hf does, except for quantization and the adapter.

        hf passes ``load_in_4bit`` and similar arguments on unchanged, but transformers 5 accepts
        them only in a config. And hf resizes the base model's embeddings to the tokenizer before
        it loads an adapter.
        """
        if peft and others.get("delta"):
            raise UserError("--model_args has both peft= and delta=; leave out one of them")
        bits = {name: others.pop(name) for name in list(others) if name.startswith(_BITSANDBYTES)}
        if bits.get("load_in_4bit") or bits.get("load_in_8bit"):
            quantization_config = BitsAndBytesConfig(**bits)  # type: ignore[no-untyped-call]
        super()._create_model(*args, quantization_config=quantization_config, **others)
        if peft:
            self._model = load_adapter(self.model, peft, self.tokenizer, others.get("revision"))

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """The batch size that ``auto`` means in generation.

        hf tries smaller and smaller batches until one fits into memory. On a CPU, a batch that
        does not fit ends the process, so nothing is tried there.
        """
        if self.device.type == "cpu":
            return int(min(_CPU_BATCH, self.max_batch_size or _CPU_BATCH))
        rows: int = super()._detect_batch_size(requests, pos)
        return rows

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """As in hf, and measure the time."""
        with self.clock.on(requests):
            return super().loglikelihood(requests, disable_tqdm)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """As in hf, and measure the time."""
        with self.clock.on(requests):
            return super().generate_until(requests, disable_tqdm)

    def get_model_info(self) -> dict[str, Any]:
        """The model information of hf, plus the time and memory that scoring took."""
        return {**super().get_model_info(), SCORING: self.clock.cost().model_dump()}

    @stop_on_user_error()
    def set_cache_hook(self, cache_hook: Any) -> None:
        """As in hf, but use a separate table in the cache file for this model.

        lm-eval's cache keys hold only the request's text. In a shared table, one model would get
        the cached answers of another.
        """
        if (answers := cache_hook.dbdict) is not None:
            table = answers_digest(NAME, self._answer_settings)
            answers.commit()
            type(answers)(answers.filename, tablename=table).close()
            answers.tablename = table
        super().set_cache_hook(cache_hook)

    @stop_on_user_error(of_one_rank=True)
    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        if not self._packable():
            answers = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            # hf measures no probes; `None` counts these documents as documents without probe.
            return [
                Scored(score, greedy, None) if self.probes else (score, greedy)
                for score, greedy in answers
            ]

        by_context: dict[Any, list[int]] = defaultdict(list)
        for number, (texts, tokens, _) in enumerate(requests):
            # Windows of a rolling likelihood have no texts; each is a context by itself.
            by_context[number if texts is None else tuple(tokens)].append(number)
        contexts = {
            self.context_of([requests[number] for number in numbers]): numbers
            for numbers in by_context.values()
        }

        scored: list[Any] = [None] * len(requests)
        quiet = disable_tqdm or self.rank != 0
        read_before = self.scorer.tokens_read
        with tqdm(total=len(requests), disable=quiet, desc="Scoring continuations") as progress:
            for context in self.scorer.score(contexts):
                for number, continuation in zip(
                    contexts[context], context.continuations, strict=True
                ):
                    scored[number] = self._answer(context, continuation)
                    texts = requests[number][0]
                    if texts is not None:  # hf does not cache rolling windows either
                        self.cache_hook.add_partial("loglikelihood", texts, scored[number])
                    progress.update(1)
        if not quiet and self.scorer.packs and requests and requests[0][0] is not None:
            sequences = {one.sequence for context in contexts for one in context.continuations}
            say(
                f"the model read {self.scorer.tokens_read - read_before:,} tokens instead of "
                f"{sum(map(len, sequences)):,}, because it reads a shared prefix only once"
            )
        return scored

    def _packable(self) -> bool:
        """Whether `Scorer` supports this kind of model."""
        prompt_learning = any(
            config.is_prompt_learning for config in getattr(self.model, "peft_config", {}).values()
        )
        # Under FSDP all processes must make the same number of forward passes.
        sharded = (
            hasattr(self, "accelerator")
            and self.accelerator.distributed_type == DistributedType.FSDP
        )
        return self.backend == "causal" and not prompt_learning and not sharded

    def context_of(self, requests: Sequence[Request]) -> Context:
        """Make a `Context` of requests that have the same context."""
        context = requests[0][1]
        texts = [tuple(continuation) for _, _, continuation in requests]
        continuations = [self._continuation(context, tokens) for tokens in texts]
        # Labels of one token all have the same input sequence; keep one copy of it.
        sequences = {one.sequence: one.sequence for one in continuations}
        continuations = [Continuation(sequences[one.sequence], one.tokens) for one in continuations]
        if not self.probes or requests[0][0] is None:
            return Context(continuations)
        # The deciding position follows the prefix that all continuations share; with a single
        # continuation it precedes the first token. If a continuation is a prefix of another, it
        # ends at the deciding position, so only the longer one has a token there.
        longest = max(range(len(texts)), key=lambda number: len(texts[number]))
        common = shared_prefix(min(texts), max(texts)) if len(set(texts)) > 1 else 0
        sequence = continuations[longest].sequence
        position = len(sequence) - len(texts[longest]) + common
        choices = sorted({text[common] for text in texts if len(text) > common})
        return Context(continuations, decides=(sequence, position), choices=choices)

    def _continuation(self, context: list[int], tokens: tuple[int, ...]) -> Continuation:
        assert context, "an empty context is lm-eval's to replace by its prefix token"
        assert 0 < len(tokens) <= self.max_length
        length = len(context) + len(tokens)
        if length > self.max_length + 1:
            # The same words and logger as in hf, so a filter on hf's warning catches this one.
            eval_logger.warning(
                f"Combined length of context ({len(context)}) and continuation "
                f"({len(tokens)}) exceeds model's maximum length ({self.max_length}). "
                f"Truncating {length - self.max_length + 1} tokens from the left."
            )
        whole = (*context, *tokens)[-(self.max_length + 1) :]
        return Continuation(whole[:-1], tokens)

    def _answer(self, context: Context, continuation: Continuation) -> tuple[float, bool]:
        answer = context.answers[continuation]
        if not self.probes or context.decides is None:
            return answer
        sequence, position = context.decides
        token = self.tok_decode(sequence[position])
        probe = {"deciding_token": token, **(context.probe or {})}
        if f"{PRIMARY_ACTIVATION}_by_layer" in probe:
            probe[ACTIVATION_DEFINITION] = ACTIVATION_WEIGHTS
        return Scored(*answer, probe)


def _number_above_0(name: str, value: Any) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{name}={value} is not a number above 0")
    return number


def register() -> None:
    """Register ``--model regreason-hf`` with lm-eval in this process.

    The released lm-eval reads no entry points. lm-eval registers its own models once, on
    import, and this import must come first.
    """
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=f"{__name__}:{RegReasonHF.__name__}")
