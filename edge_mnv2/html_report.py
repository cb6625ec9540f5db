"""What every HTML report of ours has in common: one file that opens anywhere, light or dark, with no script and nothing
fetched. Cells, titles and contents are HTML: callers escape what they did not write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.paths import atomic_write

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root{color-scheme:light dark;--ink:#212529;--soft:#5c636a;--line:#dee2e6;--paper:#fff;--card:#f8f9fa;--bar:#4c6ef5;
--edge:#0003}
@media(prefers-color-scheme:dark){:root{--ink:#e9ecef;--soft:#adb5bd;--line:#3d4349;--paper:#16191d;--card:#212529;
--bar:#748ffc;--edge:#fff3}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,"DejaVu Sans",sans-serif;color:var(--ink);background:var(--paper);
max-width:70rem;margin:0 auto;padding:1.5rem}h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p.soft,figcaption{color:var(--soft);margin:.2rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.8rem;margin:1.2rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem 1rem;min-width:9rem}
.card b{display:block;font-size:1.45rem}
.scroll{overflow-x:auto;background:linear-gradient(90deg,var(--paper) 50%,transparent) 0/2rem,
linear-gradient(270deg,var(--paper) 50%,transparent) 100%/2rem,linear-gradient(90deg,var(--edge),transparent) 0/.7rem,
linear-gradient(270deg,var(--edge),transparent) 100%/.7rem;background-repeat:no-repeat;
background-attachment:local,local,scroll,scroll}table{border-collapse:collapse;font-size:.9rem}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left}td.n,th.n{text-align:right;
font-variant-numeric:tabular-nums}summary{cursor:pointer;color:var(--soft)}
"""


def page(title: str, content: str, style: str = "") -> str:
    """The document around `content`; `title` is plain text, `style` further CSS."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}{style}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{content}\n</body></html>\n"
    )


def write_page(target: Path, text: str, option: str = "--report") -> None:
    """Write a page, a picture or a document to `target`, whole or not at all.

    Raises UsageError, which names the `option` that asked for it.
    """
    try:
        with atomic_write(target, "w") as handle:
            handle.write(text)
    except OSError as error:
        raise UsageError(f"{option} {target} cannot be written: {error.strerror or error}") from error


def section(title: str, content: str, note: str = "") -> str:
    """A heading with its content; `note` is a line of plain text below the heading."""
    soft = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f"<h2>{escape(title)}</h2>{soft}{scroll(content)}"


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Boxes with a name (plain text) and a large figure (HTML)."""
    shown = "".join(f'<div class="card">{escape(name)}<b>{figure}</b></div>' for name, figure in values)
    return f'<div class="cards">{shown}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """Rows under a header; the columns in `numeric` end together."""

    def line(cells: Sequence[str], tag: str) -> str:
        marks = ['class="n"' if column in numeric else "" for column in range(len(cells))]
        return "<tr>" + "".join(f"<{tag} {mark}>{cell}</{tag}>" for cell, mark in zip(cells, marks)) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def scroll(content: str) -> str:
    """A box that scrolls sideways when its content is too wide; a shade at an edge says that there is more."""
    return f'<div class="scroll">{content}</div>'


def number(value: Optional[float], digits: int, unit: str = "") -> str:
    """`value` with so many digits and its unit, or a dash where it is unknown."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def date_text(utc: str) -> str:
    """`2026-11-29 10:00 UTC` of an ISO date with a time in UTC."""
    return f"{utc[:16].replace('T', ' ')} UTC"


def plural(count: int, noun: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} {noun}{'s' if count != 1 else ''}"
