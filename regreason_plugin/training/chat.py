"""Chat models: Axolotl's own `type: chat_template`, held against what lm-eval feeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regreason_plugin.errors import UserError
from regreason_plugin.prompt import split_target
from regreason_plugin.training.sources import Sources


def check_chat_template(cfg: Any, sources: Sources) -> None:
    """Refuse a template that renders training and evaluation differently.

    The first row of the first file is tokenized by Axolotl, and as lm-eval does with
    ``--apply_chat_template``: both must agree up to and including the label.

    Raises:
        UserError: They do not; what each begins with is in the message.
    """
    entry = cfg.datasets[0]
    if entry.type != "chat_template":
        return
    from axolotl.loaders import load_tokenizer
    from axolotl.prompt_strategies import load

    tokenizer = load_tokenizer(cfg)
    path = Path(entry.path)
    row = next(iter(sources.folder.rows(f"{path.parent.name}/{path.name}")))
    prompt, target = (turn.content for turn in row.messages)
    before, label, _ = split_target(target, sources.folder.order)
    strategy = load("chat_template", tokenizer, cfg, entry)
    trained = strategy.tokenize_prompt(row.model_dump())["input_ids"]
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    scored = encode_like_lm_eval(tokenizer, rendered + before + label)
    if trained[: len(scored)] != scored:
        shown = [tokenizer.decode(ids[: len(scored)][-24:]) for ids in (trained, scored)]
        starts = [tokenizer.decode(ids[:4]) for ids in (trained, scored)]
        raise UserError(
            "the chat template renders training and evaluation differently: trained "
            f"{starts[0]!r} ... {shown[0]!r}, scored {starts[1]!r} ... {shown[1]!r}; use the "
            "model's own template (chat_template: tokenizer_default), which must begin with "
            "the beginning-of-text token where the tokenizer adds one",
            path=cfg.axolotl_config_path,
            field="datasets[0].chat_template",
        )


def encode_like_lm_eval(tokenizer: Any, text: str) -> list[int]:
    """A text's ids as lm-eval's `hf` model makes them with its defaults."""
    start = tokenizer.bos_token
    dressed = not (start and text.startswith(start))
    ids: list[int] = tokenizer.encode(text, add_special_tokens=dressed)
    return ids
