"""The number of documents that the gate needs: prints the table of docs/guides/gate.md."""

from __future__ import annotations

import numpy as np

from regreason_plugin.comparison.gate_bounds import AccuracyChange

TRIALS = 20_000
POWER = 0.8


def passes(documents: int, discordance: float, max_drop: float) -> float:
    """The share of equally good candidates that pass the gate, with one document per group.

    Args:
        documents: Number of documents.
        discordance: Share of the documents on which exactly one of the two models is right.
        max_drop: The drop in accuracy that the gate allows.
    """
    random = np.random.default_rng(0)
    half = discordance / 2
    drawn = random.multinomial(documents, [half, half, 1 - discordance], TRIALS).astype(float)
    wins, losses = drawn[:, 0], drawn[:, 1]
    change = AccuracyChange(losses, wins, documents, np.ones(TRIALS), degrees=documents - 1)
    low, _ = change.bounds(0.05)
    return float((low > -max_drop).mean())


def needed(discordance: float, max_drop: float) -> int:
    """The smallest number of documents at which the share is at least `POWER`, within 1 %."""
    least, most = 10.0, 1e6
    while most / least > 1.01:
        middle = (least * most) ** 0.5
        enough = passes(int(middle), discordance, max_drop) >= POWER
        least, most = (least, middle) if enough else (middle, most)
    return int(most)


def main() -> None:
    """Print the table."""
    drops = (0.05, 0.02, 0.01, 0.005)
    print("| the two disagree about | " + " | ".join(f"{drop:g}" for drop in drops) + " |")
    for discordance in (0.0, 0.02, 0.05, 0.1, 0.2):
        counts = [f"{float(f'{needed(discordance, drop):.2g}'):,.0f}" for drop in drops]
        print(f"| {100 * discordance:g} % | " + " | ".join(counts) + " |")


if __name__ == "__main__":
    main()
