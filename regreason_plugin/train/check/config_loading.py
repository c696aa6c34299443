"""Loads a config as `axolotl train` does, on any machine and without writing anything.

Axolotl's `load_cfg` also sends telemetry, asks the GPU for its capabilities and opens a log in
output_dir. This module uses only the parts of it that read. It assumes a GPU with all
capabilities, because a config is checked before a GPU is rented.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.training_extra import check_axolotl
from regreason_plugin.core.yaml_file import read_yaml
from regreason_plugin.train.config_checks import PLUGIN, STRATEGY
from regreason_plugin.train.findings import Finding, finding

# The folder that Axolotl appends to output_dir for each run of a sweep.
_SWEEP = "sweep{:04d}"
# Keys that determine the data type of the weights.
_PRECISION = ("bf16", "bfloat16", "fp16", "float16", "load_in_8bit")


@dataclass(frozen=True)
class TrainingRun:
    """One training run of a config.

    Attributes:
        values: The sweep's values for this run, by key; empty without a sweep.
        cfg: The config as written, command line options and the sweep's values included.
    """

    values: Mapping[str, Any]
    cfg: Any

    @property
    def name(self) -> str:
        """Name of the run, such as ``regreason_arm shuffled, seed 2``."""
        return ", ".join(f"{key} {value}" for key, value in self.values.items())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Use Axolotl without its telemetry, its log and the warnings of other packages.

    Raises:
        UserError: Axolotl is not installed.
    """
    check_axolotl()
    os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def read_options(config: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The options that `axolotl train CONFIG` would read from its command line, by key.

    Args:
        config: The config's path as typed.
        arguments: Arguments after the config; without ``--sweep``.

    Raises:
        UserError: Axolotl does not have an option, or cannot read its value.
    """
    import click
    from axolotl.cli.main import train

    try:
        context = train.make_context("check", [config, *arguments])
    except click.UsageError as error:
        raise UserError(error.format_message()) from None
    if context.args:
        known = [option for parameter in train.params for option in parameter.opts]
        word = context.args[0].split("=")[0]
        raise UserError(f"axolotl train has no option {word}; {nearest(word, known)}")
    ours = {"config", "launcher", "cloud", "sweep"}
    return {k: v for k, v in context.params.items() if v is not None and k not in ours}


def read_runs(config: Path, sweep: Path | None, options: Mapping[str, Any]) -> list[TrainingRun]:
    """The runs of a config, with the options applied: one, or one per run of the sweep.

    Raises:
        UserError: A file cannot be read or has no keys.
    """
    from axolotl.cli.utils.sweeps import generate_sweep_configs
    from axolotl.utils.dict import DictDefault

    base = _read_yaml(config)
    if sweep is None:
        return [TrainingRun({}, _with_options(DictDefault(base), options, config))]
    swept = _read_yaml(sweep)
    for key, values in swept.items():
        # From a bare string, Axolotl would make one run per letter.
        if not isinstance(values, list) or not values:
            raise UserError("must be a list of values", path=sweep, field=key)
        if key == "_" and not all(isinstance(value, dict) for value in values):
            raise UserError("must be a list of settings, each with its keys", path=sweep, field=key)
    keys = [key for key in swept if key != "_"]
    keys += sorted({key for setting in swept.get("_", []) for key in setting})
    with contextlib.redirect_stdout(io.StringIO()):  # Axolotl prints every combination
        combinations = generate_sweep_configs(base, swept)
    runs = []
    for number, values in enumerate(combinations, start=1):
        of_sweep = {key: values[key] for key in keys if key in values}
        output = Path(values.get("output_dir") or "./model-out")
        values["output_dir"] = str(output / _SWEEP.format(number))
        runs.append(TrainingRun(of_sweep, _with_options(DictDefault(values), options, config)))
    return runs


def _read_yaml(path: Path) -> dict[str, Any]:
    value = read_yaml(path).value
    if not isinstance(value, dict):
        raise UserError("must hold keys with values, as in `base_model: ...`", path=path)
    return value


def _with_options(cfg: Any, options: Mapping[str, Any], config: Path) -> Any:
    from axolotl.cli.config import _coerce_value

    cfg.axolotl_config_path = str(config)
    for key, value in options.items():
        parent, nested, child = key.partition("__")
        if not nested:
            cfg[key] = _coerce_value(value, cfg.get(key))
            continue
        if not isinstance(cfg[parent], dict):
            cfg[parent] = {}
        cfg[parent][child] = _coerce_value(value, cfg[parent].get(child))
    return cfg


def register_plugins(cfg: Any, config: str) -> Iterator[Finding]:
    """Register the config's plugins, and ours if the config does not list it.

    Yields:
        Findings: our plugin is missing, or another plugin fails on this machine. (`check_config`
        finds plugins that cannot be imported.)
    """
    from axolotl.integrations.base import PluginManager, load_plugin

    manager = PluginManager.get_instance()
    manager.plugins.clear()
    names = cfg.get("plugins") or []
    for name in names:
        # A name without a dot, or a module without the class, would end Axolotl with a traceback.
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            manager.plugins[name] = load_plugin(name)
    if not any(name.endswith(".RegReasonPlugin") for name in manager.plugins):
        if PLUGIN not in names:
            yield finding("error", _why_plugin(cfg), path=config, field="plugins")
        manager.plugins[PLUGIN] = load_plugin(PLUGIN)  # so that later checks know its keys
    for name, plugin in manager.plugins.items():
        if not name.endswith(".RegReasonPlugin"):
            try:
                plugin.register(cfg)
            except Exception as error:  # foreign code, written for a machine with a GPU
                message = f"the plugin {name}, which failed on this machine: {error}"
                yield finding("not checked", message)


def _why_plugin(cfg: Any) -> str:
    keys = [key for key in cfg if key.startswith("regreason_")]
    entries = [*(cfg.get("datasets") or []), *(cfg.get("test_datasets") or [])]
    uses = [f"{key} is used" for key in keys[:1]]
    uses += [
        f"type {STRATEGY} is used"
        for entry in entries
        if isinstance(entry, dict) and entry.get("type") == STRATEGY
    ][:1]
    return (
        f"must list {PLUGIN}: {' and '.join(uses) or 'the config uses nothing of RegReason'}, and "
        "without the plugin RegReason neither trains nor checks anything"
    )


def validate(cfg: Any, config: str, processes: int) -> tuple[Any | None, list[Finding]]:
    """Complete a config as Axolotl does, and collect the faults that Axolotl finds.

    Args:
        cfg: The config as written; not changed. Its plugins must be registered.
        config: Name of the config in a finding.
        processes: Number of processes that will train.

    Returns:
        The completed config, None if Axolotl refuses it; and the findings.
    """
    import torch
    from axolotl.utils.config import normalize_cfg_datasets, validate_config
    from pydantic import ValidationError

    capabilities = {
        **{"bf16": True, "fp8": True, "tf32": True, "n_gpu": processes},
        "compute_capability": "sm_90",
    }
    findings: list[Finding] = []
    values = copy.deepcopy(cfg)
    for _ in range(2):
        try:
            valid = validate_config(
                copy.deepcopy(values),
                capabilities=capabilities,
                env_capabilities={"torch_version": torch.__version__.split("+")[0]},
            )
        except UserError as error:  # raised by our own keys: packing
            findings.append(Finding("error", str(error)))
            values["sample_packing"] = False
        except ValidationError as error:
            findings += [
                finding(
                    "error",
                    f"Axolotl refuses it: {one['msg'].removeprefix('Value error, ')}",
                    path=config,
                    field=".".join(str(part) for part in one["loc"]) or None,
                )
                for one in error.errors()
            ]
            return None, findings
        else:
            _complete(valid)
            normalize_cfg_datasets(valid)
            return valid, findings
    return None, findings


def _complete(cfg: Any) -> None:
    """Add the keys that Axolotl's `normalize_config` sets independently of machine and model."""
    from axolotl.utils.config import resolve_dtype
    from axolotl.utils.dict import DictDefault

    cfg.base_model_config = cfg.base_model_config or cfg.base_model
    cfg.tokenizer_config = cfg.tokenizer_config or cfg.base_model_config
    if not cfg.gradient_accumulation_steps:
        cfg.gradient_accumulation_steps = max((cfg.batch_size or 1) // cfg.micro_batch_size, 1)
    # With the whole config, Axolotl would also set the precision of this process.
    precision = DictDefault({key: cfg[key] for key in _PRECISION})
    if precision.bf16 == "auto" and not precision.fp16:
        precision.bf16 = True
    resolve_dtype(precision)
    cfg.torch_dtype = precision.torch_dtype
