"""A profile as one HTML file with charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Optional

from edge_mnv2.html_report import cards, date_text, number, page, plural, scroll, section, table
from edge_mnv2.profiler import charts
from edge_mnv2.profiler.profiled import Profiled
from edge_mnv2.svg_chart import STYLE

_STYLE = """
th,td{white-space:nowrap}
ul{margin:.4rem 0;padding-left:1.2rem}.scroll+.scroll{margin-top:1rem}h1,li{overflow-wrap:anywhere}
.facts td{white-space:normal;overflow-wrap:anywhere}@media(max-width:44rem){body{padding:1rem}
.cards{display:grid;grid-template-columns:1fr 1fr}.card{min-width:0}svg{max-width:none;width:42rem}}
"""

_STAGES = (
    ("model_ms", "the model alone", "invoke, nothing else running in between"),
    ("capture", "capture", "inside the source's read, waiting included"),
    ("preprocess", "preprocess", "crop, resize, colour order, the model's number format"),
    ("inference", "inference", "invoke, between the other stages"),
    ("postprocess", "postprocess", "scores from the output tensor"),
    ("end_to_end_ms", "end to end", "from a frame that is there to its named result"),
)


_CURVES = (
    ("Temperature over time", "°C", "temp_c"),
    ("CPU clock over time", "MHz", "cpu_mhz"),
    ("Power over time", "W", "power_w"),
)


def render(result: Profiled) -> str:
    """The page as HTML."""
    document = result.document()
    board = document["board"] or "unknown board"
    parts = [_head(result, document), _notes(document), _distribution(result, document), compared(result, document)]
    parts += [sizes(result), accelerator(result), _operators(result), _soak(result), _facts(document)]
    return page(
        f"{document['settings']['model']} on {board}", "\n".join(part for part in parts if part), STYLE + _STYLE
    )


def _head(result: Profiled, document: dict[str, Any]) -> str:
    settings = document["settings"]
    line = (
        f"{settings['runtime']} · {settings['delegate']} · {plural(settings['threads'], 'thread')} · "
        f"{plural(settings['workers'], 'worker')} · {settings['source']} · {date_text(document['date'])}"
    )
    figures = [
        ("model alone, median", number(document["model_ms"]["p50"], 2, " ms")),
        ("end to end, median", number(document["end_to_end_ms"]["p50"], 2, " ms")),
        ("end to end, p99", number(document["end_to_end_ms"]["p99"], 2, " ms")),
        ("frame rate", "-" if document["fps"] is None else f"{document['fps']:.1f} FPS"),
        ("CPU time a frame", number(document["cpu"]["ms_per_frame"], 2, " ms")),
    ]
    if document["energy_mj"] is not None:
        figures.append(("energy a frame", f"{document['energy_mj']:.1f} mJ"))
    heat = [document["health"]["max_temp_c"], result.soak.max_temp_c if result.soak else None]
    if any(celsius is not None for celsius in heat):
        figures.append(("highest temperature", f"{max(celsius for celsius in heat if celsius is not None):g} °C"))
    return f'<p class="soft">{escape(line)}</p>{cards(figures)}'


def _notes(document: dict[str, Any]) -> str:
    lines = list(document["notes"])
    if document["expected"] is not None:
        lines.insert(0, document["expected"]["text"])
    if document["saved"]:
        lines.append(f"saved as a device profile: {document['saved']}")
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _distribution(result: Profiled, document: dict[str, Any]) -> str:
    measurement = result.measurement
    if not measurement.model or not measurement.burst.end_to_end:
        return ""
    rows = []
    for key, name, meaning in _STAGES:
        times = document[key] if key in document else document["stages_ms"][key]
        rows.append([escape(name), *(number(times[rank], 3) for rank in ("p50", "p95", "p99")), escape(meaning)])
    worst = max(measurement.burst.end_to_end) / 1e6
    note = (
        f"{document['inferences']} inferences and {document['frames']} frames after a warm-up of "
        f"{document['warm_up']['seconds']:.1f} s; loading took {document['warm_up']['load_ms']:.0f} ms. The slowest "
        f"frame in a hundred is not drawn (the slowest of all: {worst:.1f} ms)."
    )
    chart = charts.distribution(measurement.model, measurement.burst.end_to_end)
    return section("Latency", chart, note) + scroll(table(["ms", "p50", "p95", "p99", ""], rows, numeric=(1, 2, 3)))


def _operators(result: Profiled) -> str:
    if result.operators is None:
        return ""
    document = result.operators.document()
    note = (
        f"{_sentence(document['method'])} {document['rounds']} rounds. Together they take "
        f"{document['covered']:.0%} of the whole model's {document['model_ms']:.2f} ms."
    )
    kinds = [
        [escape(kind), str(count), number(ms, 3), f"{ms / sum(part.ms for part in result.operators.parts):.1%}"]
        for kind, count, ms in result.operators.by_kind()
    ]
    cells = operator_cells(document["operators"])
    every = table(OPERATOR_HEADER, [list(map(escape, row)) for row in cells], numeric=(0, 3, 4, 5))
    return (
        section("Operators", charts.operators(result.operators), note)
        + scroll(table(["kind", "operators", "ms", "share"], kinds, numeric=(1, 2, 3)))
        + f"<details><summary>{len(cells)} operators</summary>{scroll(every)}</details>"
    )


def _soak(result: Profiled) -> str:
    soak = result.soak
    if soak is None or not soak.points:
        return ""
    parts = [section("Soak", charts.soak_rate(soak.points), _sentence(soak.verdict))]
    curves = [charts.soak_curve(soak.points, *curve) for curve in _CURVES]
    parts += [scroll(curve) for curve in curves if curve]
    rows = [
        [
            f"{point.t_s:.0f}",
            number(point.fps, 1),
            number(point.inference_ms, 2),
            number(point.temp_c, 1),
            number(point.cpu_mhz, 0),
            number(point.power_w, 2),
            "-" if point.throttled is None else escape(", ".join(point.throttled)),
        ]
        for point in soak.points
    ]
    header = ["s", "FPS", "inference, ms", "°C", "MHz", "W", "throttled"]
    every = table(header, rows, numeric=(0, 1, 2, 3, 4, 5))
    return "".join(parts) + f"<details><summary>{len(rows)} points</summary>{scroll(every)}</details>"


def _facts(document: dict[str, Any]) -> str:
    health, cpu = document["health"], document["cpu"]
    facts = [
        ("board", document["board"]),
        ("profile", document["settings"]["profile"]),
        ("operating system", f"{document['os'] or '-'} ({document['arch'] or '-'})"),
        ("usable CPUs", f"{document['cpus_usable']}{_because(document['cpus_limited_by'])}"),
        ("CPUs in use", number(cpu["cpus_used"], 2)),
        ("CPUs that other programs kept busy", number(cpu["others"], 2)),
        ("memory of this process", f"{number(document['memory']['rss_mb'], 0)} MB"),
        ("CPU clock", "-" if health["cpu_mhz"] is None else f"{health['cpu_mhz']} MHz ({health['governor'] or '-'})"),
        ("power mode", health["power_mode"] or "-"),
        (
            "throttled while measuring",
            "unknown" if health["throttled"] is None else ", ".join(health["throttled"]) or "no",
        ),
        ("edge-mnv2", document["version"]),
    ]
    rows = [[escape(name), escape(str(value))] for name, value in facts]
    return section("The board", f'<div class="facts">{table(["", ""], rows)}</div>')


def _because(why: Optional[str]) -> str:
    return f" ({why})" if why else ""


def compared(result: Profiled, document: dict[str, Any]) -> str:
    """The settings of the sweep; "" without one."""
    swept = result.swept
    if swept is None:
        return ""
    ended = "until no doubt was left" if swept.settled else "until the time was over"
    note = (
        f"Goal: {document['goal']}, {document['goal_means']}. {swept.rounds} rounds, every setting once a round in a "
        f"new order, {ended}; who was clearly worse left early. Cost is the median ratio to the chosen setting."
    )
    ranked = sorted(swept.rows, key=lambda row: row.entrant.ratio)
    chart = charts.bars(
        "Cost by setting",
        "cost over that of the chosen setting",
        [(_name(row, swept.rows), row.entrant.ratio) for row in ranked],
        ranked.index(swept.winner),
    )
    parts = [section("Settings compared", chart, note)]
    if len(swept.rows) > 1:
        parts.append(
            section(
                "Throughput against latency",
                charts.against(swept.rows, swept.winner),
                "Along each line the number of workers grows. The largest dot is the chosen setting.",
            )
        )
    parts.append(scroll(_rows(ranked, result)))
    return "".join(parts)


def _rows(rows: list[Any], result: Profiled) -> str:
    header, cells, numeric = setting_cells([row.document() for row in rows], result.document())
    return table(header, [list(map(escape, row)) for row in cells], numeric=numeric)


def sizes(result: Profiled) -> str:
    """The winner on frames of several sizes; "" where none were compared."""
    swept = result.swept
    if swept is None or not swept.sizes:
        return ""
    note = "The chosen setting on frames of other sizes."
    if swept.best_size is None:
        note += " Measured on the test pattern: what a camera and its decoder take comes on top."
    return section("Capture sizes", _rows(swept.sizes, result), note)


def accelerator(result: Profiled) -> str:
    """Which of the two to use for what; "" where only one was measured."""
    if result.advice is None:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in result.advice.lines()[1:])
    return section(f"{result.advice.title} or CPU", f"<ul>{lines}</ul>", result.advice.lines()[0])


def _name(row: Any, rows: list[Any]) -> str:
    several = len({other.model for other in rows}) > 1
    return f"{row.model}: {row.setting.words}" if several else str(row.setting.words)


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


OPERATOR_HEADER = ["", "operator", "output", "ms", "share", "GMAC/s"]


def operator_cells(operators: Iterable[dict[str, Any]]) -> list[list[str]]:
    """A row of text for each entry of `ops.operators` in the JSON document."""
    return [
        [
            str(row["index"]),
            f"{row['operator']} {row['detail']}".strip(),
            "x".join(map(str, row["shape"])),
            number(row["ms"], 3),
            f"{row['share']:.1%}" if row["share"] is not None else "",
            "" if not row["macs"] or not row["ms"] else f"{row['macs'] / row['ms'] / 1e6:.1f}",
        ]
        for row in operators
    ]


def setting_cells(
    rows: Sequence[dict[str, Any]], document: dict[str, Any]
) -> tuple[list[str], list[list[str]], Sequence[int]]:
    """(header, rows of text, numeric columns) for entries of `sweep` in the JSON document.

    "cost" is over that of the chosen row, whatever is compared.
    """
    energy = any(row["energy_mj"] is not None for row in rows)
    varying = [key for key in ("model", "runtime") if len({row[key] for row in rows}) > 1]
    header = [*varying, "delegate", "threads", "workers", "size", "ms", "p95", "FPS", "CPU ms"]
    header += [*(["mJ"] if energy else []), "cost", "rounds", ""]
    cells = [
        [
            *(row[key] for key in varying),
            row["delegate"],
            str(row["threads"]),
            str(row["workers"]),
            "-" if row["width"] is None else f"{row['width']}x{row['height']}",
            number(row["end_to_end_ms"]["p50"], 2),
            number(row["end_to_end_ms"]["p95"], 2),
            number(row["fps"], 1),
            number(row["cpu_ms_per_frame"], 1),
            *([number(row["energy_mj"], 1)] if energy else []),
            f"{row['ratio']:.2f}",
            str(row["rounds"]),
            "chosen" if _is_chosen(row, document) else row["stopped"] or "",
        ]
        for row in rows
    ]
    first = header.index("threads")
    return header, cells, (first, first + 1, *range(first + 3, len(header) - 1))


def _is_chosen(row: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether what is measured thoroughly has this row's setting, or this row's size."""
    settings, winner = document["settings"], document["winner"]
    if row["compares"] == "sizes":
        return bool((row["width"], row["height"]) == (settings["width"], settings["height"]))
    return all(row[key] == winner[key] for key in ("model", "runtime", "delegate", "threads", "workers"))
