"""Error rates of the comparison and the gate, on simulated models with known true differences.

    python tests/bench/operating_characteristics.py [--quick] [--only NAME] [--out DIR] [--write]

Every cell of the tables simulates one design. For each page (one simulated comparison) it draws the
models' answers, runs the project's code from the answers to the words of the verdict, and counts
the errors. The random numbers of a cell depend on its name only. Finished cells are saved in
DIR/cells_SCALE.jsonl and are not run again. ``--write`` puts the tables into
docs/explanation/operating_characteristics.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.characteristic_cells import CELLS
from helpers.characteristic_tables import tables

DOCS = Path(__file__).parents[2] / "docs" / "explanation" / "operating_characteristics.md"
QUICK = 0.04


def main() -> None:
    """Run the cells that are not finished, then print the tables or write them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="few pages per cell, to check that everything runs"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of each cell's pages")
    parser.add_argument("--only", default="", help="run only cells whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/operating_characteristics"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no-tables", action="store_true", help="run cells, print no tables")
    parser.add_argument("--write", action="store_true", help="write the tables into the docs page")
    args = parser.parse_args()
    scale = QUICK if args.quick else args.scale
    results = run(args.out / f"cells_{scale:g}.jsonl", args, scale)
    if args.no_tables:
        return
    by_title = tables(results)
    for title, text in by_title.items():
        print(f"\n{title}\n\n{text}")
    if args.write:
        write(DOCS, by_title)


def run(file: Path, args: argparse.Namespace, scale: float) -> dict[str, Any]:
    """The results of the chosen cells by name; cells whose results are in the file are not run."""
    chosen = [cell for cell in CELLS if args.only in cell.name]
    results = {}
    if file.is_file():
        lines = (json.loads(line) for line in file.read_text().splitlines())
        results = {line["cell"]: line for line in lines}
    left = [cell for cell in chosen if cell.name not in results]
    work = sum(cell.work for cell in left)
    done, begin = 0.0, time.perf_counter()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream, ProcessPoolExecutor(args.processes) as pool:
        names = [cell.name for cell in left]
        for cell, result in zip(left, pool.map(_run, names, [scale] * len(left)), strict=True):
            results[cell.name] = result
            stream.write(json.dumps(result) + "\n")
            stream.flush()
            done += cell.work
            spent = time.perf_counter() - begin
            print(
                f"{cell.name}: {result['seconds']:.0f} s; left: {spent * (work / done - 1):.0f} s",
                file=sys.stderr,
            )
    return {cell.name: results[cell.name] for cell in chosen}


def _run(name: str, scale: float) -> dict[str, Any]:
    (cell,) = (one for one in CELLS if one.name == name)
    begin = time.perf_counter()
    counts = cell.run([zlib.crc32(cell.name.encode())], max(int(cell.pages * scale), 8))
    return {
        "cell": cell.name,
        "seconds": round(time.perf_counter() - begin, 1),
        "counts": counts,
    }


def write(page: Path, by_title: dict[str, str]) -> None:
    """Replace the text between the two marks of each table."""
    text = page.read_text()
    for title, table in by_title.items():
        begin, end = f"<!-- {title} -->\n", f"<!-- end of {title} -->\n"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        if rest:
            text = f"{before}{begin}\n{table}\n\n{end}{after}"
    page.write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
