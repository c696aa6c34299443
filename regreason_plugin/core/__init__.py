"""What every room shares: the task, the records, the prompt, files, errors."""
