"""`regreason task new`: makes a task from your own labelled table."""
