"""A confusion matrix and a sheet of pictures as HTML, for the pages of `evaluate` and `teach`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from typing import NamedTuple

STYLE = """
.matrix td{text-align:center;border:1px solid var(--line);min-width:2.2rem}
.matrix th.up{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left}.pictures{display:grid;
grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.9rem}figure{margin:0}figure img{width:100%;
border-radius:.4rem;display:block}figcaption{font-size:.82rem;overflow-wrap:anywhere}figcaption b{color:var(--ink)}
"""
"""The page's further CSS."""


class Figure(NamedTuple):
    """A picture with its file's name, the model's answer and what is true, as plain text."""

    name: str
    answer: str
    truth: str
    jpeg: bytes


def sheet(figures: Iterable[Figure]) -> str:
    """The pictures side by side, the answer in bold above the truth."""
    shown = "".join(
        f'<figure><img alt="{escape(one.name)}" src="data:image/jpeg;base64,{base64.b64encode(one.jpeg).decode()}">'
        f"<figcaption><b>{escape(one.answer)}</b><br>true: {escape(one.truth)}<br>{escape(one.name)}</figcaption>"
        "</figure>"
        for one in figures
    )
    return f'<div class="pictures">{shown}</div>'


def matrix(rows: Mapping[int, str], columns: Mapping[int, str], cells: Mapping[tuple[int, int], int]) -> str:
    """How many pictures of each true class (`rows`: index → name) were answered with which of `columns`."""
    most = max(cells.values())
    head = "".join(f'<th class="up" scope="col">{escape(name)}</th>' for name in columns.values())
    lines = []
    for truth, name in rows.items():
        shown = []
        for predicted in columns:
            count = cells.get((truth, predicted), 0)
            colour = "64,192,87" if truth == predicted else "250,82,82"
            style = f' style="background:rgba({colour},{0.15 + 0.6 * count / most:.2f})"' if count else ""
            shown.append(f"<td{style}>{count or ''}</td>")
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(shown)}</tr>')
    return f'<table class="matrix"><tr><th></th>{head}</tr>{"".join(lines)}</table>'
