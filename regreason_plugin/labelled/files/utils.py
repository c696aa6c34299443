"""What the task file here calls. lm-eval 0.4.11 looks for it in this folder only."""

from regreason_plugin.evaluation.documents import (
    TrainSampler,
    label_first_documents,
    label_index,
    labels,
    prompt,
    score_labels,
)
from regreason_plugin.evaluation.metrics import (
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
from regreason_plugin.evaluation.task import RegReasonTask

__all__ = [
    "RegReasonTask",
    "TrainSampler",
    "auroc",
    "auroc_stderr",
    "ece",
    "ece_stderr",
    "label_first_documents",
    "label_index",
    "labels",
    "macro_f1",
    "macro_f1_stderr",
    "majority_acc",
    "majority_acc_stderr",
    "mean",
    "mean_stderr",
    "prompt",
    "qwk",
    "qwk_stderr",
    "score_labels",
    "spearman",
    "spearman_stderr",
    "undefined",
]
