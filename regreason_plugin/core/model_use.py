"""The check that a run uses a model in the way in which it was trained.

The training writes prompts, order, chat template, tokenizer and base weights to `regreason.json`
in the model's folder. A run that uses any of them differently still produces numbers, but wrong
ones. So every command compares its own use of the model with this record before it starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from regreason_plugin.core.base_weights import (
    BaseWeights,
    compare_weights,
    local_file,
    read_base_weights,
)
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError, say_once
from regreason_plugin.core.prompt import Order, render_prompt
from regreason_plugin.core.records import Conversation, Turn

RECORD = "regreason.json"
# The temperature of a trained model, in its folder (`regreason calibrate`).
CALIBRATION = "calibration.json"
# The key of lm-eval's --metadata that lets a run use a model differently than it was trained.
ALLOW = "allow_misfit"
# Model arguments that name an adapter: of lm-eval's hf, and of its vllm.
_ADAPTER = ("peft", "lora_local_path")
# Model arguments that say where a model is in a repository.
_LOCATION = ("revision", "subfolder")
# `axolotl merge-lora` writes the merged model into this folder below its adapter's folder.
_MERGED = "merged"

# A fixed text. The hashes of its rendered chat message, its prompt and its tokens identify a chat
# template, a task's prompts and a tokenizer.
_TEXT = (
    "Rate it from 1 to 5: 1 2 3 4 5.\n\nNaïve café; 中文 и русский, 12345 + 67.8 %\n"
    "  def f(x):\n\treturn x  # two  spaces\nAssessment: 3"
)
_CONVERSATION = Conversation.model_construct(
    id="fixed",
    dataset="fixed",
    group="fixed",
    context=_TEXT,
    conversation=[Turn(role="user", content="Is it so?"), Turn(role="assistant", content=_TEXT)],
)


class ModelUse(BaseModel):
    """The way in which a training or a run uses a model; None stands for an unknown value.

    Attributes:
        order: Whether the label or the explanation comes first.
        labels: Labels as the model writes them, including the mark at their end.
        prompts: sha256 of a fixed conversation's prompt, by axis.
        chat_template: Whether the prompts are rendered in a chat template.
        template_sha256: sha256 of the chat template's source.
        rendered_sha256: sha256 of a fixed message rendered in the chat template with the run's
            template arguments.
        tokenizer_sha256: sha256 of the token ids of a fixed text, without special tokens.
        begins_with_bos: Whether a prompt without a chat template begins with the
            beginning-of-text token.
        examples: Number of few-shot examples in a prompt.
        system_instruction: Whether a system instruction precedes the prompt.
        head: Kind of the head that replaces the language model's head.
        weights: Weights of the base model under an adapter; also None without an adapter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Order | None = None
    labels: tuple[str, ...] | None = None
    prompts: dict[str, str] | None = None
    chat_template: bool | None = None
    template_sha256: str | None = None
    rendered_sha256: str | None = None
    tokenizer_sha256: str | None = None
    begins_with_bos: bool | None = None
    examples: int | None = None
    system_instruction: bool | None = None
    head: str | None = None
    weights: BaseWeights | None = None


class Differences(NamedTuple):
    """The differences between a run and the training, as clauses whose subject is the model.

    Attributes:
        wrong: Differences that make the run's numbers wrong.
        unsure: Differences that may make them wrong.
    """

    wrong: list[str]
    unsure: list[str]


Render = Callable[[list[dict[str, str]]], str]


def prompt_hashes(declaration: Declaration) -> dict[str, str]:
    """sha256 of a fixed conversation's prompt, by axis; any change of the prompt changes it."""
    return {
        axis: _sha256(render_prompt(_CONVERSATION, axis, declaration)) for axis in declaration.axes
    }


def template_hash(text: str) -> str:
    """sha256 of a chat template's source, as lm-eval writes it into its results."""
    return _sha256(text)


