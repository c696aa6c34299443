"""The files of a comparison: one for a program, the others for readers."""

from __future__ import annotations

from pathlib import Path

from regreason_plugin.jsonl import atomic_writer
from regreason_plugin.report.compare import Compared
from regreason_plugin.report.comparison import save
from regreason_plugin.report.csv_file import to_csv
from regreason_plugin.report.figures import write_figures
from regreason_plugin.report.latex import to_latex
from regreason_plugin.report.markdown_page import to_markdown
from regreason_plugin.report.page import write_page


def write(compared: Compared, out: Path) -> list[Path]:
    """Write all files, each whole or not at all.

    Returns:
        Their paths, the page first.
    """
    comparison = compared.comparison
    page = out / "report.html"
    write_page(comparison, compared.disagreements, compared.disagreeing, page)
    numbers = out / "comparison.json"
    save(comparison, numbers)
    texts = {
        out / "comparison.md": to_markdown(comparison),
        out / "comparison.csv": to_csv(comparison),
        out / "settings.tex": to_latex(comparison),
    }
    for path, text in texts.items():
        with atomic_writer(path) as stream:
            stream.write(text.encode("utf-8"))
    return [page, numbers, *texts, *write_figures(comparison, out / "figures")]
