"""Tasks of one's own: any table with a text and a label, declared in a ``task.yml``."""
