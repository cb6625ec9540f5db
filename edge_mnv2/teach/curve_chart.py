"""The learning curve as an SVG fragment, drawn by pygal; colours are CSS variables of the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def curve_chart(points: Sequence[dict[str, Any]], regression: bool) -> str:
    """Held-out and taught accuracy (or error) over the number of pictures."""
    import pygal
    from pygal.style import Style

    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--soft)",
        foreground_strong="var(--ink)",
        foreground_subtle="var(--line)",
        colors=("var(--bar)", "var(--soft)"),
        font_family="inherit",
    )
    chart = pygal.XY(
        style=style,
        js=[],
        height=320,
        width=620,
        dots_size=4,
        legend_at_bottom=True,
        x_title="pictures in all" if regression else "pictures a class",
        y_title="error (RMSE)" if regression else "accuracy",
        range=None if regression else (0, 1),
        disable_xml_declaration=True,
        no_prefix=True,
        include_x_axis=True,
    )
    chart.add("held out", [(point["pictures"], point["held_out"]) for point in points])
    chart.add("taught", [(point["pictures"], point["taught"]) for point in points], stroke_style={"dasharray": "3, 4"})
    return chart.render(is_unicode=True)
