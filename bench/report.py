"""bench/report: write the page of figures and its plots from the JSON lines of bench/compare.

What is written by hand in the page stays. Only what stands between `<!-- from: compare KIND -->` and
`<!-- end -->` is made anew, for the kinds that are in the files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reporting.figures import figures, table, unknown
from reporting.page import fill, sections
from versus.lines import read

PAGE = Path(__file__).resolve().parents[1] / "docs/performance.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="JSON lines, as bench/compare --out makes"
    )
    parser.add_argument("--out", type=Path, default=PAGE, help="the page (docs/performance.md)")
    parser.add_argument("--table", action="store_true", help="print all figures instead, and write nothing")
    options = parser.parse_args()
    try:
        lines = read(options.files)
        for kind, count in unknown(lines).items():
            _say(f"left out {count} lines of kind {kind}: this report does not know it")
        if options.table:
            print(table(figures(lines)))
            return 0
        made = sections(lines)
        page = fill(options.out.read_text(), {what: section.text for what, section in made.items()})
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    plots = options.out.parent / "performance"
    for section in made.values():
        for name, text in section.plots.items():
            plots.mkdir(exist_ok=True)
            (plots / name).write_text(text)
    options.out.write_text(page)
    _say(f"wrote {options.out}: {', '.join(made) or 'nothing is known'}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
