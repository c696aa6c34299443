"""Evaluation with lm-eval: the tasks, the scoring model, the readers of results, the baselines."""
