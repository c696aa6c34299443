"""`regreason check`: finds every fault of a config, before anything is trained or written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError, raising_user_errors
from regreason_plugin.core.splits import Split
from regreason_plugin.train.chat_template import check_special_tokens, template_arguments
from regreason_plugin.train.check.config_loading import TrainingRun, register_plugins, validate
from regreason_plugin.train.check.memory import ModelShape, estimate, read_deepspeed, read_shape
from regreason_plugin.train.check.schedule import Schedule, plan
from regreason_plugin.train.check.token_counts import (
    TokenCounts,
    count_tokens,
    load_tokenizer_quietly,
    tokenize_file,
)
from regreason_plugin.train.class_weights import KEY as CLASS_WEIGHTS
from regreason_plugin.train.class_weights import check_class_weights, class_weights
from regreason_plugin.train.comparable_arms import check_comparison, check_same_rows
from regreason_plugin.train.config_checks import STRATEGY, check_config, without_refused_keys
from regreason_plugin.train.data_files import (
    Sources,
    fill_placeholders,
    find_sources,
    open_file,
)
from regreason_plugin.train.findings import Finding, error_of, finding
from regreason_plugin.train.label_span import check_label_cuts
from regreason_plugin.train.record import check_other_run, config_sha256
from regreason_plugin.train.scoring import read_scoring
from regreason_plugin.train.strategy import check_lengths, row_lengths

_FILLED = ("datasets", "test_datasets", "output_dir")
# Keys that the tokens of a file depend on, besides the file's entry in the config.
_TOKENIZER_KEYS = (
    *("base_model", "base_model_config", "tokenizer_config", "tokenizer_type"),
    *("tokenizer_use_fast", "tokenizer_legacy", "special_tokens", "tokens", "eot_tokens"),
    *("added_tokens_overrides", "chat_template", "chat_template_jinja", "revision_of_model"),
    *("default_system_message", "trust_remote_code", "sequence_len"),
)


@dataclass
class Checked:
    """A run, and the result of its check.

    Attributes:
        run: The run.
        findings: All findings of the check.
        cfg: The config as Axolotl completes it; None if Axolotl refuses it.
        sources: The data that the run trains on; None if the data have a fault.
        tokens: Number of tokens to train on; None if they cannot be counted.
        template: Arguments that the chat template needs in lm-eval's ``--model_args``.
        schedule: Number of steps; None if it depends on tokens that cannot be counted.
        memory: Estimated bytes on each GPU, by use; None if the model is not on this machine.
    """

    run: TrainingRun
    findings: list[Finding] = field(default_factory=list)
    cfg: Any = None
    sources: Sources | None = None
    tokens: TokenCounts | None = None
    template: dict[str, bool] = field(default_factory=dict)
    schedule: Schedule | None = None
    memory: dict[str, float] | None = None


@dataclass
class _Tokens:
    """The result of tokenizing a run's files; the same for every seed of an arm."""

    findings: list[Finding] = field(default_factory=list)
    counts: TokenCounts | None = None
    template: dict[str, bool] = field(default_factory=dict)


def check_runs(
    runs: list[TrainingRun],
    config: str,
    processes: int,
    on_run: Callable[[], object] = lambda: None,
) -> list[Checked]:
    """Check every run of a config.

    Args:
        runs: The runs, from `read_runs`.
        config: Name of the config in a finding.
        processes: Number of processes that will train.
        on_run: Function that is called after each run.
    """
    tokens: dict[str, _Tokens] = {}
    shapes: dict[str, ModelShape | Finding] = {}
    checked: list[Checked] = []
    with raising_user_errors():
        for run in runs:
            one = Checked(run)
            one.findings += _check(one, config, processes, tokens, shapes)
            checked.append(one)
            on_run()
    outputs: dict[str, str] = {}
    for one in checked:
        output = str(one.run.cfg.get("output_dir"))
        if output in outputs:
            one.findings.append(
                finding(
                    "error",
                    f"{output} is also the folder of the run with {outputs[output]}; put the keys "
                    "that differ into output_dir, as in {arm}-{seed}",
                    path=config,
                    field="output_dir",
                )
            )
        outputs.setdefault(output, one.run.name)
    return checked


