"""The contents of ``comparison.json``, from which every page and table is rendered.

Its JSON schema is ``docs/reference/comparison.schema.json``. A change of a field's name or meaning
needs a new `FORMAT`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.metrics.metric_names import METRICS, Metric

FORMAT: Literal[9] = 9
LEVEL = 0.95
# The key of counts over all settings together, which have the same labels.
ALL = "all"
POWER = 0.80


Finding = Literal["higher", "lower", "same", "higher and same", "lower and same", "unclear"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Model):
    """A figure and its 95 % confidence interval; null where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Score(Interval):
    """One arm's figure: the mean over its seeds."""

    by_seed: list[float | None] = Field(
        description="one value per seed, in the order of the arm's seeds"
    )
    seed_sd: float | None = Field(
        default=None, description="standard deviation over the seeds; null with one seed"
    )
    se: float | None = Field(
        default=None,
        description="any task of lm_eval: standard error over the groups and, with three runs or "
        "more, the runs. With one run and no groups it is lm_eval's own",
    )
    if_calibrated: float | None = Field(
        default=None,
        description="ece only: the expected value for a perfectly calibrated model with the same "
        "confidences",
    )


class Difference(Interval):
    """One arm minus the baseline; in a contrast, one arm minus another."""

    se: float | None = Field(default=None, description="standard error")
    df_seeds: int | None = Field(
        default=None,
        description="degrees of freedom of the seeds' variance; null with fewer than three seeds",
    )
    df_groups: float | None = Field(
        default=None, description="degrees of freedom of the groups' variance"
    )
    p: float | None = Field(
        default=None, description="two-sided p value, which accounts for groups and seeds"
    )
    p_corrected: float | None = Field(
        default=None,
        description="p corrected for multiple comparisons: by Holm's method over the family; for "
        "the primary question p itself; null for an exploratory figure",
    )
    p_same: float | None = Field(
        default=None,
        description="p value of the equivalence test: two one-sided tests against the margin; in "
        "the primary metric only",
    )
    p_same_corrected: float | None = Field(
        default=None, description="p_same, corrected in the same way as p_corrected"
    )
    finding: Finding | None = Field(
        default=None,
        description="the finding of the corrected tests; null for an exploratory figure, and for "
        "all but the primary question if the primary test does not reject",
    )
    mcnemar_p: float | None = Field(
        default=None,
        description="McNemar's exact p value; only for accuracy with one seed and one document "
        "per group",
    )
    effect: float | None = Field(
        default=None,
        description="effect size. Accuracy: Cohen's h; another mean: the difference over the "
        "standard deviation of the documents' differences; null for a metric that is not a mean",
    )
    over: Literal["seeds and groups", "groups"] | None = Field(
        default=None,
        description="the random effects that the interval accounts for; groups: it is about these "
        "trained models only",
    )


class Detectable(Interval):
    """The smallest true difference that the test finds with a probability of 0.8.

    Its interval reflects how precisely this sample estimates the variances.
    """


class Contrast(_Model):
    """Two arms, neither of them the baseline, compared over all settings together."""

    arm: str
    minus: str
    differences: dict[str, Difference] = Field(description="by metric")


class Primary(_Model):
    """The primary question: the one difference that is tested at 0.05 without a correction."""

    arm: str
    metric: str
    rejects: bool = Field(
        description="whether its test finds a difference; only then may the other tests make claims"
    )


class Needed(_Model):
    """The sample size that finds a difference with a probability of 0.8."""

    difference: float
    groups: int | None = Field(
        description="groups needed with the present seeds; null if no number is enough or nothing "
        "varies"
    )
    seeds: int | None = Field(
        description="seeds needed with the present groups; null if no number is enough, nothing "
        "varies, or there are fewer than three seeds now"
    )


class Gap(_Model):
    """The fraction of the explanation's gain that an arm keeps, with a Fieller confidence set.

    ``low`` and ``high`` are the ends of the set; ``kind`` says on which side of them it lies.
    """

    value: float | None
    kind: Literal["between", "outside", "everything"] = Field(
        description="the set is: the values between low and high; the values outside of them (low "
        "and below, high and above); or everything, so that no value is excluded"
    )
    low: float | None
    high: float | None


