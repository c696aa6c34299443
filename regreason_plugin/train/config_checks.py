"""Checks that refuse a config with which Axolotl would silently train something else."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.train.budget import check_budget
from regreason_plugin.train.class_weights import check_class_weights
from regreason_plugin.train.findings import Finding, error_of, finding

PLUGIN = "regreason_plugin.RegReasonPlugin"
STRATEGY = "regreason_plugin.train.strategy"


class _Rule(NamedTuple):
    key: str
    allowed: Callable[[Any], bool]
    message: str


def _off(value: Any) -> bool:
    return not value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# Keys that must be off, with the error message for each.
_OFF = {
    "regreason_checked_config": (
        "is set by the plugin itself, to tell Ray's workers that the config was checked; remove it"
    ),
    "val_set_size": (
        "must be 0: it splits by row, so the axes of one conversation would land on both sides; "
        "list files of validation/ under test_datasets"
    ),
    "train_on_inputs": "must be false: the loss is taken on label and explanation only",
    "dataset_exact_deduplication": "must be off: every arm must keep the same rows",
    "dataset_shard_num": "must be off: every arm must keep the same rows",
    "streaming": "must be off: Axolotl does not check the length of streamed rows",
    "skip_prepare_dataset": "must be off: Axolotl would not check the length of the rows",
    "pretraining_dataset": "must be off: Axolotl would not read datasets",
    "push_dataset_to_hub": "must be off: no manifest guards the rows that it loads from the Hub",
    "rl": "must be off: the data hold targets, not preferences",
    "dataloader_drop_last": (
        "must be off: it drops the last rows of every epoch and of every evaluation"
    ),
    "sample_packing_sequentially": (
        "must be off: the number of packs would change from epoch to epoch, and rows would be lost"
    ),
    "tokenizer_use_mistral_common": (
        "must be off: lm-eval uses AutoTokenizer, and training must use the same tokenizer"
    ),
}

_ENTRY_OFF = {
    "shards": "must be off: every arm must keep the same rows",
    "data_files": "has no effect if path names a file; name the file in path",
    "name": "is set by the plugin itself, to the hash of the file's content; remove it",
}

_RULES = (
    *(_Rule(key, _off, message) for key, message in _OFF.items()),
    _Rule(
        "regreason_label_share",
        lambda value: value is None or (_is_number(value) and 0 < value <= 1),
        "must be a number above 0 and at most 1, or left out for no share",
    ),
    _Rule(
        "regreason_loss_mean",
        lambda value: value in (None, "micro_batch", "step"),
        "must be step or micro_batch; left out, it is micro_batch, Axolotl's own loss",
    ),
    _Rule(
        "regreason_label_smoothing",
        lambda value: value is None or (_is_number(value) and 0 <= value < 1),
        "must be a number from 0 to below 1",
    ),
    _Rule(
        "regreason_probe_steps",
        lambda value: value is None or _is_count(value),
        "must be a number of steps above 0, or left out for no probes",
    ),
    _Rule(
        "regreason_probe_rows",
        lambda value: value is None or _is_count(value),
        "must be a number of rows above 0",
    ),
    _Rule(
        "excess_length_strategy",
        lambda value: value == "raise",
        "must be raise: otherwise Axolotl drops or cuts rows that are too long, which changes only "
        "the arms with longer texts (`regreason build --max-prompt-tokens` shortens every arm "
        "equally)",
    ),
)

_ENTRY_RULES = (
    *(_Rule(key, _off, message) for key, message in _ENTRY_OFF.items()),
    _Rule(
        "type",
        lambda value: value in (STRATEGY, "chat_template"),
        f"must be {STRATEGY} for a model without a chat template, or chat_template",
    ),
    _Rule("ds_type", lambda value: value in (None, "json"), "must be json"),
    _Rule("split", lambda value: value in (None, "train"), "must be train, a file's only split"),
    _Rule(
        "roles_to_train",
        lambda value: value in (None, ["assistant"]),
        "must be [assistant]: the loss is taken on label and explanation only",
    ),
)


def check_config(cfg: Mapping[str, Any], config: str) -> Iterator[Finding]:
    """Find keys that Axolotl would ignore, and values that would train other rows or tokens.

    Args:
        cfg: The config as written, command line options included. Its plugins must be registered.
        config: Name of the config in a finding.
    """
    from axolotl.utils.schemas.datasets import SFTDataset

    yield from _check_plugins(cfg, config)
    yield from _check_keys(cfg, _known_keys(), config, "")
    yield from _check_rules(cfg, _RULES, config, "")
    yield from error_of(lambda: _check_loss(cfg, config))
    yield from error_of(lambda: check_budget(cfg, config))
    yield from error_of(lambda: check_class_weights(cfg, config))
    yield from error_of(lambda: _check_probes(cfg, config))
    known_in_entry = _names_of(SFTDataset)
    types = set()
    for name in ("datasets", "test_datasets"):
        for number, entry in enumerate(cfg.get(name) or []):
            entry_field = f"{name}[{number}]."
            yield from _check_keys(entry, known_in_entry, config, entry_field)
            yield from _check_rules(entry, _ENTRY_RULES, config, entry_field)
            types.add(entry.get("type"))
            if len(types) > 1:
                yield finding(
                    "error",
                    "must be the same for every file",
                    path=config,
                    field=f"{entry_field}type",
                )


def _check_loss(cfg: Mapping[str, Any], config: str) -> None:
    """Refuse settings that replace the chosen loss or keep the plugin from computing it."""
    mean, share = cfg.get("regreason_loss_mean"), cfg.get("regreason_label_share")
    if mean == "micro_batch" and share is not None:
        raise UserError(
            "must be step, or left out, with regreason_label_share, which takes its means over a "
            "whole step",
            path=config,
            field="regreason_loss_mean",
        )
    ours = "regreason_label_share" if share is not None else f"regreason_loss_mean: {mean}"
    if share is None and mean != "step":
        if mean == "micro_batch" and cfg.get("use_eaft"):
            raise UserError(
                f"must be false with {ours}: it replaces the mean over a micro-batch",
                path=config,
                field="use_eaft",
            )
        return
    if (cfg.get("context_parallel_size") or 1) > 1:
        raise UserError(
            f"must be 1 with {ours}: the plugin cannot find the label in a row that is split over "
            "several devices",
            path=config,
            field="context_parallel_size",
        )
    plugins = cfg.get("plugins") or []
    # The key is on by default if its plugin is listed.
    cut_plugin = any(name.endswith("CutCrossEntropyPlugin") for name in plugins)
    for key, on in (
        ("cut_cross_entropy", cfg.get("cut_cross_entropy", cut_plugin)),
        ("liger_fused_linear_cross_entropy", cfg.get("liger_fused_linear_cross_entropy")),
        ("use_eaft", cfg.get("use_eaft")),
    ):
        if on:
            raise UserError(
                f"must be false with {ours}: the plugin computes that loss itself, from the logits",
                path=config,
                field=key,
            )


def _check_probes(cfg: Mapping[str, Any], config: str) -> None:
    """Refuse probes without validation rows, and probes of a model whose layers FSDP hides."""
    if cfg.get("regreason_probe_steps") is None:
        return
    if not cfg.get("test_datasets"):
        raise UserError(
            "needs validation rows to measure; list files of validation/ under test_datasets",
            path=config,
            field="regreason_probe_steps",
        )
    for key in ("fsdp", "fsdp_config"):
        if cfg.get(key):
            raise UserError(
                "hides the layers that regreason_probe_steps measures; use deepspeed, or leave "
                "regreason_probe_steps out",
                path=config,
                field=key,
            )


def _check_plugins(cfg: Mapping[str, Any], config: str) -> Iterator[Finding]:
    from axolotl.integrations.base import PluginManager

    registered = PluginManager.get_instance().plugins
    for name in cfg.get("plugins") or []:
        if name not in registered:
            yield finding(
                "error",
                f"{name!r} cannot be imported, and Axolotl would train without it; correct the "
                "path, install it or remove it",
                path=config,
                field="plugins",
            )


def check_packing(cfg: Any, config: str | None) -> Iterator[Finding]:
    """Find packing that lets samples read each other.

    Args:
        cfg: The config as Axolotl has validated it, because validation chooses the attention.
        config: Name of the config in a finding.
    """
    if getattr(cfg, "sample_packing", None) and not getattr(
        cfg, "attn_decontaminates_packing", True
    ):
        yield finding(
            "error",
            "with this attention, packed samples would read each other; set "
            "attn_implementation to sdpa or flash_attention_2, or sample_packing to false",
            path=config,
            field="sample_packing",
        )


def without_refused_keys(cfg: Any) -> Any:
    """A copy without the top-level keys that the rules refuse, so that Axolotl checks the rest."""
    copied = copy.deepcopy(cfg)
    for rule in _RULES:
        if rule.key in copied and not rule.allowed(copied[rule.key]):
            del copied[rule.key]
    return copied


def _check_rules(
    values: Mapping[str, Any], rules: Iterable[_Rule], config: str, prefix: str
) -> Iterator[Finding]:
    for rule in rules:
        if not rule.allowed(values.get(rule.key)):
            yield finding("error", rule.message, path=config, field=prefix + rule.key)


def _check_keys(
    values: Iterable[str], known: set[str], config: str, prefix: str
) -> Iterator[Finding]:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "remove it"
            yield finding(
                "error",
                f"Axolotl does not know this key and would ignore it; {hint}",
                path=config,
                field=prefix + key,
            )


def _known_keys() -> set[str]:
    """All keys that Axolotl, its registered plugins or its command line may put in a config."""
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
