"""The contents of ``comparison.json``, from which every page and table is rendered.

``docs/reference/comparison.schema.json`` is its JSON schema. A change of a field's name or meaning
needs a new `FORMAT`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer

FORMAT: Literal[8] = 8
LEVEL = 0.95
# The key of what is counted over all settings, which share their labels.
ALL = "all"
POWER = 0.80


Finding = Literal["higher", "lower", "same", "higher and same", "lower and same", "unclear"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Model):
    """A figure and its 95 % interval; null where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Score(Interval):
    """One arm's figure: the mean over its seeds."""

    by_seed: list[float | None] = Field(description="in the order of the arm's seeds")
    seed_sd: float | None = Field(
        default=None, description="standard deviation over the seeds; null with one seed"
    )
    if_calibrated: float | None = Field(
        default=None,
        description="ece only: its expected value for a perfectly calibrated model with the same "
        "confidences",
    )


class Difference(Interval):
    """One arm minus another, which is the baseline unless a contrast says otherwise."""

    se: float | None = None
    df_seeds: int | None = Field(
        default=None, description="degrees of freedom of the seeds; null with fewer than three"
    )
    df_groups: float | None = Field(default=None, description="likewise of the groups")
    p: float | None = Field(
        default=None, description="two-sided, groups and seeds taken into account"
    )
    p_corrected: float | None = Field(
        default=None,
        description="of p: by Holm's method over the corrected family; of the primary question p "
        "itself; null of an exploratory figure",
    )
    p_same: float | None = Field(
        default=None,
        description="of two one-sided tests against the margin; in the primary metric only",
    )
    p_same_corrected: float | None = Field(default=None, description="of p_same, likewise")
    finding: Finding | None = Field(
        default=None,
        description="what the corrected tests show; null of an exploratory figure, and of all but "
        "the primary question where its test does not reject",
    )
    mcnemar_p: float | None = Field(
        default=None, description="exact; accuracy of one seed and groups of one document only"
    )
    effect: float | None = Field(
        default=None,
        description="accuracy: Cohen's h; another mean: the difference over the standard "
        "deviation of the documents' differences; null for what is no mean",
    )
    over: Literal["seeds and groups", "groups"] | None = Field(
        default=None,
        description="what the interval speaks of; groups: of these trained models only",
    )


class Detectable(Interval):
    """The smallest true difference that is found with a probability of 0.8.

    Its interval comes from how well this sample shows the variances.
    """


class Contrast(_Model):
    """Two arms of which neither is the baseline, pooled over the settings."""

    arm: str
    minus: str
    differences: dict[str, Difference] = Field(description="by metric")


class Primary(_Model):
    """The one question that is tested at 0.05 by itself."""

    arm: str
    metric: str
    rejects: bool = Field(
        description="whether its test finds a difference; only then do the others make claims"
    )


class Needed(_Model):
    """What finding a difference with a probability of 0.8 would take."""

    difference: float
    groups: int | None = Field(
        description="with these seeds; null where none is enough or nothing varies"
    )
    seeds: int | None = Field(description="with these groups; null likewise")


class Gap(_Model):
    """The share of the explanation's gain that an arm keeps, with a Fieller interval.

    ``low`` and ``high`` are the ends of the set; what lies in it is said by ``kind``.
    """

    value: float | None
    kind: Literal["between", "outside", "everything"] = Field(
        description="between low and high; outside of them (low and below, high and above); or "
        "no value can be excluded"
    )
    low: float | None
    high: float | None


class GeneralisationGap(_Model):
    """An arm's label loss (``nll``) on the rows that it was trained on and on test rows.

    Means over its seeds, and unweighted means over the settings scored on both. Exploratory.
    """

    train: Interval
    test: Interval
    gap: Interval = Field(description="test minus train: how far the arm overfits")
    difference: Interval | None = Field(
        description="the gap minus the baseline's, over the same rows; null for the baseline "
        "itself, and where it has no results on train rows"
    )
    train_documents: int = Field(description="scored, over all settings")
    test_documents: int = Field(description="likewise")
    over: Literal["seeds and groups", "groups"] | None = Field(
        description="what the gap's interval speaks of; groups: of these trained models only"
    )


class Wins(_Model):
    """In how many settings an arm's accuracy is above, as, or below the baseline's."""

    wins: int
    ties: int
    losses: int
    of: int


class Setting(_Model):
    """What was scored in one setting, by every model alike."""

    task: str
    dataset: str
    axis: str
    title: str = Field(description="of the dataset, for a reader")
    axis_title: str = Field(description="of the axis, likewise")
    documents: int
    groups: int
    effective_groups: float = Field(
        description="as many groups of one size say as much (Kish): the squared number of "
        "documents over the sum of the groups' squared sizes"
    )
    majority_acc: float
    labels: list[int] = Field(description="how often each label is right, in their order")
    label_names: list[str] = Field(description="what the model writes, in the same order")
    ordinal: bool = Field(description="whether their order means something")


