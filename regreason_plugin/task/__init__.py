"""A task of one's own: `regreason task new`."""
