"""The tables of docs/quadlet.md, written from `unitfleet.quadlet_keys`.

`python -m harness.quadlet_table` (with `tests` on the path) writes them anew.
"""

from __future__ import annotations

from pathlib import Path

from unitfleet.quadlet_keys import KEYS, UNENFORCED, Key

PAGE = Path(__file__).parents[2] / "docs" / "quadlet.md"

_BETWEEN = "<!-- {} begins: written by tests/harness/quadlet_table.py -->\n{}<!-- {} ends -->\n"


def table(group: str) -> str:
    """Return the table of one section's keys."""
    lines = ["| key | podman | takes | here | what it is here |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(_row(group, key) for key in KEYS[group].values())]) + "\n"


def _row(group: str, key: Key) -> str:
    handling = str(key.handling)
    if group == "Container" and key.name in UNENFORCED:
        handling = f"refused so far ({handling})"
    podman = f"`{key.podman}`" if "-" in key.podman[:1] else key.podman
    words = [f"`{key.name}`", podman, str(key.takes), handling, key.ours]
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def rewritten(page: str) -> str:
    """Return the page with its tables as they are to be."""
    for group in KEYS:
        before, begin, rest = page.partition(f"<!-- {group} begins")
        _, end, after = rest.partition(f"<!-- {group} ends -->\n")
        if begin and end:
            page = before + _BETWEEN.format(group, table(group), group) + after
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
