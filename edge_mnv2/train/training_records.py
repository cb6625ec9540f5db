"""What a run leaves for people and programs: JSON Lines of metrics, a page with curves, TensorBoard's log."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import html_report
from edge_mnv2.html_report import section, table
from edge_mnv2.installed import pip
from edge_mnv2.svg_chart import STYLE, fragment, options
from edge_mnv2.zoo.sidecar import write_files

METRICS, CURVES, TENSORBOARD = "metrics.jsonl", "curves.html", "tensorboard"

_MEASURES = (("top1", "top-1"), ("top5", "top-5"), ("rmse", "RMSE"), ("mae", "MAE"))
_PHASES = (("float", "Loss"), ("qat", "Distance to the float network, trained for integers"))

_POINTS = 200
"""More points than this cannot be distinguished on a page."""


class Records:
    """One entry an epoch. The files always hold the whole history, so a resumed run repeats no line and misses none."""

    def __init__(self, out: Path, history: list[dict[str, Any]], tensorboard: bool, say: Callable[[str], None]) -> None:
        self._out = out
        self.history = history
        self._writer = _tensorboard(out, say) if tensorboard else None

    def add(self, entry: dict[str, Any]) -> None:
        """Keep `entry` and write the files anew. Raises UsageError where they cannot be written."""
        self.history.append(entry)
        lines = "".join(json.dumps(one) + "\n" for one in self.history)
        text = page(self._out.name, self.history)
        write_files([(self._out / METRICS, lines.encode()), (self._out / CURVES, text.encode())])
        if self._writer is not None:
            step = len(self.history)
            measures = {f"validation/{name}": value for name, value in entry["validation"].items()}
            for name, value in {"train/loss": entry["train_loss"], **measures}.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _tensorboard(out: Path, say: Callable[[str], None]) -> Optional[Any]:
    if importlib.util.find_spec("tensorboard") is None:
        say(f"--tensorboard: no log, the package is not installed ({pip()} tensorboard)")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(out / TENSORBOARD))


def page(name: str, history: Sequence[dict[str, Any]]) -> str:
    """The page of `history`, entries of `metrics.jsonl`; epochs of several phases follow one another."""
    step = max(1, -(-len(history) // _POINTS))
    shown = [(place, one) for place, one in enumerate(history, 1) if (place - 1) % step == 0 or place == len(history)]
    parts = [html_report.cards(_cards(history))]
    for phase, title in _PHASES:
        of_phase = [(place, one) for place, one in shown if one["course"] == phase]
        lines = {"training": lambda one: one["train_loss"], "validation": lambda one: one["validation"]["loss"]}
        parts.append(_chart(title, of_phase, lines))
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
    header = ["phase", "epoch", "training loss", "validation loss", *(title for _, title in keys), "time"]
    parts.append(section("Epochs", table(header, rows, numeric=tuple(range(1, len(header)))), "* best so far"))
    return html_report.page(f"Training of {name}", "\n".join(parts), STYLE)


def _chart(
    title: str, entries: Sequence[tuple[int, dict[str, Any]]], lines: Mapping[str, Callable[[Any], float]]
) -> str:
    """A section with one line for each of `lines` over the epochs; empty without entries."""
    import pygal

    if not entries:
        return ""
    chart = pygal.XY(x_title="epoch", show_dots=len(entries) <= 30, dots_size=2, **options(height=320))
    for line, value in lines.items():
        chart.add(line, [(place, value(one)) for place, one in entries])
    return section(title, fragment(chart, title))


def _cards(history: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    best = [one for one in history if one["best"] and one["course"] == _PHASES[0][0]][-1:]
    cards = [("epochs", str(len(history))), ("time", f"{sum(one['seconds'] for one in history):.0f} s")]
    for key, title in _MEASURES:
        if best and key in best[0]["validation"]:
            cards.append((f"best {title}", _number(key, best[0]["validation"][key])))
    return cards


def _number(key: str, value: float) -> str:
    return f"{value:.1%}" if key.startswith("top") else f"{value:.4g}"
