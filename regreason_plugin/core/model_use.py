"""What a model reads and stands on: as it was trained, and as a run uses it.

`regreason.json` beside a trained model keeps the first. A run that does otherwise still gives
numbers, only wrong ones: every command holds the two against each other before it trusts any.
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
# The key of lm-eval's --metadata that lets a run use a model otherwise than it was trained.
ALLOW = "allow_misfit"
# Model arguments of lm-eval's models that name an adapter: of hf, and of vllm.
_ADAPTER = ("peft", "lora_local_path")
# What says where in a repository a model is.
_PLACE = ("revision", "subfolder")
# Where `axolotl merge-lora` puts a model, below the folder of its adapter.
_MERGED = "merged"

# A chat template renders it, a prompt is made of it, and a tokenizer cuts it.
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
    """How a model is used, in training or by a run; None is for what is not known.

    Attributes:
        order: Whether label or explanation comes first.
        labels: As the model writes them, the mark at their end included.
        prompts: sha256 of a fixed conversation's prompt, by axis.
        chat_template: Whether prompts stand in a chat template.
        template_sha256: Of the template's text.
        rendered_sha256: Of a fixed message in the template, with the arguments it is given.
        tokenizer_sha256: Of the ids of a fixed text, none added.
        begins_with_bos: Whether a prompt without a template begins with the beginning of text.
        examples: Few-shot examples in a prompt.
        system_instruction: Whether one stands before the prompt.
        head: The kind of head in place of the language model's.
        weights: Of the model that an adapter is on; None also without an adapter.
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
    """Of a run from the training, as clauses whose subject is the model.

    Attributes:
        wrong: What makes the run's numbers those of another model.
        unsure: What may.
    """

    wrong: list[str]
    unsure: list[str]


Render = Callable[[list[dict[str, str]]], str]


def prompt_hashes(declaration: Declaration) -> dict[str, str]:
    """What stands for a task's prompts, by axis: any change of them changes it."""
    return {
        axis: _sha256(render_prompt(_CONVERSATION, axis, declaration)) for axis in declaration.axes
    }


def template_hash(text: str) -> str:
    """As lm-eval writes it into its results."""
    return _sha256(text)


def reading(tokenizer: Any, render: Render | None, *, add_bos: bool | None = None) -> ModelUse:
    """What a tokenizer and a chat template make of a text.

    Args:
        tokenizer: Of transformers.
        render: Puts messages into the chat template; None where none is used.
        add_bos: lm-eval's ``add_bos_token``; None for what the tokenizer does by itself.
    """
    template = tokenizer.chat_template if render is not None else None
    rendered = None
    # (A template that writes today's date renders another text tomorrow.)
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
    """The adapter among a model's arguments; None without one."""
    return next((str(arguments[key]) for key in _ADAPTER if arguments.get(key)), None)


def tokenizer_of(arguments: Mapping[str, Any]) -> Any:
    """The tokenizer that lm-eval's model arguments name.

    Returns:
        None where they name none, it is not on this machine, or it runs code of its own.
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
    """What the training left beside the model that a run uses.

    Args:
        arguments: Of the model, as lm-eval's ``--model_args``.

    Returns:
        The model as it is named there, and its ``regreason.json``; None of a model that our
        plugin did not train.

    Raises:
        UserError: The file is no JSON object.
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
    """Refuse a model that a run uses otherwise than it was trained.

    Args:
        asked: What the run does, as far as the model's arguments do not say it.
        arguments: Of the model, as lm-eval's ``--model_args``.
        render: As of `reading`.
        tokenizer: The model's, if it is loaded already.
        allow: Go on all the same.
        allowing: What to write to go on all the same, for the message.

    Returns:
        What differs, where that is allowed: it has to stand in the results. None of a model
        that our plugin did not train.

    Raises:
        UserError: It differs, and that is not allowed.
    """
    found = find_record(arguments)
    if found is None:
        return None
    model, record = found
    base = str(arguments.get("pretrained", ""))
    revision, subfolder = (str(arguments.get(key) or "") or None for key in _PLACE)
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
        raise UserError(f"{model} {'; it '.join(wrong)}. To use it all the same, {allowing}")
    for clause in wrong:
        say_once(f"{model} {clause}; it is used all the same, as you asked")
    return wrong


def differences(
    record: Mapping[str, Any], run: ModelUse, arguments: Mapping[str, Any]
) -> Differences:
    """What a run does otherwise than the training.

    Args:
        record: The model's ``regreason.json``.
        run: What the run does.
        arguments: Of the model, as lm-eval's ``--model_args``, for the words.
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
            f"has a head for {trained.head}, which only `regreason baselines` scores"
            if trained.head
            else f"is scored as if it had a head for {run.head}"
        )
    if _differ(trained.order, run.order):
        wrong.append(
            "was trained to write its label first, and the run lets it explain first"
            if trained.order == "label_first"
            else "was trained to explain before its label, and the run asks for the label at once "
            "(score it on the generative twins, and give predict --data)"
        )
    wrong += _differing_prompts(trained, run)
    wrong += _differing_templates(trained, run)
    if _differ(trained.tokenizer_sha256, run.tokenizer_sha256):
        wrong.append("was trained with a tokenizer that cuts text into other tokens")
    if _differ(trained.begins_with_bos, run.begins_with_bos):
        has = "with" if trained.begins_with_bos else "without"
        wrong.append(
            f"was trained {has} a beginning-of-text token before the prompt, and the run does "
            "otherwise (leave add_bos_token out)"
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
            "model holds its adapter already)"
        )
    elif verdict == "rounded":
        unsure.append(
            f"was trained on {base}, and {used} has the same weights in another precision"
        )
    elif trained.weights is None:
        unsure.append(f"does not say which weights it was trained on; {base} is only their name")
    elif verdict == "unknown":
        unsure.append(
            f"was trained on {base}, which cannot be compared with {used}: it is quantised "
            "or has no safetensors files here"
        )


def _differing_prompts(trained: ModelUse, run: ModelUse) -> list[str]:
    found = []
    if _differ(trained.labels, run.labels):
        shown = [", ".join(map(repr, labels or ())) for labels in (trained.labels, run.labels)]
        found.append(f"was trained on the labels {shown[0]}, and the run has {shown[1]}")
    known, asked = trained.prompts or {}, run.prompts or {}
    changed = [axis for axis in asked if axis in known and asked[axis] != known[axis]]
    if changed:
        found.append(
            f"was trained on another prompt for {', '.join(changed)} (the task was changed after "
            "the training)"
        )
    if run.examples:
        found.append(
            f"was trained without examples in the prompt, and the run gives {run.examples}"
        )
    if run.system_instruction:
        found.append("was trained without a system instruction, and the run gives one")
    return found


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
            "was trained with another chat template or other arguments of it (name the "
            "tokenizer beside the adapter with tokenizer=, and enable_thinking as in its card)"
        ]
    return []


def _differ(trained: Any, used: Any) -> bool:
    return trained is not None and used is not None and trained != used


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
