"""`edge-mnv2 profile`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import (
    JSON,
    ROOT,
    SAID_OF_INPUT,
    TYPED,
    argument,
    changed,
    flag,
    option,
    settings,
    with_origin,
)
from edge_mnv2.cli.terminal import aligned, json_text
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import Choice, Duration, File, Number
from edge_mnv2.settings.option import COMMAND_LINE, Value

if TYPE_CHECKING:
    from edge_mnv2.profiler.profiled import Profiled
    from edge_mnv2.settings.profile import Settings

_OPERATORS = 12


def profile(
    words: list[str] = argument(
        "[compare FILE...]", "Put profiles side by side, from the files of --json.", many=True, required=False
    ),
    # Its variable is read with the settings: here it would be split at blanks.
    models: Optional[tuple[str, ...]] = changed(
        "model", help="A name or a model file; with --sweep several times.", repeated=True, shared=False
    ),
    resolved: Settings = settings(
        "runtime.backend",
        "runtime.delegate",
        "runtime.threads",
        "runtime.workers",
        "preprocess.resize",
        "camera.width",
        *SAID_OF_INPUT,
        "model.task",
        profile=True,
    ),
    source: Optional[str] = changed("source", help="As for run: camera, stream, clip, test[:WxH]. Default: test."),
    sweep: bool = flag("sweep", "Compare threads, workers, delegates, models, sizes; what is given stays."),
    goal: Value = with_origin(
        option("goal", "What --sweep chooses for.", Choice("latency", "throughput", "power"), default="latency")
    ),
    ops: bool = flag("ops", "Time by operator too."),
    soak: Optional[float] = option(
        "soak",
        "Then run at full speed, and watch heat.",
        Number(0, 60 * 24 * 30, "minutes", above=True),
        metavar="MINUTES",
    ),
    log: Optional[str] = option("log", "Write the soak's results: FILE.jsonl or FILE.csv.", metavar="FILE"),
    save: Optional[str] = option("save", "Write a device profile with the settings.", metavar="NAME"),
    report: Optional[Path] = option("report", "Write a page with charts.", File("FILE.html")),
    duration: Optional[float] = option("duration", "Measure for S seconds (8; with --sweep 90).", Duration()),
    root: Optional[Path] = ROOT,
    as_json: bool = JSON,
    typed: frozenset[str] = TYPED,
) -> None:
    """Measure this board: the model alone, every stage, the whole way of a frame; find and save the best settings.

    `profile compare A.json B.json` puts boards, models and settings side by side, with accuracy where a file is of
    `evaluate --json`.
    """
    from edge_mnv2.profiler.session import Request
    from edge_mnv2.profiler.session import profile as measure

    if words:
        _compare(words, typed, report, as_json)
        return
    if goal.value != "latency" and not sweep and goal.origin == COMMAND_LINE:
        raise UsageError("--goal without --sweep", hint="--goal says what --sweep chooses the settings for")
    if log == "-":
        raise UsageError("--log -: the results of profile are on stdout", hint="give --log a file")
    if models:
        resolved = resolved.changed("runtime.model", models[0])
    result = measure(
        Request(
            settings=resolved,
            models=list(dict.fromkeys(models)) if models else [resolved.runtime.model],
            source=source,
            sweep=sweep,
            goal=goal.value,
            soak_minutes=soak,
            soak_log=log,
            operators=ops,
            save=save,
            report=report,
            seconds=duration,
            root=root or "/",
        )
    )
    typer.echo(json_text(result.document()) if as_json else _text(result))
    if report is not None:
        typer.echo(f"report: {report}", err=True)


def _compare(words: list[str], typed: frozenset[str], report: Optional[Path], as_json: bool) -> None:
    from edge_mnv2.html_report import write_page
    from edge_mnv2.profiler.compare import MEANINGS, Comparison, render

    if words[0] != "compare":
        raise UsageError(f"profile: unexpected '{words[0]}'", hint="edge-mnv2 profile compare A.json B.json")
    for name in sorted(typed - {"report", "json", "verbose", "quiet", "debug"}):
        raise UsageError(f"--{name} does not go with profile compare", hint="it measures nothing")
    comparison = Comparison([Path(word) for word in words[1:]])
    if report is not None:
        write_page(report, render(comparison))
    if as_json:
        typer.echo(json_text(comparison.document()))
    else:
        header, cells = comparison.cells()
        wrap = textwrap.TextWrapper(79, initial_indent="   ", subsequent_indent="   ", break_long_words=False)
        legend = "\n".join(f"{name}\n{wrap.fill(what)}" for name, what in comparison.legend())
        table = aligned(cells, header, right=range(1, len(header)))
        notes = "".join(f"note: {note}\n" for note in comparison.notes)
        typer.echo(f"{legend}\n\n{table}\n\n{notes}{textwrap.fill(MEANINGS, 79)}")
    if report is not None:
        typer.echo(f"report: {report}", err=True)


def _text(result: Profiled) -> str:
    from edge_mnv2.html_report import plural

    document = result.document()
    settings = document["settings"]
    threads, workers = plural(settings["threads"], "thread"), plural(settings["workers"], "worker")
    blocks = [
        "\n".join(
            [
                f"{document['board'] or 'unknown board'} (profile {settings['profile']})",
                f"{settings['model']} on {settings['runtime']}, {settings['delegate']}, {threads}, {workers}",
                f"{settings['source']}, resize {settings['resize']}",
            ]
        ),
        _times(document),
        _summary(document),
    ]
    if document["sweep"]:
        blocks.append(_sweep(document))
    if result.advice is not None:
        blocks.append("\n".join(result.advice.lines()))
    if result.operators is not None:
        blocks.append(_operators(result))
    if document["soak"] is not None:
        blocks.append(f"soak: {document['soak']['verdict']}")
    if document["notes"]:
        blocks.append("\n".join(f"note: {note}" for note in document["notes"]))
    if document["saved"]:
        blocks.append(f"saved: {document['saved']} (run uses it on this board from now on)")
    return "\n\n".join(blocks)


def _times(document: dict[str, Any]) -> str:
    from edge_mnv2.html_report import number

    stages = document["stages_ms"]
    rows = [("model alone", document["model_ms"]), *stages.items(), ("end to end", document["end_to_end_ms"])]
    return aligned(
        [[name, *(number(times[rank], 3) for rank in ("p50", "p95", "p99"))] for name, times in rows],
        ["ms", "p50", "p95", "p99"],
        right=(1, 2, 3),
    )


def _summary(document: dict[str, Any]) -> str:
    from edge_mnv2.html_report import number

    cpu, warm_up, memory, health = (document[key] for key in ("cpu", "warm_up", "memory", "health"))
    rows = [
        ("frame rate", f"{number(document['fps'], 1)} FPS"),
        ("CPU", f"{number(cpu['ms_per_frame'], 1)} ms a frame, {number(cpu['cpus_used'], 2)} CPUs in use"),
        ("memory", f"{number(memory['rss_mb'], 0)} MB (peak {number(memory['peak_rss_mb'], 0)})"),
        ("energy", "no power sensor" if document["energy_mj"] is None else _energy(document)),
        (
            "warm-up",
            f"{number(warm_up['load_ms'], 0)} ms to load, {number(warm_up['first_ms'], 1)} ms for the first frame",
        ),
    ]
    if health["temp_c"] is not None:
        rows.append(("temperature", f"{health['temp_c']:g} °C (highest {health['max_temp_c']:g})"))
    if document["expected"] is not None:
        rows.append(("verdict", document["expected"]["text"]))
    return aligned(rows)


def _energy(document: dict[str, Any]) -> str:
    return f"{document['energy_mj']:.1f} mJ a frame, the board draws {document['power_w']:.2f} W"


def _sweep(document: dict[str, Any]) -> str:
    from edge_mnv2.profiler.report import setting_cells

    blocks = []
    for compares, title, order in (
        ("engines", f"settings, by {document['goal']} ({document['goal_means']})", "ratio"),
        ("sizes", "sizes of the frames, with the chosen setting", "width"),
    ):
        rows = sorted((row for row in document["sweep"] if row["compares"] == compares), key=lambda row: row[order])
        if rows:
            header, cells, right = setting_cells(rows, document)
            blocks.append(f"{title}\n{aligned(cells, [name.upper() for name in header], right=right)}")
    return "\n\n".join(blocks)


def _operators(result: Profiled) -> str:
    from edge_mnv2.profiler.report import OPERATOR_HEADER, operator_cells

    assert result.operators is not None
    document = result.operators.document()
    slowest = sorted(document["operators"], key=lambda row: -row["ms"])[:_OPERATORS]
    header = [name.upper() for name in OPERATOR_HEADER]
    covered = document["covered"]
    kinds = ", ".join(f"{count} {kind} {ms:.2f} ms" for kind, count, ms in result.operators.by_kind())
    return "\n".join(
        [
            f"operators, each timed as a model of its own, one thread; together {covered:.0%} of the whole",
            aligned(operator_cells(slowest), header, right=(0, 3, 4, 5)),
            f"by kind: {kinds}",
        ]
    )


COMMAND = Command(
    profile,
    examples=(
        "edge-mnv2 profile",
        "edge-mnv2 profile --sweep --save mine --report report.html",
        "edge-mnv2 profile compare pi4.json pi5.json",
    ),
)