def reading(tokenizer: Any, render: Render | None, *, add_bos: bool | None = None) -> ModelUse:
    """The part of a `ModelUse` that depends on the tokenizer and the chat template.

    Args:
        tokenizer: A tokenizer of transformers.
        render: Renders messages in the chat template; None if no template is used.
        add_bos: lm-eval's ``add_bos_token``; None for the tokenizer's default.
    """
    template = tokenizer.chat_template if render is not None else None
    rendered = None
    # A template that contains today's date renders another text tomorrow, so it is not hashed.
    if render is not None and "strftime_now" not in str(template):
        rendered = _sha256(render([{"role": "user", "content": _TEXT}]))
    first = tokenizer.encode("a")[:1]
    adds_bos = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
    ids = tokenizer.encode(_TEXT, add_special_tokens=False)
    return ModelUse(
        template_sha256=template_hash(template) if isinstance(template, str) else None,
        rendered_sha256=rendered,
        tokenizer_sha256=_sha256(" ".join(map(str, ids))),
        begins_with_bos=None if render is not None else adds_bos if add_bos is None else add_bos,
    )


def adapter_of(arguments: Mapping[str, Any]) -> str | None:
    """The adapter that a model's arguments name; None without one."""
    return next((str(arguments[key]) for key in _ADAPTER if arguments.get(key)), None)


def tokenizer_of(arguments: Mapping[str, Any]) -> Any:
    """Load the tokenizer that lm-eval's model arguments name.

    Returns:
        The tokenizer; None if the arguments name none, if it is not on this machine, or if it
        needs code from its repository.
    """
    name = str(arguments.get("tokenizer") or arguments.get("pretrained") or "")
    return _local_tokenizer(name, str(arguments.get("revision") or "main")) if name else None


@lru_cache(maxsize=8)
def _local_tokenizer(model: str, revision: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            model, revision=revision, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError):
        return None


