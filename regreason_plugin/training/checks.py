"""What a config may not say, because it would silently train something else."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from regreason_plugin.errors import UserError

STRATEGY = "regreason_plugin.training.strategy"


class _Rule(NamedTuple):
    key: str
    allowed: Callable[[Any], bool]
    message: str


def _off(value: Any) -> bool:
    return not value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_RULES = (
    _Rule(
        "regreason_label_share",
        lambda value: value is None or (_is_number(value) and 0 < value <= 1),
        "must be a number above 0 and at most 1, or left out for Axolotl's own loss",
    ),
    _Rule(
        "regreason_label_smoothing",
        lambda value: value is None or (_is_number(value) and 0 <= value < 1),
        "must be a number from 0 to below 1",
    ),
    _Rule("regreason_checked_config", _off, "is for the plugin, which tells Ray's workers with it"),
    _Rule(
        "excess_length_strategy",
        lambda value: value == "raise",
        "must be raise: otherwise over-long rows are dropped or cut, which hits the arms with "
        "longer text only (`regreason build --max-prompt-tokens` cuts every arm alike)",
    ),
    _Rule(
        "val_set_size",
        _off,
        "must be 0: it splits rows, so the axes of one conversation land on both sides; "
        "name files of validation/ under test_datasets",
    ),
    _Rule("train_on_inputs", _off, "must be false: the loss is on label and explanation only"),
    _Rule("dataset_exact_deduplication", _off, "must be off: every arm keeps the same rows"),
    _Rule("dataset_shard_num", _off, "must be off: every arm keeps the same rows"),
    _Rule("streaming", _off, "must be off: streamed rows are not checked for their length"),
    _Rule("skip_prepare_dataset", _off, "must be off: rows would not be checked for their length"),
    _Rule("pretraining_dataset", _off, "must be off: datasets would not be read"),
    _Rule("push_dataset_to_hub", _off, "must be off: what it loads back knows no manifest"),
    _Rule("rl", _off, "must be off: the targets are no preferences"),
    _Rule(
        "tokenizer_use_mistral_common",
        _off,
        "must be off: lm-eval uses AutoTokenizer, and training has to use the same",
    ),
)

_ENTRY_RULES = (
    _Rule(
        "type",
        lambda value: value in (STRATEGY, "chat_template"),
        f"must be {STRATEGY} for a model without a chat template, or chat_template",
    ),
    _Rule("ds_type", lambda value: value in (None, "json"), "must be json"),
    _Rule("split", lambda value: value in (None, "train"), "must be train, which is all of a file"),
    _Rule("shards", _off, "must be off: every arm keeps the same rows"),
    _Rule("data_files", _off, "is not read for a file; name the file in path"),
    _Rule("name", _off, "is for the plugin, which puts the hash of the file's content there"),
    _Rule(
        "roles_to_train",
        lambda value: value in (None, ["assistant"]),
        "must be [assistant]: the loss is on label and explanation only",
    ),
)


def check_config(cfg: Mapping[str, Any], config: str) -> None:
    """Refuse what Axolotl would ignore, and what would train other rows or tokens.

    Args:
        cfg: The config as written, command line options included.
        config: What to call it in an error.

    Raises:
        UserError: The first thing that is wrong, with file and key.
    """
    from axolotl.utils.schemas.datasets import SFTDataset

    _check_keys(cfg, _known_keys(), config, "")
    _check_rules(cfg, _RULES, config, "")
    if cfg.get("regreason_label_share") is not None and (cfg.get("context_parallel_size") or 1) > 1:
        raise UserError(
            "must be 1 with regreason_label_share: a row cut over several devices does not show "
            "where its label is",
            path=config,
            field="context_parallel_size",
        )
    known_in_entry = _names_of(SFTDataset)
    types = set()
    for name in ("datasets", "test_datasets"):
        for number, entry in enumerate(cfg.get(name) or []):
            place = f"{name}[{number}]."
            _check_keys(entry, known_in_entry, config, place)
            _check_rules(entry, _ENTRY_RULES, config, place)
            types.add(entry["type"])
            if len(types) > 1:
                raise UserError(
                    "must be the same for every file", path=config, field=f"{place}type"
                )


def _check_rules(
    values: Mapping[str, Any], rules: Iterable[_Rule], config: str, place: str
) -> None:
    for rule in rules:
        if not rule.allowed(values.get(rule.key)):
            raise UserError(rule.message, path=config, field=place + rule.key)


def _check_keys(values: Iterable[str], known: set[str], config: str, place: str) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "remove it"
            raise UserError(
                f"Axolotl knows no such key and would ignore it; {hint}",
                path=config,
                field=place + key,
            )


def _known_keys() -> set[str]:
    """Every key that Axolotl, its registered plugins or its command line put in a config."""
    from axolotl.cli import args
    from axolotl.integrations.config import merge_input_args

    options = {
        field.name
        for options in vars(args).values()
        if isinstance(options, type) and dataclasses.is_dataclass(options)
        for field in dataclasses.fields(options)
    }
    return _names_of(merge_input_args()[1]) | options


def _names_of(model: Any) -> set[str]:
    fields = model.model_fields
    return set(fields) | {field.alias for field in fields.values() if field.alias}
