"""Reads data: importers of six datasets, labelled tables, and the built-in mini benchmark."""
