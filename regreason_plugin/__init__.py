"""RegReason: explanation-enhanced fine-tuning of language models as classifiers.

Axolotl trains, lm-eval scores; this package supplies the rest: the arms, the
token-exact prompt, the metrics and the comparison of arms.
"""

from typing import TYPE_CHECKING

from regreason_plugin.core.version import __version__ as __version__

if TYPE_CHECKING:
    from regreason_plugin.predict.classifier import Classifier as Classifier


def __getattr__(name: str) -> object:
    """`Classifier`, which needs torch, once it is asked for."""
    if name == "Classifier":
        from regreason_plugin.predict.classifier import Classifier

        return Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
