"""Chat models: checks that Axolotl's `type: chat_template` makes the tokens that lm-eval scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regreason_plugin.core.base_weights import read_base_weights
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import ModelUse, prompt_hashes, reading
from regreason_plugin.core.prompt import split_target
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.findings import Finding, finding
from regreason_plugin.train.row_tokens import load_reference, unknown_to_neutralise

# Arguments that lm-eval can pass to a template. The templates of thinking models write an empty
# thought into the answers that they train on.
_TEMPLATE_ARGUMENTS: tuple[dict[str, bool], ...] = (
    {},
    {"enable_thinking": False},
    {"enable_thinking": True},
)


def uses_chat_template(cfg: Any) -> bool:
    """Whether Axolotl's chat-template strategy makes the tokens."""
    return bool(cfg.datasets[0].type == "chat_template")


def check_special_tokens(cfg: Any, sources: Sources, tokenizer: Any) -> Iterator[Finding]:
    """Find special tokens that `neutralise` does not know, and rows whose text holds one.

    Rows are only searched with a chat template, because Axolotl then makes the ids. Without one,
    our dataset strategy makes the ids and refuses such rows itself.

    Args:
        cfg: The config as Axolotl has validated it.
        sources: The data that the config trains on.
        tokenizer: The tokenizer as Axolotl loads it.
    """
    unknown = unknown_to_neutralise(tokenizer)
    if not unknown:
        return
    for name in sources.files if uses_chat_template(cfg) else ():
        for row in sources.folder.rows(name):
            for token in unknown:
                if any(token in turn.content for turn in row.messages):
                    yield finding(
                        "error",
                        f"row {row.id!r}, axis {row.axis}: its text holds {token!r}, a special "
                        "token of this tokenizer that RegReason does not neutralise; remove it "
                        "from the ratings",
                        path=sources.folder.path / name,
                    )
                    return
    shown = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
    yield finding(
        "warning",
        f"RegReason does not neutralise {len(unknown)} special tokens of this tokenizer ({shown}): "
        "a training refuses a row that holds one, but scoring does not",
        path=cfg.axolotl_config_path,
        field="base_model",
    )


def template_arguments(cfg: Any, sources: Sources, tokenizer: Any) -> dict[str, bool]:
    """Arguments for lm-eval's ``--model_args`` with which the template renders as in training.

    The function tokenizes the first row of the first file twice, as Axolotl does and as lm-eval
    does with ``--apply_chat_template``. Both must agree up to and including the label.

    Returns:
        Arguments such as ``enable_thinking``; empty if the template needs none.

    Raises:
        UserError: The two differ with all arguments; the message quotes both.
    """
    if not uses_chat_template(cfg):
        return {}
    trained, scored = _first_row(cfg, sources, tokenizer)
    for arguments, ids in zip(_TEMPLATE_ARGUMENTS, scored, strict=True):
        if trained[: len(ids)] == ids:
            return arguments
    plain = scored[0]
    shown = [
        f"{tokenizer.decode(ids[:4])!r} ... {tokenizer.decode(ids[: len(plain)][-24:])!r}"
        for ids in (trained, plain)
    ]
    raise UserError(
        "the chat template renders training and evaluation differently: trained on "
        f"{shown[0]}, scored on {shown[1]} (lm_eval --apply_chat_template); use the model's own "
        "template (chat_template: tokenizer_default), which must begin with the "
        "beginning-of-text token where the tokenizer adds one",
        path=cfg.axolotl_config_path,
        field="datasets[0].chat_template",
    )


def _first_row(cfg: Any, sources: Sources, tokenizer: Any) -> tuple[list[int], list[list[int]]]:
    """Ids of the first row as trained, and as scored with each entry of `_TEMPLATE_ARGUMENTS`."""
    from axolotl.prompt_strategies import load

    row = next(iter(sources.folder.rows(sources.files[0])))
    prompt, target = (turn.content for turn in row.messages)
    folder = sources.folder
    before, label, _ = split_target(target, folder.order, folder.declaration.written)
    strategy = load("chat_template", tokenizer, cfg, cfg.datasets[0])
    trained: list[int] = strategy.tokenize_prompt(row.model_dump())["input_ids"]
    reference = load_reference(cfg)
    reference.chat_template = tokenizer.chat_template
    scored = []
    for arguments in _TEMPLATE_ARGUMENTS:
        rendered = reference.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            **arguments,
        )
        scored.append(encode_like_lm_eval(reference, rendered + before + label))
    return trained, scored


def use_in_training(
    cfg: Any, sources: Sources, tokenizer: Any, template: dict[str, bool]
) -> ModelUse:
    """How a model is used in training, in lm-eval's terms, and the weights of its base model.

    Args:
        cfg: The config as Axolotl has validated it.
        sources: The data that the config trains on.
        tokenizer: The tokenizer as Axolotl loads it.
        template: Arguments of the chat template, from `template_arguments`.
    """
    reference = load_reference(cfg)
    chat = uses_chat_template(cfg)
    if chat:
        reference.chat_template = tokenizer.chat_template

    def render(messages: list[dict[str, str]]) -> str:
        return str(
            reference.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **template
            )
        )

    declared = sources.folder.declaration
    base = read_base_weights(cfg.base_model, cfg.revision_of_model) if cfg.adapter else None
    return reading(reference, render if chat else None).model_copy(
        update={
            "labels": declared.written,
            "prompts": prompt_hashes(declared),
            "weights": base,
        }
    )


def encode_like_lm_eval(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, as lm-eval's ``hf`` encodes it."""
    # lm-eval adds the beginning-of-text token unless the text starts with it.
    start = tokenizer.bos_token
    ids: list[int] = tokenizer.encode(
        text, add_special_tokens=not (start and text.startswith(start))
    )
    return ids
