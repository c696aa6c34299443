"""Builds the data folder: the arms' training texts, the splits, the files and the manifest."""
