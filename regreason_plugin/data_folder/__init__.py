"""The arms: what follows the label; train, validation and test files; the manifest."""
