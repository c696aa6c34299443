"""The lm-eval side: what the task files call, the metrics, the model."""
