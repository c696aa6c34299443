"""Shared by every room: the task, the records, the prompt, files, errors."""
