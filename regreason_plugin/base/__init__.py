"""`regreason base`: writes a small real base model into a folder."""
