"""A real base model as a folder: `regreason base`."""
