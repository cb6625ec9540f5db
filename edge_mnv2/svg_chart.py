"""Charts as SVG fragments inside a page of `html_report`, in its colours, light or dark: how those look that pygal
draws, and what `evaluate` and `teach` draw: reliability, scatter, a confusion matrix, a sheet of pictures.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

STYLE = """
:root{--c0:#4263eb;--c1:#e8590c;--c2:#2b8a3e;--c3:#9c36b5;--c4:#0b7285;--c5:#a61e4d}
@media(prefers-color-scheme:dark){:root{--c0:#748ffc;--c1:#ff922b;--c2:#51cf66;--c3:#da77f2;--c4:#3bc9db;--c5:#f783ac}}
svg{max-width:100%;height:auto;display:block}.pygal-chart .axis text.major{fill:var(--soft)!important}
.pygal-chart .axis .major.line{stroke:var(--line)!important}
.matrix td{text-align:center;border:1px solid var(--line);min-width:2.2rem}
.matrix th.up{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left}.pictures{display:grid;
grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.9rem}figure{margin:0}figure img{width:100%;
border-radius:.4rem;display:block}figcaption{font-size:.82rem;overflow-wrap:anywhere}figcaption b{color:var(--ink)}
"""


def options(height: int) -> dict[str, Any]:
    """Arguments for every chart of pygal; colours are the variables of `STYLE` and of the page."""
    from pygal.style import Style

    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--soft)",
        foreground_strong="var(--ink)",
        foreground_subtle="var(--line)",
        guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)",
        guide_stroke_dasharray="1,0",
        major_guide_stroke_dasharray="1,0",
        colors=tuple(f"var(--c{number})" for number in range(6)),
        value_colors=("var(--ink)",) * 6,
        font_family="inherit",
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=13,
        title_font_size=13,
        value_font_size=12,
        opacity=".65",
        transition="0s",
    )
    return {
        "style": style,
        # No script: what it would show on hovering is in the titles, and nothing is fetched.
        "js": (),
        "width": 860,
        "height": height,
        "legend_at_bottom": True,
        "legend_box_size": 12,
        "margin": 12,
        "show_minor_x_labels": True,
        "max_scale": 9,
        "disable_xml_declaration": True,
    }


def fragment(chart: Any, title: str) -> str:
    """`chart` as SVG for inside a page: no script, and what it would show on hovering as titles."""
    text: str = chart.render(is_unicode=True)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    # What pygal's script would show in a box, a browser shows by itself when it is a title.
    text = re.sub(r'<desc class="(?:x|y)[^"]*">[^<]*</desc>', "", text)
    text = re.sub(r'<desc class="value">(.*?)</desc>(?:<desc class="x_label">(.*?)</desc>)?', _hover, text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return text


def _hover(match: re.Match[str]) -> str:
    label = f": {match[2]}" if match[2] else ""
    return f"<title>{match[1]}{label}</title>"


_SIZE, _LEFT, _BOTTOM = 300, 60, 36


def reliability(bins: Sequence[dict[str, Any]]) -> str:
    """Accuracy of each bin of confidence as bars; on the diagonal confidence and accuracy are the same."""
    width = _SIZE / len(bins)
    usual = max(1.0, sum(entry["images"] for entry in bins) / len(bins))
    bars = []
    for number, entry in enumerate(bins):
        if entry["accuracy"] is None:
            continue
        height = _SIZE * entry["accuracy"]
        opacity = min(1.0, 0.25 + 0.75 * entry["images"] / usual)
        tip = (
            f"confidence {entry['low']:.2f} to {entry['high']:.2f}: {entry['images']} pictures, "
            f"accuracy {entry['accuracy']:.1%}, mean confidence {entry['confidence']:.1%}"
        )
        bars.append(
            f'<rect x="{_LEFT + number * width + 1:.1f}" y="{_SIZE - height:.1f}" width="{width - 2:.1f}" '
            f'height="{max(height, 1):.1f}" class="bar" fill-opacity="{opacity:.2f}"><title>{tip}</title></rect>'
        )
    diagonal = f'<path d="M{_LEFT} {_SIZE}L{_LEFT + _SIZE} 0" class="guide"/>'
    return _frame("".join(bars) + diagonal, (0, 1), (0, 1), "confidence", "accuracy", "Accuracy by confidence")


def scatter(truth: Sequence[float], predicted: Sequence[float], unit: str = "") -> str:
    """Predicted against true values; on the diagonal they are the same."""
    pairs = [(x, y) for x, y in zip(truth, predicted) if math.isfinite(y)]
    low, high = min(map(min, pairs), default=0.0), max(map(max, pairs), default=0.0)
    low, high = _rounded_range(low, high)

    def at(value: float) -> float:
        return _SIZE * (value - low) / (high - low)

    points = "".join(
        f'<circle cx="{_LEFT + at(x):.1f}" cy="{_SIZE - at(y):.1f}" r="3" class="point">'
        f"<title>true {x:.4g}, predicted {y:.4g}</title></circle>"
        for x, y in pairs
    )
    diagonal = f'<path d="M{_LEFT} {_SIZE}L{_LEFT + _SIZE} 0" class="guide"/>'
    suffix = f" ({unit})" if unit else ""
    return _frame(
        diagonal + points,
        (low, high),
        (low, high),
        "true" + suffix,
        "predicted" + suffix,
        "Predicted against true values",
    )


def _rounded_range(low: float, high: float) -> tuple[float, float]:
    """A range around low..high whose quarters are round numbers."""
    spread = max(high - low, abs(high) * 1e-6, 1e-9)
    step = 10.0 ** math.floor(math.log10(spread / 4))
    for factor in (1, 2, 2.5, 5, 10, 20):
        start = math.floor(low / (step * factor)) * step * factor
        if start + 4 * step * factor >= high:
            break
    return start, start + 4 * step * factor


def _frame(
    content: str, across: tuple[float, float], up: tuple[float, float], x_name: str, y_name: str, title: str
) -> str:
    ticks = []
    for step in range(5):
        share = step / 4
        x, y = _LEFT + _SIZE * share, _SIZE * (1 - share)
        below, beside = (low + (high - low) * share or 0.0 for low, high in (across, up))
        ticks.append(
            f'<path d="M{_LEFT} {y}h{_SIZE}" class="grid"/>'
            f'<text x="{x}" y="{_SIZE + 15}" text-anchor="middle">{below:.4g}</text>'
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{beside:.4g}</text>'
        )
    return (
        f'<svg viewBox="0 -10 {_LEFT + _SIZE + 14} {_SIZE + _BOTTOM + 10}" role="img" aria-label="{title}">'
        f'{"".join(ticks)}{content}<path d="M{_LEFT} 0v{_SIZE}h{_SIZE}" class="axis"/>'
        f'<text x="{_LEFT + _SIZE / 2}" y="{_SIZE + 31}" text-anchor="middle">{x_name}</text>'
        f'<text x="11" y="{_SIZE / 2}" text-anchor="middle" transform="rotate(-90 11 {_SIZE / 2})">{y_name}</text>'
        "</svg>"
    )


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
