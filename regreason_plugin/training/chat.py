"""Chat models: Axolotl's own `type: chat_template`, held against what lm-eval feeds."""

from __future__ import annotations

from typing import Any

from regreason_plugin.errors import UserError
from regreason_plugin.prompt import split_target
from regreason_plugin.training.sources import Sources
from regreason_plugin.training.tokens import load_reference, unknown_to_neutralise


def check_chat_template(cfg: Any, sources: Sources) -> None:
    """Refuse a template that renders training and evaluation differently.

    The first row of the first file is tokenized by Axolotl, and as lm-eval does with
    ``--apply_chat_template``: both must agree up to and including the label. And no row
    may hold a special token that neutralising does not know; the dataset strategy sees
    that in the ids, but here Axolotl makes them.

    Raises:
        UserError: They do not agree; what was trained and scored is in the message.
    """
    if cfg.datasets[0].type != "chat_template":
        return
    from axolotl.loaders import load_tokenizer

    tokenizer = load_tokenizer(cfg)
    unknown = unknown_to_neutralise(tokenizer)
    for name in sources.files if unknown else ():
        for row in sources.folder.rows(name):
            for token in unknown:
                if any(token in turn.content for turn in row.messages):
                    raise UserError(
                        f"row {row.id!r}, axis {row.axis}: its text holds {token!r}, a special "
                        "token of this tokenizer that neutralising does not know; remove it "
                        "from the ratings",
                        path=sources.folder.path / name,
                    )
    trained, scored = _first_row(cfg, sources, tokenizer)
    if trained[: len(scored)] != scored:
        shown = [
            f"{tokenizer.decode(ids[:4])!r} ... {tokenizer.decode(ids[: len(scored)][-24:])!r}"
            for ids in (trained, scored)
        ]
        raise UserError(
            "the chat template renders training and evaluation differently: trained on "
            f"{shown[0]}, scored on {shown[1]}; use the model's own template (chat_template: "
            "tokenizer_default), which must begin with the beginning-of-text token where the "
            "tokenizer adds one",
            path=cfg.axolotl_config_path,
            field="datasets[0].chat_template",
        )


def _first_row(cfg: Any, sources: Sources, tokenizer: Any) -> tuple[list[int], list[int]]:
    from axolotl.prompt_strategies import load

    row = next(iter(sources.folder.rows(sources.files[0])))
    prompt, target = (turn.content for turn in row.messages)
    before, label, _ = split_target(target, sources.folder.order)
    strategy = load("chat_template", tokenizer, cfg, cfg.datasets[0])
    trained: list[int] = strategy.tokenize_prompt(row.model_dump())["input_ids"]
    reference = load_reference(cfg)
    reference.chat_template = tokenizer.chat_template
    rendered = reference.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        # (lm-eval takes them in --model_args: `enable_thinking`, or a dict.)
        **(cfg.chat_template_kwargs or {}),
    )
    return trained, encode_like_lm_eval(reference, rendered + before + label)


def encode_like_lm_eval(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text as lm-eval's ``hf`` feeds it."""
    # It adds the beginning of text unless the text has it.
    start = tokenizer.bos_token
    ids: list[int] = tokenizer.encode(
        text, add_special_tokens=not (start and text.startswith(start))
    )
    return ids