class GeneralisationGap(_Model):
    """An arm's label loss (``nll``) on the rows that it was trained on and on test rows.

    The figures are means over the arm's seeds, and unweighted means over the settings that were
    scored on both kinds of rows. They are exploratory.
    """

    train: Interval
    test: Interval
    gap: Interval = Field(description="test minus train: how far the arm overfits")
    difference: Interval | None = Field(
        description="the gap minus the baseline's gap, on the same rows; null for the baseline "
        "itself, and if the baseline has no results on train rows"
    )
    train_documents: int = Field(description="number of train rows scored, over all settings")
    test_documents: int = Field(description="number of test rows scored, over all settings")
    over: Literal["seeds and groups", "groups"] | None = Field(
        description="the random effects that the gap's interval accounts for; groups: it is about "
        "these trained models only"
    )


class Wins(_Model):
    """In how many settings an arm's accuracy is above, equal to, or below the baseline's."""

    wins: int
    ties: int
    losses: int
    of: int


class Setting(_Model):
    """One setting: its labels, and the documents that every model scored."""

    task: str
    dataset: str
    axis: str
    title: str = Field(description="title of the dataset, for readers")
    axis_title: str = Field(description="title of the axis, for readers")
    documents: int
    groups: int
    effective_groups: float = Field(
        description="number of groups of equal size that would give the same precision (Kish): "
        "the squared number of documents over the sum of the groups' squared sizes"
    )
    majority_acc: float | None = Field(description="null for a task without labels")
    labels: list[int] = Field(
        description="documents per right label, in the order of the labels; empty for a task "
        "without labels"
    )
    label_names: list[str] = Field(
        description="the labels as the model writes them, in the same order"
    )
    ordinal: bool = Field(description="whether the labels are an ordered scale")
    pooled: bool = Field(default=True, description="whether the task is part of the pooled figures")
    metrics: list[str] = Field(
        default_factory=list,
        description="any task of lm_eval: its own metrics, the main one first",
    )
    group_field: str | None = Field(
        default=None,
        description="any task of lm_eval: the field by which its documents are grouped; null if "
        "each document is its own group",
    )


class Bin(_Model):
    """One bin of a reliability diagram, over all settings and seeds."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None
    band_low: float | None = Field(
        default=None,
        description="lower end of the range that contains the accuracy of a calibrated model with "
        "a probability of 0.95",
    )
    band_high: float | None = Field(default=None, description="upper end of that range")


class Label(_Model):
    """Precision, recall and F1 of one label for one arm, counted over the arm's seeds."""

    label: str
    support: int = Field(description="documents with this right label, in one seed")
    precision: float | None = Field(description="null if the label is never predicted")
    recall: float | None = Field(description="null if no document has the label")
    f1: float | None = Field(
        description="null if precision and recall are both null; macro-F1 counts that as 0"
    )


class Agreement(_Model):
    """How often the baseline and an arm are right, counted over documents and pairs of models."""

    both_right: int
    only_baseline: int
    only_arm: int
    both_wrong: int


class MetricOf(_Model):
    """A metric that lm_eval logged for a task."""

    title: str
    better: Literal["higher", "lower"] | None


class GroupOfTasks(_Model):
    """A group of lm_eval's tasks, in the main metric; every document weighs the same."""

    name: str
    tasks: list[str]
    documents: int
    scores: dict[str, Score] = Field(description="by arm")
    differences: dict[str, Difference] = Field(
        description="by arm (never the baseline); exploratory"
    )


class Answer(_Model):
    """One of the questions, with an answer that is worded from the findings."""

    question: str
    short: str = Field(description="the answer in a few words")
    sentences: list[str]


