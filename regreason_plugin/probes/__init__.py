"""Entropies inside a causal language model, where it decides: pure torch."""

from regreason_plugin.probes.measure import measure
from regreason_plugin.probes.names import PROBES, parse_probes

__all__ = ["PROBES", "measure", "parse_probes"]
