"""The course of a training run as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from edge_mnv2 import html_report
from edge_mnv2.html_report import section, table
from edge_mnv2.svg_chart import STYLE, fragment, options

_MEASURES = (("top1", "top-1"), ("top5", "top-5"), ("rmse", "RMSE"), ("mae", "MAE"))
_POINTS = 200
"""More points than this are not told apart on a page."""


def page(name: str, history: Sequence[dict[str, Any]]) -> str:
    """The page of `history`, entries of `metrics.jsonl`; epochs of several courses follow one another."""
    import pygal

    step = max(1, -(-len(history) // _POINTS))
    shown = list(history[::step])
    places = [number * step + 1 for number in range(len(shown))]
    parts = [html_report.cards(_cards(history))]

    def chart(title: str, lines: dict[str, list[Any]]) -> None:
        drawn = pygal.XY(x_title="epoch", show_dots=len(shown) <= 30, dots_size=2, **options(height=320))
        for line, values in lines.items():
            drawn.add(line, [(x, y) for x, y in zip(places, values) if y is not None])
        parts.append(section(title, fragment(drawn, title)))

    chart("Loss", {"training": _of(shown, "train_loss"), "validation": [one["validation"]["loss"] for one in shown]})
    measured = {
        title: [one["validation"].get(key) for one in shown]
        for key, title in _MEASURES
        if key in shown[0]["validation"]
    }
    chart("Validation", measured)
    chart("Learning rate", {"rate": _of(shown, "learning_rate")})
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


def _of(history: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return [one[key] for one in history]


def _cards(history: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    best = [one for one in history if one["best"]][-1:]
    cards = [("epochs", str(len(history))), ("time", f"{sum(one['seconds'] for one in history):.0f} s")]
    for key, title in _MEASURES:
        if best and key in best[0]["validation"]:
            cards.append((f"best {title}", _number(key, best[0]["validation"][key])))
    return cards


def _number(key: str, value: float) -> str:
    return f"{value:.1%}" if key.startswith("top") else f"{value:.4g}"
