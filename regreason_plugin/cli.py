"""The `regreason` command."""


def main() -> int:
    """Run a command."""
    return 0
