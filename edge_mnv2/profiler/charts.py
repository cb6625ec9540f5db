"""Charts of a profile as SVG fragments, drawn by pygal; colours are CSS variables of the page around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Optional

from edge_mnv2.profiler.burst import median
from edge_mnv2.profiler.operators import Operators
from edge_mnv2.profiler.soak import Point
from edge_mnv2.profiler.sweep import Row
from edge_mnv2.svg_chart import fragment, options

_BINS = 40
_TAIL = 0.99
"""The slowest hundredth would squeeze the rest of a distribution into a corner; it is named beside the chart."""

Pairs = list[tuple[float, float]]


def distribution(model: Sequence[int], end_to_end: Sequence[int]) -> str:
    """How often which time came, nanoseconds: the model alone and the whole way of a frame, in percent of each."""
    import pygal

    shown = [sorted(times)[: max(1, math.ceil(len(times) * _TAIL))] for times in (model, end_to_end)]
    low = min(times[0] for times in shown if times) / 1e6
    high = max(times[-1] for times in shown if times) / 1e6
    width = max((high - low) / _BINS, 1e-6)
    chart = pygal.Histogram(x_title="ms", y_title="% of the frames", **options(height=300))
    for name, times, all_times in zip(("model alone", "end to end"), shown, (model, end_to_end)):
        counts = [0] * (_BINS + 1)
        for nanoseconds in times:
            counts[int((nanoseconds / 1e6 - low) / width)] += 1
        counts[_BINS - 1] += counts.pop()
        bars = [
            (round(100 * count / len(all_times), 2), low + number * width, low + (number + 1) * width)
            for number, count in enumerate(counts)
            if count
        ]
        chart.add(name, bars, formatter=lambda bar: f"{bar[0]:.1f} % took {bar[1]:.2f} to {bar[2]:.2f} ms")
    return fragment(chart, "Latency distribution")


def against(rows: Sequence[Row], winner: Row) -> str:
    """Frames a second over latency: what more workers buy and cost. One series a delegate and number of threads."""
    import pygal

    chart = pygal.XY(
        stroke=True, dots_size=5, x_title="end to end, ms (median)", y_title="frames a second", **options(height=340)
    )
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.burst.end_to_end and row.fps is not None:
            device = row.setting.device
            name = f"{row.setting.threads} threads" if device == "CPU" else device
            name = "1 thread" if name == "1 threads" else name
            varying = [
                getattr(row, key) for key in ("model", "runtime") if len({getattr(one, key) for one in rows}) > 1
            ]
            groups.setdefault(", ".join([*varying, name]), []).append(row)
    for name, members in groups.items():
        points = [
            {
                "value": (round(_median_ms(row), 3), round(row.fps or 0, 2)),
                "label": f"{row.setting.words}{' (chosen)' if row is winner else ''}",
                **({"node": {"r": 9}} if row is winner else {}),
            }
            for row in sorted(members, key=lambda row: row.setting.workers)
        ]
        chart.add(name, points, formatter=lambda point: f"{point[0]:.2f} ms, {point[1]:.1f} FPS")
    return fragment(chart, "Throughput against latency")


def bars(title: str, unit: str, values: Sequence[tuple[str, Optional[float]]], chosen: Optional[int] = None) -> str:
    """One horizontal bar a value; the `chosen` one stands out."""
    import pygal

    chart = pygal.HorizontalBar(
        show_legend=False, x_title=unit, print_values=True, **options(height=70 + 34 * len(values))
    )
    chart.x_labels = [name for name, _ in reversed(values)]
    last = len(values) - 1
    marked = [
        {"value": value, "color": "var(--c1)" if last - number == chosen else "var(--c0)"}
        for number, (_, value) in enumerate(reversed(values))
    ]
    chart.add("", marked, formatter=lambda value: "" if value is None else f"{value:.2f}")
    return fragment(chart, title)


def operators(measured: Operators) -> str:
    """Time of each operator in the order of the graph."""
    import pygal

    chart = pygal.StackedBar(
        y_title="ms", x_title="operators in the order of the graph", show_x_labels=False, **options(height=300)
    )
    kinds = [kind for kind, _, _ in measured.by_kind()]
    for kind in kinds:
        chart.add(
            kind,
            [
                {"value": round(part.ms, 4), "label": f"{part.index} {part.operator} {part.detail}"}
                if part.operator == kind
                else None
                for part in measured.parts
            ],
            formatter=lambda value: "" if value is None else f"{value:.3f} ms",
        )
    return fragment(chart, "Time by operator")


def soak_rate(points: Sequence[Point]) -> str:
    """Frames a second over time; where the board held itself back the dots are large."""
    import pygal

    unit, scale = _time_unit(points)
    chart = pygal.XY(
        x_title=unit,
        y_title="frames a second",
        show_dots=True,
        dots_size=1.5,
        include_x_axis=True,
        **options(height=300),
    )
    chart.add("FPS", _pairs(points, scale, lambda point: point.fps), formatter=_hover("FPS", unit))
    held = [point for point in points if point.throttled]
    if held:
        chart.add(
            "throttled",
            [
                {"value": (round(point.t_s / scale, 3), round(point.fps, 2)), "label": ", ".join(point.throttled or ())}
                for point in held
            ],
            stroke=False,
            dots_size=5,
            formatter=_hover("FPS", unit),
        )
    return fragment(chart, "Frame rate over time")


def soak_curve(points: Sequence[Point], title: str, unit_of_value: str, value: str) -> str:
    """The field `value` of the points over time, "" where it is not known."""
    import pygal

    unit, scale = _time_unit(points)
    pairs = _pairs(points, scale, lambda point: getattr(point, value))
    if not pairs:
        return ""
    chart = pygal.XY(
        x_title=unit, y_title=unit_of_value, show_dots=True, dots_size=1.5, show_legend=False, **options(height=220)
    )
    chart.add(unit_of_value, pairs, formatter=_hover(unit_of_value, unit))
    return fragment(chart, title)


def _pairs(points: Sequence[Point], scale: float, value: Callable[[Point], Optional[float]]) -> Pairs:
    return [
        (round(point.t_s / scale, 3), round(float(known), 2)) for point in points if (known := value(point)) is not None
    ]


def _time_unit(points: Sequence[Point]) -> tuple[str, float]:
    longest = points[-1].t_s if points else 0.0
    return ("hours", 3600.0) if longest > 3 * 3600 else ("minutes", 60.0) if longest > 180 else ("seconds", 1.0)


def _hover(what: str, unit: str) -> Any:
    return lambda point: "" if point is None else f"{point[1]:g} {what} after {point[0]:g} {unit}"


def _median_ms(row: Row) -> float:
    return (median(row.burst.end_to_end) or 0) / 1e6
