"""Comparisons of results: comparability, estimates, tests, answers in words, and the gate."""