class Curve(_Model):
    """The accuracy of one model on the validation labels during its training."""

    seed: int | None
    metric: str = Field(
        default="label_acc",
        description="label_acc: the label predicted as in scoring; label_acc_after_explanation: "
        "the label predicted after the true explanation; label_token_acc: the label's tokens, each "
        "predicted from the true tokens before it",
    )
    tokens: list[int] = Field(description="target tokens seen so far")
    accuracy: list[float]


class Cost(_Model):
    """The cost of an arm, averaged over its models; null if any of them has no figure."""

    training_seconds: float | None
    training_tokens: float | None = Field(
        description="tokens read in training, without padding, counted each time they were read"
    )
    scoring_ms: float | None = Field(
        description="milliseconds that the model took for one test document"
    )
    peak_memory_mib: float | None = Field(
        description="the largest main memory of one of its processes in training or scoring, MiB"
    )
    peak_gpu_mib: float | None = Field(
        description="the largest GPU memory of PyTorch's tensors in one of its processes, MiB"
    )
    machines: list[str] = Field(description="the machines that these figures were measured on")


class RunRecord(_Model):
    """One model, and how it was trained and scored."""

    arm: str
    seed: int | None
    model: str
    model_args: str
    results: list[str] = Field(description="names of the results files")
    environment: dict[str, Any] = Field(description="lm_eval's versions, chat template, date")
    evaluation: dict[str, Any] = Field(description="seeds, limit and batch size of lm_eval")
    training: dict[str, Any] = Field(description="the model's regreason.json; empty without one")
    temperature: Interval | None = Field(
        default=None,
        description="the model's temperature, if calibrated probabilities are compared; an end of "
        "its interval is null if it is undefined or infinite",
    )


class Comparison(_Model):
    """A comparison of several arms with a baseline."""

    format: Literal[9] = FORMAT
    regreason: str
    versions: dict[str, str] = Field(
        description="versions of the libraries that computed the figures"
    )
    command: str
    data: dict[str, Any] = Field(
        description="origin, sha256, raters, order of the data folder; for several folders, values "
        "that differ are joined into one text"
    )
    protocol: Literal["label_first", "explanation_first", "logged"] = Field(
        description="logged: any tasks of lm_eval, compared by the metrics that lm_eval logged"
    )
    baseline: str
    arms: list[str] = Field(description="all arms except the baseline, in order")
    seeds: dict[str, list[int | None]] = Field(description="training seeds of each arm's models")
    level: float
    power: float
    primary: Primary | None = Field(
        description="null if several arms are compared and no primary question was named"
    )
    usual: str = Field(
        default="acc",
        description="the metric that the tables show first without a primary question",
    )
    logged_metrics: dict[str, MetricOf] = Field(
        default_factory=dict, description="by name: the metrics that lm_eval logged"
    )
    margin: float = Field(
        description="equivalence margin: differences from -margin to +margin count as the same"
    )
    family: int = Field(
        description="number of tests that are corrected together, without the primary one"
    )
    effective_groups: float = Field(description="effective number of groups over all settings")
    metrics: list[str] = Field(description="metrics that all models have in every task")
    left_out: dict[str, str] = Field(
        description="metrics and entropies that are not compared, by layer or not, each with the "
        "reason"
    )
    settings: list[Setting]
    settings_in_paper: int | None = Field(
        description="number of the paper's settings; null if some settings are not the paper's"
    )
    scores: dict[str, dict[str, dict[str, Score]]] = Field(description="by arm, task, metric")
    differences: dict[str, dict[str, dict[str, Difference]]] = Field(
        description="by arm (never the baseline), task, metric"
    )
    pooled_scores: dict[str, dict[str, Score]] = Field(
        description="by arm, metric: unweighted means over the settings"
    )
    pooled: dict[str, dict[str, Difference]] = Field(
        description="by arm, metric: differences of the unweighted means over the settings"
    )
    contrasts: list[Contrast]
    detectable: dict[str, Detectable] = Field(
        description="by arm: the smallest detectable pooled difference in the primary metric"
    )
    wins: dict[str, Wins]
    needed: dict[str, Needed] = Field(
        description="by arm: for the difference in pooled accuracy that --difference gives"
    )
    gap_of: str | None = Field(
        description="the arm whose gain counts as 1: explanation; null if it is not compared"
    )
    gap: dict[str, Gap] = Field(description="by arm, for the gain in pooled accuracy")
    generalisation: dict[str, GeneralisationGap] = Field(
        default_factory=dict,
        description="by arm, including the baseline: label loss on train rows and on test rows; "
        "only arms all of whose models were scored on train rows",
    )
    layers: dict[str, dict[str, list[Interval]]] = Field(
        description="by metric, arm: entropy at each layer; index 0 is the embeddings. For models "
        "that explain before they answer, the label is forced at once (forced_...)"
    )
    reliability: dict[str, list[Bin]] = Field(
        description="by arm: bins of the reliability diagram, for any number of labels"
    )
    confusion: dict[str, dict[str, list[list[int]]]] = Field(
        description="by arm; then by task, or under all for all settings together if they have the "
        "same labels: a row per right label, a column per prediction; summed over seeds"
    )
    classes: dict[str, dict[str, list[Label]]] = Field(
        description="by arm, task: figures of each label, in the order of the labels"
    )
    task_groups: list[GroupOfTasks] = Field(
        default_factory=list, description="groups of lm_eval's tasks, such as mmlu"
    )
    agreement: dict[str, dict[str, Agreement]] = Field(
        default_factory=dict,
        description="by arm, then by task: only tasks whose main metric is right or wrong",
    )
    curves: dict[str, list[Curve]] = Field(description="by arm; empty without training logs")
    costs: dict[str, Cost] = Field(description="by arm")
    answers: list[Answer]
    notes: list[str] = Field(description="what a reader must know about the figures")
    runs: list[RunRecord]

    @property
    def main(self) -> str:
        """The metric of the primary question, else the one that the tables show first."""
        return self.primary.metric if self.primary else self.usual