class Bin(_Model):
    """A bar of a reliability diagram, over all settings and seeds."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None
    band_low: float | None = Field(
        default=None,
        description="lower end of the range in which the accuracy of a calibrated model lies with "
        "a probability of 0.95",
    )
    band_high: float | None = Field(default=None, description="its upper end")


class Label(_Model):
    """How one label fares with one arm, counted over its seeds."""

    label: str
    support: int = Field(description="documents of which it is right, in one seed")
    precision: float | None = Field(description="null where it is never predicted")
    recall: float | None = Field(description="null where it is never right")
    f1: float | None = Field(description="null where both are; macro-F1 takes that as 0")


class Answer(_Model):
    """One of the questions, answered from the numbers."""

    question: str
    short: str = Field(description="a few words")
    sentences: list[str]


class Curve(_Model):
    """How well the validation labels were predicted while one model was trained."""

    seed: int | None
    metric: str = Field(
        default="label_acc",
        description="label_acc: as scoring predicts; label_acc_after_explanation: after the true "
        "explanation; label_token_acc: the label's tokens, each given the true ones before it",
    )
    tokens: list[int] = Field(description="target tokens seen")
    accuracy: list[float]


class Cost(_Model):
    """What an arm took, the mean of its models; null where not all of them say so."""

    training_seconds: float | None
    training_tokens: float | None = Field(
        description="read in training, padding left out, as often as they were read"
    )
    scoring_ms: float | None = Field(description="a test document, in the model")
    peak_memory_mib: float | None = Field(
        description="the most main memory that one of its processes had: training, or scoring"
    )
    peak_gpu_mib: float | None = Field(description="likewise of PyTorch's tensors on a GPU")
    machines: list[str] = Field(description="that all this was measured on")


class RunRecord(_Model):
    """What one model is and how it was scored."""

    arm: str
    seed: int | None
    model: str
    model_args: str
    results: list[str] = Field(description="the files' names")
    environment: dict[str, Any] = Field(description="lm_eval's versions, template, date")
    evaluation: dict[str, Any] = Field(description="seeds, limit and batch size of lm_eval")
    training: dict[str, Any] = Field(description="the model's regreason.json, if it has one")


class Comparison(_Model):
    """Several arms held against one."""

    format: Literal[8] = FORMAT
    regreason: str
    versions: dict[str, str] = Field(description="of the libraries that computed this")
    command: str
    data: dict[str, Any] = Field(
        description="origin, sha256, raters, order of the data folder; of several folders, what "
        "differs stands as one text"
    )
    protocol: Literal["label_first", "explanation_first"]
    baseline: str
    arms: list[str] = Field(description="the others, in their order")
    seeds: dict[str, list[int | None]] = Field(description="those used, by arm")
    level: float
    power: float
    primary: Primary | None = Field(
        description="null where several arms are compared and none was named"
    )
    margin: float = Field(description="differences within it, either way, count as the same")
    family: int = Field(description="how many tests the correction is over, the primary left out")
    effective_groups: float = Field(description="over all settings")
    metrics: list[str] = Field(description="those that all models have")
    left_out: dict[str, str] = Field(
        description="metrics, and entropies whether by layer or not, that are not compared, and why"
    )
    settings: list[Setting]
    settings_in_paper: int | None = Field(description="null where some settings are no part of it")
    scores: dict[str, dict[str, dict[str, Score]]] = Field(description="by arm, task, metric")
    differences: dict[str, dict[str, dict[str, Difference]]] = Field(
        description="by arm (never the baseline), task, metric"
    )
    pooled_scores: dict[str, dict[str, Score]] = Field(
        description="by arm, metric: unweighted means over the settings"
    )
    pooled: dict[str, dict[str, Difference]] = Field(description="by arm, metric, likewise")
    contrasts: list[Contrast]
    detectable: dict[str, Detectable] = Field(
        description="by arm: the smallest difference of the primary metric, pooled"
    )
    wins: dict[str, Wins]
    needed: dict[str, Needed] = Field(
        description="by arm: for the accuracy's difference named with --difference, pooled"
    )
    gap_of: str | None = Field(description="the arm whose gain is 1: explanation, if it is there")
    gap: dict[str, Gap] = Field(description="by arm, of the pooled accuracy")
    generalisation: dict[str, GeneralisationGap] = Field(
        default_factory=dict,
        description="by arm, the baseline among them: label loss on train rows and on test rows; "
        "only arms all of whose models were scored on train rows",
    )
    layers: dict[str, dict[str, list[Interval]]] = Field(
        description="entropy by layer, by metric and arm; index 0 the embeddings. Of models that "
        "explain first, with the label forced at once (forced_...)"
    )
    reliability: dict[str, list[Bin]] = Field(description="by arm, whatever the labels are")
    confusion: dict[str, dict[str, list[list[int]]]] = Field(
        description="by arm; then all for all settings together where they share their labels, "
        "else by task: a row a right label, a column a prediction; over seeds"
    )
    classes: dict[str, dict[str, list[Label]]] = Field(
        description="by arm, task: how each label fares, in the order of the labels"
    )
    curves: dict[str, list[Curve]] = Field(description="by arm; empty without training records")
    costs: dict[str, Cost] = Field(description="by arm")
    answers: list[Answer]
    notes: list[str] = Field(description="what has to be known to read the numbers")
    runs: list[RunRecord]


def some_settings(count: int, in_paper: int | None) -> str:
    """Such as ``3 of 18 settings``; ``3 tasks`` where some are no part of the paper."""
    if in_paper is None:
        return f"{count} task{'s' * (count > 1)}"
    return f"{count} of {in_paper} settings"


def rounded(comparison: Comparison) -> Comparison:
    """The same with nine significant digits: what lies beyond depends on the machine."""
    text = comparison.model_dump_json()
    nine = json.loads(text, parse_float=lambda number: float(f"{float(number):.9g}"))
    return Comparison.model_validate(nine)


def save(comparison: Comparison, path: Path) -> None:
    """Write it as JSON, whole or not at all."""
    with atomic_writer(path) as stream:
        stream.write((comparison.model_dump_json(indent=1) + "\n").encode("utf-8"))


def load_comparison(path: str | Path) -> Comparison:
    """Read what `save` wrote.

    Raises:
        UserError: It is of another format.
    """
    path = Path(path)
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except ValueError as error:
        problem = str(error).splitlines()[:3]
        raise UserError(
            f"is no comparison of format {FORMAT}: {' '.join(problem)}", path=path
        ) from None
