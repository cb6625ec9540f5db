"""What `compare.py` reports: a row a peer and number of threads, as JSON, as a table and as a chart."""

from __future__ import annotations

import csv
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from compared import OURS, REFERENCE, Peer, installed_mb


def accuracy(rows: dict[str, dict[str, int]], peers: list[Peer], photos: Path) -> dict[str, dict[str, float]]:
    """Of each peer: `top1` of the photos, and `same`, how often it names what LiteRT names."""
    with (photos / "labels.csv").open(newline="") as handle:
        truth = {row["file"]: int(row["class_index"]) for row in csv.DictReader(handle)}
    found = {}
    for peer in (peer for peer in peers if peer.name in rows):
        # Google's models have a background row first.
        shift = 1 if peer.model == "quant" else 0
        mine = {name: row - shift for name, row in rows[peer.name].items() if name in truth}
        found[peer.name] = {"top1": sum(row == truth[name] for name, row in mine.items()) / max(1, len(mine))}
        reference = rows.get(f"{REFERENCE} (quant)" if shift else REFERENCE)
        if reference:
            same = sum(row + shift == reference.get(name) for name, row in mine.items())
            found[peer.name]["same"] = same / max(1, len(mine))
    return found


def summary(peers: list[Peer], rounds: Any, pythons: dict[str, Path], failed: dict[str, str]) -> dict[str, Any]:
    rows = []
    for peer in peers:
        ours = f"{OURS} (quant)" if peer.model == "quant" else OURS
        for threads, got in rounds[peer.name].items():
            row: dict[str, Any] = {"peer": peer.name, "model": peer.model, "threads": int(threads)}
            for key in got[0]:
                row[key] = round(statistics.median(each[key] for each in got), 3)
            beside = rounds.get(ours, {}).get(threads, [])
            for key in ("fps", "start_s"):
                ratios = [mine[key] / theirs[key] for mine, theirs in zip(beside, got)]
                row[f"ours_to_theirs_{key}"] = round(statistics.median(ratios), 2) if ratios else None
            row["installed_mb"] = installed_mb(pythons[peer.name])
            rows.append(row)
    return {"machine": machine(), "rows": rows, "failed": failed}


def machine() -> dict[str, Any]:
    from edge_mnv2.board.cpus import processor

    cpu = processor()
    cores = len(os.sched_getaffinity(0))
    return {"cpu": cpu.name, "vector": list(cpu.vector), "cores": cores, "python": platform.python_version()}


def table(report: dict[str, Any]) -> str:
    head = ["peer", "threads", "FPS", "ms a frame p50 (p95)", "CPU ms", "peak MB", "start s", "installed MB"]
    head += ["edge-mnv2's FPS", "top-1", "as LiteRT"]
    there = report["machine"]
    lines = [f"{there['cpu']}: {', '.join(there['vector'])}; {there['cores']} cores", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in report["rows"]:
        ratio = row["ours_to_theirs_fps"]
        cells = [
            row["peer"],
            str(row["threads"]),
            f"{row['fps']:.0f}",
            f"{row['p50_ms']:.2f} ({row['p95_ms']:.2f})",
            f"{row['cpu_ms']:.2f}",
            f"{row['peak_mb']:.0f}",
            f"{row['start_s']:.2f}",
            f"{row['installed_mb']:.0f}",
            "" if ratio is None else f"{ratio:.2f}x",
            *(f"{row[key]:.3f}" if key in row else "" for key in ("top1", "same")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"\n{name} failed: {why}" for name, why in report["failed"].items()]
    return "\n".join(lines)


def chart(report: dict[str, Any], path: Path) -> None:
    import pygal

    names = list(dict.fromkeys(row["peer"] for row in report["rows"]))
    drawn = pygal.HorizontalBar(
        title=f"Frames a second, 720p clip, {report['machine']['cpu']}", print_values=True, legend_at_bottom=True,
        js=(), height=120 + 50 * len(names), value_formatter=lambda value: f"{value:.0f}",
    )  # fmt: skip
    drawn.x_labels = names[::-1]
    for threads in sorted({row["threads"] for row in report["rows"]}):
        by_name = {row["peer"]: row["fps"] for row in report["rows"] if row["threads"] == threads}
        drawn.add(f"{threads} thread{'s' if threads > 1 else ''}", [by_name.get(name) for name in names[::-1]])
    drawn.render_to_file(str(path))
