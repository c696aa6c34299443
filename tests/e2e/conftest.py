"""What several rooms of trainings share."""

from __future__ import annotations

from pathlib import Path

import pytest
from step_training import Trainings


@pytest.fixture(scope="session")
def train(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """Three steps of all rows each, in as many ways as there are names."""
    return Trainings(tiny_model, tmp_path_factory.mktemp("steps"))
