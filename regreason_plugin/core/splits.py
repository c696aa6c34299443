"""The names of the three splits of a data set."""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "validation", "test"]
# What happens to a text or a group that is in two splits of the user's own.
OnOverlap = Literal["refuse", "drop"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
