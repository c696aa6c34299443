"""All functions and classes that task files name as ``!function utils.NAME``, in one module."""

# ruff: noqa: F401
from __future__ import annotations

from regreason_plugin.evaluate.documents import (
    TrainSampler,
    explanation_first_documents,
    explanation_then_label,
    label_first_documents,
    label_index,
    labels,
    prompt,
    score_labels,
)
from regreason_plugin.evaluate.explanation_first import ExplanationFirstTask, score_both
from regreason_plugin.evaluate.task import RegReasonTask
from regreason_plugin.metrics.label_metrics import (
    auroc,
    auroc_stderr,
    ece,
    ece_stderr,
    macro_f1,
    macro_f1_stderr,
    majority_acc,
    majority_acc_stderr,
    mean,
    mean_stderr,
    qwk,
    qwk_stderr,
    spearman,
    spearman_stderr,
    undefined,
)
