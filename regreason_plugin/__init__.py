"""RegReason: fine-tune language models as classifiers with explanations attached to their labels.

Axolotl trains and lm-eval scores. This package supplies the arms, the token-exact prompt, the
probes and the statistics that compare arms. The names below are the public API; each module is
imported when one of its names is first used, because most of them need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from regreason_plugin.core.version import __version__ as __version__

if TYPE_CHECKING:
    from regreason_plugin.annotate.offline import CallAnswer, annotation_calls, store_answers
    from regreason_plugin.api import build, compare, gate, score, to_frame, to_markdown
    from regreason_plugin.comparison.comparison import load_comparison
    from regreason_plugin.core.errors import UserError
    from regreason_plugin.core.task_file import Task, read_task
    from regreason_plugin.predict.calibration import calibrate
    from regreason_plugin.predict.classifier import Classifier
    from regreason_plugin.predict.predictions import Prediction
    from regreason_plugin.probes.measure import measure
    from regreason_plugin.train.plugin import RegReasonPlugin

__all__ = [
    "CallAnswer",
    "Classifier",
    "Prediction",
    "RegReasonPlugin",
    "Task",
    "UserError",
    "annotation_calls",
    "build",
    "calibrate",
    "compare",
    "gate",
    "load_comparison",
    "measure",
    "read_task",
    "score",
    "store_answers",
    "to_frame",
    "to_markdown",
]

_MODULES = {
    "annotate.offline": ("CallAnswer", "annotation_calls", "store_answers"),
    "api": ("build", "compare", "gate", "score", "to_frame", "to_markdown"),
    "comparison.comparison": ("load_comparison",),
    "core.errors": ("UserError",),
    "core.task_file": ("Task", "read_task"),
    "predict.calibration": ("calibrate",),
    "predict.classifier": ("Classifier",),
    "predict.predictions": ("Prediction",),
    "probes.measure": ("measure",),
    "train.plugin": ("RegReasonPlugin",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """A name of the public API, imported at its first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    """The public API, for completion in a notebook."""
    return [*__all__, "__version__"]
