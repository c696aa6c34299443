"""The notes about labels that no document has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.comparison_example import example

from regreason_plugin.comparison.notes import notes_of


def notes(absent: dict[int, list[int]]) -> list[str]:
    """Notes of a comparison whose settings, by index, lack the labels at these positions."""
    one = example(["explanation"])
    settings = list(one.settings)
    for place, labels in absent.items():
        counts = [0 if label in labels else 50 for label in range(5)]
        settings[place] = settings[place].model_copy(update={"labels": counts})
    pair = SimpleNamespace(places=[0, 1, 2], same=True, repeated=False, left_out=[])
    tasks = {setting.task: SimpleNamespace(metrics={}) for setting in settings}
    arms: Any = SimpleNamespace(
        pairs={"explanation": pair},
        runs={},
        models=[SimpleNamespace(tasks=tasks, config={"model_args": {}})],
    )
    return notes_of(one.model_copy(update={"settings": settings}), arms)


@pytest.mark.parametrize(
    ("absent", "places"),
    [
        ({0: [0]}, "regreason_chatbot_arena_naturalness (no '1')"),
        (
            {0: [0, 4], 1: [2]},
            "regreason_chatbot_arena_naturalness (no '1' or '5') and "
            "regreason_chatbot_arena_comprehensiveness (no '3')",
        ),
        ({place: [1] for place in range(5)}, "2 more"),
    ],
)
def test_labels_that_no_document_has_are_named(absent: dict[int, list[int]], places: str) -> None:
    (said,) = [note for note in notes(absent) if "macro-F1" in note]
    assert said.startswith("A label that no document of a setting has counts as 0 in the macro-F1")
    assert said.endswith(f"{places}.")


def test_nothing_is_said_where_each_label_occurs() -> None:
    assert not [note for note in notes({}) if "macro-F1" in note]