def find_record(arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Read the record that the training wrote into the folder of a run's model.

    Args:
        arguments: The model's arguments, as in lm-eval's ``--model_args``.

    Returns:
        The model as the arguments name it, and the content of its ``regreason.json``; None for a
        model that our plugin did not train.

    Raises:
        UserError: The file is not a JSON object.
    """
    model = adapter_of(arguments) or str(arguments.get("pretrained", ""))
    file = local_file(model, RECORD) if model else None
    if file is None and Path(model).name == _MERGED:
        file = local_file(str(Path(model).parent), RECORD)
    if file is None:
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", path=file) from None
    if not isinstance(record, dict):
        raise UserError("is not a JSON object", path=file)
    return model, record


def check_use(
    asked: ModelUse,
    arguments: Mapping[str, Any],
    *,
    render: Render | None = None,
    tokenizer: Any = None,
    allow: bool,
    allowing: str,
) -> list[str] | None:
    """Check that a run uses a model in the way in which it was trained.

    Args:
        asked: The run's use of the model, except for the parts that follow from ``arguments``.
        arguments: The model's arguments, as in lm-eval's ``--model_args``.
        render: Renders messages in the chat template; None if no template is used.
        tokenizer: The model's tokenizer; None to load the one that ``arguments`` name.
        allow: Whether to accept differences.
        allowing: The end of the error message, which says how to accept the differences, such as
            "add --allow-misfit".

    Returns:
        The accepted differences, which the caller has to write into the results; None for a
        model that our plugin did not train.

    Raises:
        UserError: The run uses the model differently, and ``allow`` is False.
    """
    named_record = find_record(arguments)
    if named_record is None:
        return None
    model, record = named_record
    base = str(arguments.get("pretrained", ""))
    revision, subfolder = (str(arguments.get(key) or "") or None for key in _LOCATION)
    tokenizer = tokenizer or tokenizer_of(arguments)
    known: dict[str, Any] = {"head": arguments.get("head")}
    if tokenizer is not None:
        add_bos = arguments.get("add_bos_token")
        known |= dict(reading(tokenizer, render, add_bos=add_bos))
    if adapter_of(arguments) is not None:
        known["weights"] = read_base_weights(base, revision, subfolder)
    run = ModelUse(**{**known, **asked.model_dump(exclude_none=True)})
    wrong, unsure = differences(record, run, arguments)
    for clause in unsure:
        say_once(f"{model} {clause}")
    if wrong and not allow:
        raise UserError(f"{model} {'; it '.join(wrong)}. To use it anyway, {allowing}")
    for clause in wrong:
        say_once(f"{model} {clause}; it is used anyway, as you asked")
    return wrong


def differences(
    record: Mapping[str, Any], run: ModelUse, arguments: Mapping[str, Any]
) -> Differences:
    """The differences between a run's use of a model and the training's.

    Args:
        record: Content of the model's ``regreason.json``.
        run: The run's use of the model.
        arguments: The model's arguments, as in lm-eval's ``--model_args``.
    """
    trained = ModelUse.model_validate(
        {
            **{key: record[key] for key in ("order", "chat_template") if key in record},
            **record.get("use", {}),
        }
    )
    wrong: list[str] = []
    unsure: list[str] = []
    if adapter_of(arguments) is not None:
        _compare_base(trained, run, record, arguments, wrong, unsure)
    if trained.head != run.head:
        wrong.append(
            f"has a head for {trained.head}, which only `regreason baselines` can score"
            if trained.head
            else f"is scored as if it had a head for {run.head}"
        )
    if _differ(trained.order, run.order):
        wrong.append(
            "was trained to write its label first, and the run lets it explain first"
            if trained.order == "label_first"
            else "was trained to explain before its label, and the run asks for the label at once "
            "(score it on the generative tasks, and give predict --data)"
        )
    wrong += _differing_prompts(trained, run)
    wrong += _differing_templates(trained, run)
    if _differ(trained.tokenizer_sha256, run.tokenizer_sha256):
        wrong.append("was trained with a tokenizer that cuts text into other tokens")
    if _differ(trained.begins_with_bos, run.begins_with_bos):
        has, does = (
            ("with", "leaves it out") if trained.begins_with_bos else ("without", "adds one")
        )
        wrong.append(
            f"was trained {has} a beginning-of-text token before the prompt, and the run {does} "
            "(leave add_bos_token out)"
        )
    return Differences(wrong, unsure)


def _compare_base(
    trained: ModelUse,
    run: ModelUse,
    record: Mapping[str, Any],
    arguments: Mapping[str, Any],
    wrong: list[str],
    unsure: list[str],
) -> None:
    base, used = record.get("base_model"), arguments.get("pretrained")
    verdict = compare_weights(trained.weights, run.weights)
    if verdict == "other shapes":
        wrong.append(f"was trained on {base}, and {used} is another model")
    elif verdict == "other":
        wrong.append(
            f"was trained on {base}, and {used} has other weights of the same shapes (a merged "
            "model already contains its adapter)"
        )
    elif verdict == "rounded":
        unsure.append(
            f"was trained on {base}, and {used} has the same weights in another precision"
        )
    elif trained.weights is None:
        unsure.append(
            f"was trained on {base}, but its record does not identify the weights of that model"
        )
    elif verdict == "unknown":
        unsure.append(
            f"was trained on {base}, which cannot be compared with {used}: it is quantised "
            "or has no safetensors files here"
        )


def _differing_prompts(trained: ModelUse, run: ModelUse) -> list[str]:
    clauses = []
    if _differ(trained.labels, run.labels):
        listed = [", ".join(map(repr, labels or ())) for labels in (trained.labels, run.labels)]
        clauses.append(f"was trained on the labels {listed[0]}, and the run has {listed[1]}")
    known, asked = trained.prompts or {}, run.prompts or {}
    changed = [axis for axis in asked if axis in known and asked[axis] != known[axis]]
    if changed:
        clauses.append(
            f"was trained on another prompt for {', '.join(changed)} (the task was changed after "
            "the training)"
        )
    if run.examples:
        clauses.append(
            f"was trained without examples in the prompt, and the run gives {run.examples}"
        )
    if run.system_instruction:
        clauses.append("was trained without a system instruction, and the run gives one")
    return clauses


def _differing_templates(trained: ModelUse, run: ModelUse) -> list[str]:
    if _differ(trained.chat_template, run.chat_template):
        if trained.chat_template:
            return [
                "was trained with its chat template, and the run leaves it out (add "
                "--apply_chat_template)"
            ]
        return [
            "was trained without a chat template, and the run applies one (leave out "
            "--apply_chat_template)"
        ]
    pairs: Sequence[tuple[str | None, str | None]] = (
        (trained.rendered_sha256, run.rendered_sha256),
        (trained.template_sha256, run.template_sha256),
    )
    known = next((pair for pair in pairs if None not in pair), None)
    if known is not None and known[0] != known[1]:
        return [
            "was trained with another chat template or other template arguments (name the "
            "tokenizer in the adapter's folder with tokenizer=, and set enable_thinking as the "
            "model card says)"
        ]
    return []


def _differ(trained: Any, used: Any) -> bool:
    return trained is not None and used is not None and trained != used


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
