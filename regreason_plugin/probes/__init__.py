"""Probes: entropies inside a causal language model at the position where it decides."""

from regreason_plugin.probes.measure import measure
from regreason_plugin.probes.names import PROBES, parse_probes

__all__ = ["PROBES", "measure", "parse_probes"]
