"""Tables from lm-eval result folders; reads results only."""
