"""A ratings file read for its scores, and written again with another aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from regreason_plugin.annotate.aggregate import aggregate_rows
from regreason_plugin.annotate.provenance import About, AboutRater, read_about, write_about
from regreason_plugin.annotate.scores import ScoreTable, Setting
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import (
    check_unique,
    file_sha256,
    read_objects,
    validate,
    write_records,
)
from regreason_plugin.core.paper import RATEABLE
from regreason_plugin.core.records import Rated, Rating
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import check_not_input, pending, together

OnRow = Callable[[], object]


class Scores(NamedTuple):
    """What one pass over a ratings file keeps.

    Attributes:
        table: Of all rows.
        enough: Of those with enough usable ratings.
        settings: The setting of every (id, axis).
        raters: Names, sorted.
    """

    table: ScoreTable
    enough: ScoreTable
    settings: dict[tuple[str, str], Setting]
    raters: list[str]


def read_rated(path: Path) -> Iterator[Rated]:
    """Stream a file's rows, with a label or without one yet.

    Raises:
        UserError: A line is wrong, or stands twice.
    """
    seen: dict[tuple[str, str], int] = {}
    for line, value in read_objects(path):
        row = validate(Rating if "label" in value else Rated, value, path, line, RATEABLE)
        check_unique(seen, value, path, line)
        yield row


def read_scores(path: Path, minimum: int = 1, on_row: OnRow = lambda: None) -> Scores:
    """Read a ratings file's numbers.

    Raises:
        UserError: As `read_rated`, or it holds no usable rating.
    """
    table, enough = ScoreTable(), ScoreTable()
    settings: dict[tuple[str, str], Setting] = {}
    raters: set[str] = set()
    for row in read_rated(path):
        table.add(row)
        if minimum > 1:
            enough.add(row, minimum)
        settings[row.id, row.axis] = row.dataset, row.axis
        raters.update(rating.rater for rating in row.ratings)
        on_row()
    if not table.settings:
        raise UserError(
            "has no rating with a score and an explanation; there is nothing to aggregate",
            path=path,
            field="ratings",
        )
    return Scores(table, enough if minimum > 1 else table, settings, sorted(raters))


def write_aggregated(
    ratings: Path,
    sha256: str,
    out: Path,
    by: str,
    minimum: int = 1,
    golden_rows: int = 0,
    on_row: OnRow = lambda: None,
) -> tuple[int, Counter[str]]:
    """Write the rows again, their label and explanation by another aggregator.

    Beside them goes what is said of the source, if anything is, with the new aggregator.

    Args:
        ratings: The source.
        sha256: Of its bytes.
        out: Where to.
        by: The aggregator.
        minimum: Usable ratings a row needs.
        golden_rows: On so many the aggregator was chosen; 0 where nobody chose by them.
        on_row: Called for each row written.

    Returns:
        How many rows there are, and how many were dropped, by reason.

    Raises:
        UserError: As `read_rated` and `aggregate_rows`; no row is left; nothing is written.
    """
    check_not_input(out, [ratings])
    if out.suffix == ".gz":
        raise UserError("is written as plain text; give it a name that ends on .jsonl", path=out)
    source = read_about(ratings, sha256)
    conversations: dict[str, str] = {}
    raters: set[str] = set()
    dropped: Counter[str] = Counter()

    def counted() -> Iterator[Rating]:
        rating = None
        for rating in aggregate_rows(lambda: read_rated(ratings), by, minimum, dropped):
            conversations[rating.id] = rating.dataset
            raters.update(one.rater for one in rating.ratings)
            yield rating
            on_row()
        if rating is None:
            raise UserError(f"no row has {minimum} usable ratings; lower --minimum", path=ratings)

    with together():
        count = write_records(out, counted())
        about = source or About(
            ratings_sha256="",
            raters=[AboutRater(name=name) for name in sorted(raters)],
            aggregator=by,
            minimum=minimum,
            conversations=dict(sorted(Counter(conversations.values()).items())),
            versions={},
        )
        chosen = (
            {"golden rows that the aggregator was chosen on": golden_rows} if golden_rows else {}
        )
        write_about(
            out,
            about.model_copy(
                update={
                    "ratings_sha256": file_sha256(pending(out)),
                    "aggregator": by,
                    "minimum": minimum,
                    "dropped": dict(Counter(about.dropped) + dropped),
                    "notes": about.notes | chosen,
                    "versions": about.versions | {"regreason": __version__},
                }
            ),
        )
    return count, dropped
