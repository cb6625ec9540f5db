"""The course of a training run as one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from edge_mnv2 import html_report
from edge_mnv2.html_report import section, table
from edge_mnv2.svg_chart import STYLE, fragment, options

_MEASURES = (("top1", "top-1"), ("top5", "top-5"), ("rmse", "RMSE"), ("mae", "MAE"))
_COURSES = (("float", "Loss"), ("qat", "Distance to the float network, trained for integers"))

_POINTS = 200
"""More points than this are not told apart on a page."""


def page(name: str, history: Sequence[dict[str, Any]]) -> str:
    """The page of `history`, entries of `metrics.jsonl`; epochs of several courses follow one another."""
    step = max(1, -(-len(history) // _POINTS))
    shown = [(place, one) for place, one in enumerate(history, 1) if (place - 1) % step == 0 or place == len(history)]
    parts = [html_report.cards(_cards(history))]
    for course, title in _COURSES:
        of_course = [(place, one) for place, one in shown if one["course"] == course]
        lines = {"training": lambda one: one["train_loss"], "validation": lambda one: one["validation"]["loss"]}
        parts.append(_chart(title, of_course, lines))
    measured = {
        title: (lambda one, key=key: one["validation"][key])
        for key, title in _MEASURES
        if key in history[0]["validation"]
    }
    parts.append(_chart("Validation", shown, measured))
    parts.append(_chart("Learning rate", shown, {"rate": lambda one: one["learning_rate"]}))
    keys = [(key, title) for key, title in _MEASURES if key in history[0]["validation"]]
    rows = [
        [
            escape(one["course"]),
            str(one["epoch"]) + (" *" if one["best"] else ""),
            f"{one['train_loss']:.4f}",
            f"{one['validation']['loss']:.4f}",
            *(_number(key, one["validation"][key]) for key, _ in keys),
            f"{one['seconds']:.1f} s",
        ]
        for one in history
    ]
    header = ["course", "epoch", "training loss", "validation loss", *(title for _, title in keys), "time"]
    parts.append(section("Epochs", table(header, rows, numeric=tuple(range(1, len(header)))), "* best so far"))
    return html_report.page(f"Training of {name}", "\n".join(parts), STYLE)


def _chart(
    title: str, entries: Sequence[tuple[int, dict[str, Any]]], lines: Mapping[str, Callable[[Any], float]]
) -> str:
    """A section with one line for each of `lines` over the epochs; nothing where there are none."""
    import pygal

    if not entries:
        return ""
    chart = pygal.XY(x_title="epoch", show_dots=len(entries) <= 30, dots_size=2, **options(height=320))
    for line, value in lines.items():
        chart.add(line, [(place, value(one)) for place, one in entries])
    return section(title, fragment(chart, title))


def _cards(history: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    best = [one for one in history if one["best"] and one["course"] == _COURSES[0][0]][-1:]
    cards = [("epochs", str(len(history))), ("time", f"{sum(one['seconds'] for one in history):.0f} s")]
    for key, title in _MEASURES:
        if best and key in best[0]["validation"]:
            cards.append((f"best {title}", _number(key, best[0]["validation"][key])))
    return cards


def _number(key: str, value: float) -> str:
    return f"{value:.1%}" if key.startswith("top") else f"{value:.4g}"
