"""Reads ``gate.yml``: several rules of a gate on tasks of lm_eval, tested together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from regreason_plugin.comparison.gate import Rule
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import validate
from regreason_plugin.core.yaml_file import read_yaml
from regreason_plugin.metrics.metric_names import SCORE


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateRule(_Part):
    """One rule on some tasks."""

    tasks: Annotated[
        tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = Field(
        min_length=1,
        description="a task, a group of tasks, a pattern such as `mmlu*`, or a list of them",
    )
    metric: str = Field(
        default=SCORE,
        description="the metric, such as `acc_norm` or `exact_match,flexible-extract`; by default "
        "the first one of each task",
    )
    max_drop: float = Field(
        default=0.01,
        ge=0,
        description="how much worse the candidate may be, in the metric's unit",
    )
    min: float | None = Field(
        default=None, description="a floor for the candidate's own metric, if higher is better"
    )
    max: float | None = Field(
        default=None, description="a ceiling for the candidate's own metric, if lower is better"
    )
    per: Literal["task"] | None = Field(
        default=None, description="`task`: every task must pass, too, not only all together"
    )

    @model_validator(mode="after")
    def _check_limit(self) -> GateRule:
        if self.min is not None and self.max is not None:
            raise ValueError("give min or max, not both")
        return self

    def rule(self, alpha: float) -> Rule:
        """The rule as the gate tests it."""
        return Rule(
            metric=self.metric,
            max_drop=self.max_drop,
            limit=self.max if self.min is None else self.min,
            ceiling=self.max is not None,
            per=self.per,
            alpha=alpha,
            tasks=self.tasks,
        )


class GateFile(_Part):
    """All rules of a gate."""

    rules: tuple[GateRule, ...] = Field(min_length=1, description="the rules, tested together")
    alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="the error rate of a pass, and of a fail"
    )
    group_by: str | None = Field(default=None, description="as `--group-by` of `regreason compare`")


def read_gate_file(path: Path) -> GateFile:
    """Read ``gate.yml``.

    Raises:
        UserError: The file is not YAML, or a key is missing, unknown or has a wrong value.
    """
    file = read_yaml(path, folder_advice="name the file of rules in it")
    if not isinstance(file.value, dict):
        raise UserError("is not a file of rules; it needs the key 'rules'", path=path)
    return validate(GateFile, file.value, path, file.line)