def metric_of(comparison: Comparison, name: str) -> Metric:
    """The title, direction and unit of a metric."""
    logged = comparison.logged_metrics.get(name)
    return Metric(logged.title, logged.better) if logged else METRICS[name]


def setting_noun(comparison: Comparison) -> str:
    """The word for a setting: ``task`` where any tasks of lm_eval are compared."""
    return "task" if comparison.protocol == "logged" else "setting"


def run_noun(comparison: Comparison) -> str:
    """The word for one of an arm's models: ``run`` where any tasks of lm_eval are compared."""
    return "run" if comparison.protocol == "logged" else "seed"


def some_settings(count: int, in_paper: int | None) -> str:
    """A number of settings, such as ``3 of 18 settings``; ``3 tasks`` outside the paper's."""
    if in_paper is None:
        return f"{count} task{'s' * (count > 1)}"
    return f"{count} of {in_paper} settings"


def rounded(comparison: Comparison) -> Comparison:
    """Round every figure to nine significant digits; further digits depend on the machine."""
    text = comparison.model_dump_json()
    nine = json.loads(text, parse_float=lambda number: float(f"{float(number):.9g}"))
    return Comparison.model_validate(nine)


def save(comparison: Comparison, path: Path) -> None:
    """Write a comparison as JSON, whole or not at all."""
    with atomic_writer(path) as stream:
        stream.write((comparison.model_dump_json(indent=1) + "\n").encode("utf-8"))


def load_comparison(path: str | Path) -> Comparison:
    """Read the ``comparison.json`` that `regreason compare` or `compare` wrote.

    Raises:
        UserError: The file has another format.

    Example:
        >>> from regreason_plugin import load_comparison
        >>> load_comparison("report/comparison.json").baseline
        'label_only'
    """
    path = Path(path)
    try:
        return Comparison.model_validate_json(path.read_bytes())
    except ValueError as error:
        problem = str(error).splitlines()[:3]
        raise UserError(
            f"is not a comparison of format {FORMAT}: {' '.join(problem)}", path=path
        ) from None
