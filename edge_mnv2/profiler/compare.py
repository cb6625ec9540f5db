"""Profiles side by side: boards, models and settings from `profile --json`, with accuracy from `evaluate --json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.html_report import number, page, plural, scroll, section, table
from edge_mnv2.svg_chart import STYLE, fragment, options

_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("model_ms", "MODEL MS", 2),
    ("end_to_end_ms", "FRAME MS", 2),
    ("end_to_end_p95_ms", "P95", 2),
    ("fps", "FPS", 1),
    ("cpu_ms", "CPU MS", 1),
    ("energy_mj", "MJ", 1),
    ("rss_mb", "MB", 0),
    ("max_temp_c", "°C", 0),
    ("top1", "TOP-1", 3),
    ("ratio", "TIMES", 2),
)
"""Field of the document, heading and digits of each figure that is compared."""

MEANINGS = (
    "MODEL MS: the model alone. FRAME MS, P95: a frame's whole way, median and 95th percentile. CPU MS and MJ: CPU "
    "time and energy a frame. TIMES: the median frame over that of the quickest."
)
_STAGES = ("preprocess", "inference", "postprocess")


@dataclass(frozen=True)
class Compared:
    """One profile: its letter in tables and charts, its file, and the document that `profile --json` wrote."""

    letter: str
    file: str
    document: dict[str, Any]
    top1: Optional[float] = None

    @property
    def setting(self) -> str:
        """What ran, in words."""
        settings = self.document["settings"]
        counts = f"{plural(settings['threads'], 'thread')}, {plural(settings['workers'], 'worker')}"
        return f"{settings['model']} on {settings['runtime']}, {settings['delegate']}, {counts}, {settings['source']}"

    def figures(self) -> dict[str, Any]:
        """What is compared; None where it was not measured."""
        document = self.document
        return {
            "model_ms": document["model_ms"]["p50"],
            "end_to_end_ms": document["end_to_end_ms"]["p50"],
            "end_to_end_p95_ms": document["end_to_end_ms"]["p95"],
            "fps": document["fps"],
            "cpu_ms": document.get("cpu", {}).get("ms_per_frame"),
            "energy_mj": document.get("energy_mj"),
            "rss_mb": document.get("memory", {}).get("rss_mb"),
            "max_temp_c": document.get("health", {}).get("max_temp_c"),
            "throttled": document.get("health", {}).get("throttled"),
            "top1": self.top1,
        }


class Comparison:
    """Several profiles. Raises UsageError where a file is neither a profile nor an evaluation, or only one is given."""

    def __init__(self, files: Sequence[Path]) -> None:
        documents = [(file, _read(file)) for file in files]
        accuracy = {document["model"]: document["top1"] for _, document in documents if "top1" in document}
        profiles = [(file, document) for file, document in documents if "model_ms" in document]
        if len(profiles) < 2:
            raise UsageError(
                f"profile compare needs two profiles at least, and got {len(profiles)}",
                hint="files that `edge-mnv2 profile --json > FILE.json` wrote",
            )
        self.profiles = [
            Compared(_letter(position), str(file), document, accuracy.get(document["settings"]["model"]))
            for position, (file, document) in enumerate(profiles)
        ]
        models = {one.document["settings"]["model"] for one in self.profiles}
        self.notes = [
            f"{one}: an accuracy of a model that no profile ran" for one in sorted(set(accuracy) - models, key=str)
        ]

    def document(self) -> dict[str, Any]:
        """The JSON document; `ratio` is the median time of a frame over that of the quickest."""
        rows = []
        times = [one.document["end_to_end_ms"]["p50"] for one in self.profiles]
        least = min((time for time in times if time), default=None)
        for one, time in zip(self.profiles, times):
            ratio = round(time / least, 3) if time and least else None
            head = {"file": one.file, "board": one.document["board"], **one.document["settings"]}
            rows.append({**head, **one.figures(), "stages_ms": one.document["stages_ms"], "ratio": ratio})
        best = {
            "latency": _best(rows, "end_to_end_ms", min),
            "throughput": _best(rows, "fps", max),
            "energy": _best(rows, "energy_mj", min),
            "accuracy": _best(rows, "top1", max),
        }
        return {"profiles": rows, "best": best, "notes": self.notes}

    def legend(self) -> list[tuple[str, str]]:
        """(letter and file, what ran where) of each profile."""
        return [
            (f"{one.letter}  {one.file}", f"{one.document['board'] or 'unknown board'}: {one.setting}")
            for one in self.profiles
        ]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """(header, rows) of the table; a column without any figure is left out."""
        rows = self.document()["profiles"]
        columns = [column for column in _COLUMNS if any(row[column[0]] is not None for row in rows)]
        header = ["", *(heading for _, heading, _ in columns)]
        return header, [
            [one.letter, *(number(row[key], digits) for key, _, digits in columns)]
            for one, row in zip(self.profiles, rows)
        ]


def render(comparison: Comparison) -> str:
    """The page as HTML."""
    header, cells = comparison.cells()
    rows = comparison.document()["profiles"]
    legend = "".join(
        f"<li><b>{escape(name)}</b>: {escape(what)}{_throttled(row)}</li>"
        for (name, what), row in zip(comparison.legend(), rows)
    )
    parts = [
        f"<ul>{legend}</ul>{''.join(f'<p class=soft>{escape(note)}</p>' for note in comparison.notes)}",
        section("Side by side", table(header, cells, numeric=range(1, len(header))), MEANINGS),
        section("A frame's way", _stage_chart(comparison), "Median of each stage, waiting for a frame not included."),
    ]
    if any(row["top1"] is not None for row in rows):
        note = "To the left is quicker, up is more accurate. Accuracy comes from `evaluate --json` of the same model."
        parts.append(section("Accuracy against time", _accuracy_chart(comparison), note))
    title = f"{len(rows)} profiles side by side"
    style = "ul{padding-left:1.2rem}li{overflow-wrap:anywhere}th,td{white-space:nowrap}svg{min-width:40rem}"
    return page(title, "\n".join(parts), STYLE + style)


def _throttled(row: dict[str, Any]) -> str:
    return f" (throttled: {escape(', '.join(row['throttled']))})" if row["throttled"] else ""


def _stage_chart(comparison: Comparison) -> str:
    import pygal

    height = 110 + 34 * len(comparison.profiles)
    chart = pygal.HorizontalStackedBar(x_title="ms", **options(height=height))
    ordered = comparison.profiles[::-1]
    chart.x_labels = [one.letter for one in ordered]
    for stage in _STAGES:
        chart.add(
            stage,
            [one.document["stages_ms"][stage]["p50"] for one in ordered],
            formatter=lambda value: "" if value is None else f"{value:.2f} ms",
        )
    return fragment(chart, "Stages of a frame")


def _accuracy_chart(comparison: Comparison) -> str:
    import pygal

    chart = pygal.XY(
        stroke=False, dots_size=6, x_title="a frame, ms (median)", y_title="top-1, %", **options(height=320)
    )
    for one in comparison.profiles:
        if one.top1 is not None:
            point = (round(one.document["end_to_end_ms"]["p50"], 3), round(one.top1 * 100, 1))
            chart.add(one.letter, [point], formatter=lambda point: f"{point[0]:.2f} ms, {point[1]:.1f} %")
    return scroll(fragment(chart, "Accuracy against time"))


def _best(rows: Iterable[dict[str, Any]], key: str, choose: Any) -> Optional[str]:
    known = [row for row in rows if row[key] is not None]
    return str(choose(known, key=lambda row: row[key])["file"]) if known else None


def _letter(position: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    before, rest = divmod(position, 26)
    return (_letter(before - 1) if before else "") + chr(ord("A") + rest)


def _read(file: Path) -> dict[str, Any]:
    """The document of `profile --json` or `evaluate --json` in `file`. Raises UsageError."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise UsageError(
            f"{file} is no JSON document", hint="`edge-mnv2 profile --json > FILE.json` writes one"
        ) from None
    profile = ("board", "settings", "model_ms", "end_to_end_ms", "stages_ms", "fps")
    if isinstance(document, dict) and (all(key in document for key in profile) or {"model", "top1"} <= set(document)):
        return document
    raise UsageError(f"{file} is neither of `profile --json` nor of `evaluate --json`")
