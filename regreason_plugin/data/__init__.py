"""Conversations: importers into one schema, and the built-in mini benchmark."""