def _check(
    one: Checked,
    config: str,
    processes: int,
    tokens: dict[str, _Tokens],
    shapes: dict[str, ModelShape | Finding],
) -> Iterator[Finding]:
    cfg = one.run.cfg
    malformed = list(_check_form(cfg, config))
    if malformed:
        yield from malformed
        return
    written = config_sha256(cfg)
    yield from register_plugins(cfg, config)
    yield from check_config(cfg, config)
    yield from _find_data(one, config)
    if one.sources:
        folder = one.sources.folder
        yield from error_of(lambda: read_scoring(cfg, folder, config))
        yield from check_same_rows(one.sources, all_arms=True)
        yield from error_of(lambda: _check_weights(one, config))
        splits: tuple[Split, ...] = ("validation", "test") if one.sources.validation else ("test",)
        for note in folder.absence_notes(*splits):
            yield finding("warning", note, path=folder.path)
    yield from check_other_run(cfg, config, written)
    one.cfg, refused = validate(without_refused_keys(cfg), config, processes)
    yield from refused
    if one.cfg is None:
        yield finding("not checked", "tokens, steps and memory, because Axolotl refuses the config")
        return
    arm = one.sources.arm if one.sources else one.cfg.regreason_arm
    yield from check_comparison(one.cfg, arm, processes, cfg)
    shape = _shape(one.cfg, shapes)
    if isinstance(shape, Finding):
        yield shape
    if one.sources and one.cfg.datasets[0].type in (STRATEGY, "chat_template"):
        key = _tokens_key(one.cfg)
        if key not in tokens:
            tokens[key] = _Tokens()
            tokens[key].findings += _read_tokens(one.cfg, one.sources, config, tokens[key])
        yield from tokens[key].findings
        one.tokens, one.template = tokens[key].counts, tokens[key].template
    elif not one.sources:
        yield finding("not checked", "tokens, lengths and steps, because the data have a fault")
    if one.sources:
        one.schedule = plan(one.cfg, one.sources.rows, processes, one.tokens)
    deepspeed: dict[str, Any] = {}
    try:
        deepspeed = read_deepspeed(one.cfg)
    except (OSError, ValueError) as error:
        message = f"does not name readable DeepSpeed settings: {error}"
        yield finding("error", message, path=config, field="deepspeed")
    if isinstance(shape, ModelShape):
        longest = max(one.tokens.lengths) if one.tokens else one.cfg.sequence_len
        one.memory = estimate(one.cfg, shape, longest, processes, deepspeed)


def _check_weights(one: Checked, config: str) -> None:
    """Refuse class weights that are not those of the data's labels."""
    given = one.run.cfg.get(CLASS_WEIGHTS)
    if (
        one.sources is not None
        and given
        and not list(error_of(lambda: check_class_weights(one.run.cfg, config)))
    ):
        labels = list(one.sources.folder.declaration.written)
        class_weights(given, one.sources.labels(), labels, config)


def _check_form(cfg: Any, config: str) -> Iterator[Finding]:
    """Find keys of a wrong form, which the other checks could not read."""
    for name, entry_type in (("datasets", dict), ("test_datasets", dict), ("plugins", str)):
        value = cfg.get(name)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(entry, entry_type) for entry in value)
        ):
            kind = "names" if entry_type is str else "entries with keys, as in `- path: ...`"
            yield finding("error", f"must be a list of {kind}", path=config, field=name)


