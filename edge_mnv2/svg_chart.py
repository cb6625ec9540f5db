"""How every chart of ours looks that pygal draws: inside a page of `html_report`, in its colours, light or dark."""

from __future__ import annotations

import re
from typing import Any

STYLE = """
:root{--c0:#4263eb;--c1:#e8590c;--c2:#2b8a3e;--c3:#9c36b5;--c4:#0b7285;--c5:#a61e4d}
@media(prefers-color-scheme:dark){:root{--c0:#748ffc;--c1:#ff922b;--c2:#51cf66;--c3:#da77f2;--c4:#3bc9db;--c5:#f783ac}}
svg{max-width:100%;height:auto;display:block}.pygal-chart .axis text.major{fill:var(--soft)!important}
.pygal-chart .axis .major.line{stroke:var(--line)!important}
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
