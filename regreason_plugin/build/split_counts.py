"""How much of an index each split holds."""

from __future__ import annotations

from collections.abc import Iterator

from regreason_plugin.build.folder import SplitCount
from regreason_plugin.build.ratings_index import Entry, Index
from regreason_plugin.build.split import Split


def _entries_of(index: Index, split: Split) -> Iterator[Entry]:
    return (entry for entry in index.entries if index.split[entry.group] == split)


def split_count(index: Index, split: Split) -> SplitCount:
    """Rows, conversations, groups and labels of one split."""
    labels: dict[str, dict[str, int]] = {}
    for entry in _entries_of(index, split):
        name = index.declaration.task_name(entry.dataset, entry.axis)
        by_label = labels.setdefault(name, {})
        by_label[str(entry.label)] = by_label.get(str(entry.label), 0) + 1
    return SplitCount(
        rows=sum(1 for _ in _entries_of(index, split)),
        conversations=len({entry.id for entry in _entries_of(index, split)}),
        groups=len({entry.group for entry in _entries_of(index, split)}),
        labels={name: dict(sorted(count.items())) for name, count in sorted(labels.items())},
    )