def _find_data(one: Checked, config: str) -> Iterator[Finding]:
    """Fill in the placeholders and open the files; each file with a fault is a finding."""
    cfg = one.run.cfg
    filled = True
    for part in _FILLED:
        alone = {**cfg, **dict.fromkeys(_FILLED), part: cfg.get(part)}
        errors = list(error_of(lambda alone=alone: fill_placeholders(alone, config)))  # type: ignore[misc]
        if alone[part] is not None:
            cfg[part] = alone[part]
        filled = filled and not (errors and part != "output_dir")
        yield from errors
    if not filled:
        return
    try:
        one.sources = find_sources(cfg, config)
    except UserError as error:
        each = list(_open_each(cfg, config))
        yield from each or [Finding("error", str(error))]


def _open_each(cfg: Any, config: str) -> Iterator[Finding]:
    for name, split in (("datasets", "train"), ("test_datasets", "validation")):
        for number, entry in enumerate(cfg.get(name) or []):
            field = f"{name}[{number}].path"
            named = cfg.get("regreason_arm"), cfg.get("regreason_scope")
            try:
                open_file(entry.get("path") or "", split, config, field, *named)
            except UserError as error:
                yield Finding("error", str(error))


def _shape(cfg: Any, shapes: dict[str, ModelShape | Finding]) -> ModelShape | Finding:
    """The model's shape, or a finding that says why it is not known."""
    from axolotl.loaders.utils import load_model_config

    key = json.dumps([cfg.base_model, cfg.base_model_config, cfg.overrides_of_model_config])
    if key not in shapes:
        try:
            shapes[key] = read_shape(load_model_config(cfg))
        except OSError as error:
            shapes[key] = _absent(cfg, "the memory a GPU needs", error)
        except (ValueError, ImportError, AttributeError) as error:
            message = f"the memory a GPU needs: {_first_line(error)}"
            shapes[key] = finding("not checked", message)
    return shapes[key]


def _absent(cfg: Any, what: str, error: Exception) -> Finding:
    model = str(cfg.base_model)
    if (model.startswith((".", "/", "~")) or model.count("/") > 1) and not Path(model).is_dir():
        message = f"no such folder: {model}"
        return finding("error", message, path=cfg.axolotl_config_path, field="base_model")
    return finding("not checked", f"{what}: {model} is not on this machine ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _tokens_key(cfg: Any) -> str:
    entries = [dict(entry) for entry in [*cfg.datasets, *(cfg.test_datasets or [])]]
    return json.dumps([entries, [cfg.get(key) for key in _TOKENIZER_KEYS]], default=str)


def _read_tokens(cfg: Any, sources: Sources, config: str, into: _Tokens) -> Iterator[Finding]:
    """Tokenize a run's files as the training would."""
    try:
        tokenizer = load_tokenizer_quietly(cfg)
    except OSError as error:
        yield _absent(cfg, "tokens, lengths, labels, chat template", error)
        return
    except (ValueError, ImportError, AttributeError) as error:
        message = f"Axolotl cannot load its tokenizer: {_first_line(error)}"
        yield finding("error", message, path=config, field="base_model")
        return
    try:
        yield from _check_tokens(cfg, sources, config, tokenizer, into)
    except UserError as error:
        yield Finding("error", str(error))


def _check_tokens(
    cfg: Any, sources: Sources, config: str, tokenizer: Any, into: _Tokens
) -> Iterator[Finding]:
    special = list(check_special_tokens(cfg, sources, tokenizer))
    yield from special
    try:
        into.template = template_arguments(cfg, sources, tokenizer)
    except UserError as error:
        yield Finding("error", str(error))
    if any(one.level == "error" for one in special):
        return
    into.counts = count_tokens(cfg, sources, tokenizer)
    arm = f"{sources.arm}'s train files"
    yield from check_lengths(into.counts.lengths, cfg.sequence_len, name=arm, config=config)
    yield from check_label_cuts(into.counts.by_label, config)
    for entry in cfg.test_datasets or []:
        name = str(Path(entry["path"]).relative_to(sources.folder.path))
        lengths = row_lengths(tokenize_file(cfg, sources, name, tokenizer))
        yield from check_lengths(lengths, cfg.sequence_len, name=name, config=config)
