"""The part of a profile's page that compares settings: sweep, sizes of frames, Edge TPU or CPU."""

from __future__ import annotations

from html import escape
from typing import Any

from edge_mnv2.html_report import section, table
from edge_mnv2.profiler import charts
from edge_mnv2.profiler.figures import number, scroll
from edge_mnv2.profiler.profiled import Profiled


def compared(found: Profiled, document: dict[str, Any]) -> str:
    """The settings of the sweep; "" without one."""
    swept = found.swept
    if swept is None:
        return ""
    ended = "until no doubt was left" if swept.settled else "until the time was over"
    note = (
        f"Goal: {document['goal']}, {document['goal_means']}. {swept.rounds} rounds, every setting once a round in a "
        f"new order, {ended}; who was clearly worse left early. Cost is the median ratio to the chosen setting."
    )
    ranked = sorted(swept.rows, key=lambda row: row.entrant.ratio)
    body = charts.bars(
        "Cost by setting",
        "cost over that of the chosen setting",
        [(_name(row, swept.rows), row.entrant.ratio) for row in ranked],
        ranked.index(swept.winner),
    )
    parts = [section("Settings compared", body, note)]
    if len(swept.rows) > 1:
        parts.append(
            section(
                "Throughput against latency",
                charts.against(swept.rows, swept.winner),
                "Along each line the number of workers grows. The largest dot is the chosen setting.",
            )
        )
    parts.append(scroll(_rows(ranked, found)))
    return "".join(parts)


def _rows(rows: list[Any], found: Profiled) -> str:
    energy = any(row.energies for row in rows)
    named = len({row.model for row in rows}) > 1
    header = [*(["model"] if named else []), "delegate", "threads", "workers", "size", "end to end", "p95", "FPS"]
    header += ["CPU ms", *(["mJ"] if energy else []), "cost", "rounds", ""]
    cells = []
    for row in rows:
        entry = row.document()
        size = "" if entry["width"] is None else f"{entry['width']}x{entry['height']}"
        chosen = found.swept is not None and row in (found.swept.winner, found.swept.best_size)
        cells.append(
            [
                *([escape(entry["model"])] if named else []),
                escape(entry["delegate"]),
                str(entry["threads"]),
                str(entry["workers"]),
                size,
                number(entry["end_to_end_ms"]["p50"], 2),
                number(entry["end_to_end_ms"]["p95"], 2),
                number(entry["fps"], 1),
                number(entry["cpu_ms_per_frame"], 2),
                *([number(entry["energy_mj"], 1)] if energy else []),
                f"{entry['ratio']:.3f}",
                str(entry["rounds"]),
                "chosen" if chosen else escape(entry["stopped"] or ""),
            ]
        )
    first = header.index("threads")
    return table(header, cells, numeric=(first, first + 1, *range(first + 3, len(header) - 1)))


def sizes(found: Profiled) -> str:
    """The winner on frames of several sizes; "" where none were compared."""
    swept = found.swept
    if swept is None or not swept.sizes:
        return ""
    note = "The chosen engines on frames of other sizes."
    if swept.best_size is None:
        note += " Measured on the test pattern: what a camera and its decoder take comes on top."
    return section("Capture sizes", _rows(swept.sizes, found), note)


def accelerator(found: Profiled) -> str:
    """Which of the two to use for what; "" where only one was measured."""
    if found.advice is None:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in found.advice.lines()[1:])
    return section("Edge TPU or CPU", f"<ul>{lines}</ul>", found.advice.lines()[0])


def _name(row: Any, rows: list[Any]) -> str:
    several = len({other.model for other in rows}) > 1
    return f"{row.model}: {row.setting.words}" if several else str(row.setting.words)
