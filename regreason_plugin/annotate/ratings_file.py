"""Reading the scores of a ratings file, and rewriting the file with another aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from regreason_plugin.annotate.aggregate import aggregate_rows
from regreason_plugin.annotate.provenance import (
    About,
    RaterProvenance,
    read_provenance,
    write_about,
)
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
    """The scores of a ratings file, read in one pass.

    Attributes:
        table: The scores of all rows.
        enough: The scores of the rows that have enough usable ratings.
        settings: The setting (dataset, axis) of every (id, axis).
        raters: The raters' names, sorted.
    """

    table: ScoreTable
    enough: ScoreTable
    settings: dict[tuple[str, str], Setting]
    raters: list[str]


def read_rated(path: Path) -> Iterator[Rated]:
    """Stream the rows of a ratings file, whether or not they have a label yet.

    Raises:
        UserError: A line is not a valid row, or two lines have the same id and axis.
    """
    seen: dict[tuple[str, str], int] = {}
    for line, value in read_objects(path):
        row = validate(Rating if "label" in value else Rated, value, path, line, RATEABLE)
        check_unique(seen, value, path, line)
        yield row


def read_scores(path: Path, minimum: int = 1, on_row: OnRow = lambda: None) -> Scores:
    """Read the scores of a ratings file.

    Args:
        path: The ratings file.
        minimum: Number of usable ratings with which a row enters `Scores.enough`.
        on_row: Called after each row.

    Raises:
        UserError: See `read_rated`; also if the file has no usable rating.
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
            "no rating has both a score and an explanation, so there is nothing to aggregate",
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
    """Write a ratings file anew, with labels and explanations from another aggregator.

    The ``.about.json`` file of the source, if there is one, is copied beside the new file with
    the new aggregator's name in it; otherwise a new one is written.

    Args:
        ratings: The ratings file to read.
        sha256: SHA-256 of that file's bytes, in hexadecimal digits.
        out: The ratings file to write.
        by: The aggregator, one of `aggregate.AGGREGATORS`.
        minimum: Number of usable ratings that a row needs.
        golden_rows: Number of golden rows on which the aggregator was chosen; 0 if it was not
            chosen on a golden set.
        on_row: Called after each row that is written.

    Returns:
        The number of rows written, and the number of rows dropped by reason.

    Raises:
        UserError: See `read_rated` and `aggregate_rows`; also if no row is left. Nothing is
            written then.
    """
    check_not_input(out, [ratings])
    if out.suffix == ".gz":
        raise UserError(
            "ratings are written as plain text; give the file a name that ends in .jsonl", path=out
        )
    source = read_provenance(ratings, sha256)
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
            raise UserError(
                f"no row has the {minimum} usable ratings that --minimum asks for; lower it",
                path=ratings,
            )

    with together():
        count = write_records(out, counted())
        about = source or About(
            ratings_sha256="",
            raters=[RaterProvenance(name=name) for name in sorted(raters)],
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
