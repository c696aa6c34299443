"""Writes the files of a comparison: one for programs, the others for readers."""

from __future__ import annotations

from pathlib import Path

from regreason_plugin.comparison.compare import Compared
from regreason_plugin.comparison.comparison import save
from regreason_plugin.core.whole_files import atomic_writer, together
from regreason_plugin.render.csv_file import to_csv
from regreason_plugin.render.figures import write_figures
from regreason_plugin.render.latex import to_latex
from regreason_plugin.render.markdown_page import to_markdown
from regreason_plugin.render.page import write_page


def write(compared: Compared, out: Path, *, spreadsheet_safe: bool = False) -> list[Path]:
    """Write all files of a comparison, or none.

    Args:
        compared: The comparison, and the documents on which its arms disagree.
        out: The folder that the files are written to.
        spreadsheet_safe: For the CSV file, see `csv_line`.

    Returns:
        The paths of the files, ``report.html`` first.
    """
    comparison = compared.comparison
    page = out / "report.html"
    numbers = out / "comparison.json"
    texts = {
        out / "comparison.md": to_markdown(comparison),
        out / "comparison.csv": to_csv(comparison, spreadsheet_safe=spreadsheet_safe),
        out / "settings.tex": to_latex(comparison),
    }
    with together():
        write_page(comparison, compared.disagreements, compared.disagreeing, page)
        save(comparison, numbers)
        for path, text in texts.items():
            with atomic_writer(path) as stream:
                # (A name from the command line may hold bytes that are not UTF-8.)
                stream.write(text.encode("utf-8", "backslashreplace"))
        return [page, numbers, *texts, *write_figures(comparison, out / "figures")]
