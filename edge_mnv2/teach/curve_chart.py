"""The learning curve as an SVG fragment, drawn by pygal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_mnv2.svg_chart import fragment, options


def curve_chart(points: Sequence[dict[str, Any]], regression: bool) -> str:
    """Held-out and taught accuracy (or error) over the number of pictures."""
    import pygal

    chart = pygal.XY(
        dots_size=4,
        x_title="pictures in all" if regression else "pictures a class",
        y_title="error (RMSE)" if regression else "accuracy",
        **options(height=340),
    )
    for name, key in (("held out", "held_out"), ("taught", "taught")):
        chart.add(name, [(point["pictures"], point[key]) for point in points])
    return fragment(chart, "Learning curve")
