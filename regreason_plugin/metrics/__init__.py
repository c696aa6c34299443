"""The formulas of all metrics; no other room computes a metric."""
