"""RegReason: explanation-enhanced fine-tuning of language models as classifiers.

Axolotl trains, lm-eval scores; this package supplies the rest: the arms, the
token-exact prompt, the metrics and the comparison of arms.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("regreason")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
